// Types of qxr.js: networks in the packed format .qpk, computed in integers by qxr.wasm.

/** Where bytes come from: a URL (relative to the page), a Response, or the bytes themselves. */
export type Source = string | URL | Response | ArrayBuffer | ArrayBufferView;

/** An input of a network. */
export interface InputInfo {
  readonly name: string;
  /** Extents without a batch, channels first. */
  readonly shape: readonly number[];
  readonly elements: number;
  /** Smallest and largest value, as proven when the network was converted. */
  readonly range: readonly [number, number];
}

/** An output of a network. */
export interface OutputInfo extends InputInfo {
  /** Real value = integer * scale; null where the file does not say. */
  readonly scale: number | null;
}

/** What a run gives for one output. */
export interface Output {
  readonly name: string;
  readonly shape: readonly number[];
  readonly scale: number | null;
  /** Channels first. A copy: later runs do not change it. */
  readonly integers: Int32Array;
}

/** An image as canvases give it; ImageData is one. */
export interface Rgba {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** A class with what the network says about it. */
export interface Ranked {
  readonly index: number;
  readonly label: string;
  readonly integer: number;
  /** The real logit, integer * scale; null where there is no scale. */
  readonly value: number | null;
}

/** A checked network with its own memory, which is freed with the object. */
export interface Model {
  readonly inputs: readonly InputInfo[];
  readonly outputs: readonly OutputInfo[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly classNames: readonly string[] | null;
  /** Name of the kernels in use: "simd128" or "scalar". */
  readonly isa: string;
  /**
   * Runs the network on one image: pixels 0..255, channels first, or an image of exactly the network's size. Normalisation is
   * inside the network. A network of several inputs takes an array. Throws QxrError where an input does not fit.
   */
  run(input: Uint8Array | Rgba | ReadonlyArray<Uint8Array | Rgba>): Output[];
  /** Lets go of the memory now; the model cannot run any more. */
  free(): void;
}

/** A file that was refused, or an input that does not fit. */
export class QxrError extends Error {
  /** The name in qxr.h, such as "QXR_ERROR_CRC"; "QXR_ERROR_MEMORY" where the browser gives no memory. */
  readonly status: string;
  /** The tensor at fault, or null. */
  readonly tensor: number | null;
}

/** Loads and checks a network. `isa`: "scalar" or "simd128", for tests; the best otherwise. Throws QxrError. */
export function load(source: Source, options?: { isa?: "scalar" | "simd128" | null }): Promise<Model>;

/** Compiles the module from elsewhere than beside qxr.js; call it before `load`. Not needed otherwise. */
export function compile(source?: Source | WebAssembly.Module): Promise<WebAssembly.Module>;

/** Pixels of an image as a network of this shape takes them: uint8, channels first. Throws QxrError for another size. */
export function pixelsOf(image: Rgba, shape: readonly number[]): Uint8Array;

/** The classes of an output, best first, equal ones by index. */
export function ranked(output: Output, classNames?: readonly string[] | null, top?: number): Ranked[];
