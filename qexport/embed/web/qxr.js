// Runs networks in the packed format .qpk, in integers, with qxr.wasm beside this file. No dependencies.
//
//     import { load } from "./qxr.js";
//     const model = await load("model.qpk");
//     const [logits] = model.run(pixels); // Uint8Array, channels first, or an ImageData of the network's size
//     model.free();
//
// Types and all functions: qxr.d.ts.

const STATUS_NAMES = `OK ARGUMENT BIG_ENDIAN ALIGNMENT TRUNCATED MAGIC VERSION CRC FEATURE HEADER LAYOUT PADDING TENSOR
  OPCODE OPERATOR INPUT SHAPE WEIGHTS CONSTANTS RANGE ACCUMULATOR GROUP ARENA LIFETIME OUTPUT METADATA LIMIT ISA
  ARENA_SIZE PREPACK_SIZE`.split(/\s+/);
const WHOLE_FILE = 0xffffffff;
const PAGE = 65536;
const ALIGN = 64;
const FIELD = { rank: 0, extent: 1, elements: 4, lo: 5, hi: 6, index: 7 }; // of a tensor, as in module.c

/** A file that was refused, or an input that does not fit. `status` is the name in qxr.h, such as "QXR_ERROR_CRC". */
export class QxrError extends Error {
  constructor(status, message, tensor = null) {
    super(`${message} (${status}${tensor === null ? "" : `, at tensor ${tensor} or the operator that makes it`})`);
    this.name = "QxrError";
    this.status = status;
    this.tensor = tensor;
  }
}

let compiled = null;

/** Compiles the module once; later models share the code. `source`: URL, bytes or WebAssembly.Module. */
export function compile(source = new URL("qxr.wasm", import.meta.url)) {
  compiled = source instanceof WebAssembly.Module ? Promise.resolve(source) : read(source).then(WebAssembly.compile);
  compiled.catch(() => (compiled = null)); // the next call may try again
  return compiled;
}

/** Loads and checks a network. `source`: URL, Response, ArrayBuffer or a view of one. */
export async function load(source, { isa = null } = {}) {
  const [module, file] = await Promise.all([compiled ?? compile(), read(source)]);
  const model = new Model(await WebAssembly.instantiate(module), file, isa);
  const metadata = await inflate(model.storedMetadata());
  model.describe(metadata);
  return model;
}

async function read(source) {
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  const response = source instanceof Response ? source : await fetch(source);
  if (!response.ok) throw new Error(`${response.url || source}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

// JSON as it is, or compressed with zlib.
async function inflate(stored) {
  const plain = stored[0] === 0x7b;
  const stream = new Blob([stored]).stream();
  const text = await new Response(plain ? stream : stream.pipeThrough(new DecompressionStream("deflate"))).text();
  return JSON.parse(text);
}

function parsed(text, fallback) {
  try {
    return JSON.parse(text) ?? fallback;
  } catch {
    return fallback;
  }
}

/** A checked network with its own memory. Made by `load`. */
class Model {
  #wasm; // exports of this model's own instance; null after free()
  #end; // first byte of memory that is not in use
  #arena;
  #arenaSize;
  #inputs; // addresses
  #outputs;
  #pointers; // two arrays of addresses, as `run` takes them

  constructor(instance, file, isa) {
    this.#wasm = instance.exports;
    this.#end = this.#wasm.__heap_base.value;
    const at = this.#allocate(file.length);
    this.#bytes(at, file.length).set(file);
    this.#check(this.#wasm.open(at, file.length));
    this.#select(isa);
    const packedSize = this.#wasm.prepack_size();
    this.#check(this.#wasm.prepack(this.#allocate(packedSize), packedSize));
    this.#arenaSize = this.#wasm.arena_size() >>> 0;
    this.#arena = this.#allocate(this.#arenaSize);
  }

  #allocate(size) {
    const start = Math.ceil(this.#end / ALIGN) * ALIGN;
    this.#end = start + size;
    const missing = Math.ceil((this.#end - this.#wasm.memory.buffer.byteLength) / PAGE);
    try {
      if (missing > 0) this.#wasm.memory.grow(missing);
    } catch {
      throw new QxrError("QXR_ERROR_MEMORY", `no memory for ${this.#end} bytes`);
    }
    return start;
  }

  // Views end when the memory grows, so they are made anew.
  #bytes(at, size) {
    return new Uint8Array(this.#wasm.memory.buffer, at, size);
  }

  #text(at) {
    const bytes = new Uint8Array(this.#wasm.memory.buffer, at);
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  }

  #check(status) {
    if (status === 0) return;
    const name = `QXR_ERROR_${STATUS_NAMES[status]}`;
    const tensor = this.#wasm.failed_at() >>> 0;
    throw new QxrError(name, this.#text(this.#wasm.status_text(status)), tensor === WHOLE_FILE ? null : tensor);
  }

  // Kernels by name, or the best; the name lies where the packed weights come later.
  #select(isa) {
    const name = new TextEncoder().encode(`${isa ?? ""}\0`);
    const end = this.#end;
    const at = this.#allocate(name.length);
    this.#bytes(at, name.length).set(name);
    this.#check(this.#wasm.select_isa(isa === null ? 0 : at));
    this.#end = end;
    this.isa = this.#text(this.#wasm.selected_isa());
  }

  storedMetadata() {
    return this.#bytes(this.#wasm.metadata(), this.#wasm.metadata_size()).slice();
  }

  describe(metadata) {
    const names = parsed(metadata["qexport.tensors"], []);
    const scales = parsed(metadata["qexport.outputs"], []);
    const known = Array.isArray(names) && names.length === this.#wasm.tensor_count();
    const tensors = (count, get) =>
      Array.from({ length: count }, (_, i) => {
        const index = get(i, FIELD.index);
        const rank = get(i, FIELD.rank);
        const shape = [0, 1, 2].slice(0, rank).map((axis) => get(i, FIELD.extent + axis));
        const range = [get(i, FIELD.lo), get(i, FIELD.hi)];
        return { name: known ? names[index] : `t${index}`, shape, elements: get(i, FIELD.elements), range };
      });
    this.metadata = metadata;
    this.classNames = parsed(metadata["qexport.class_names"], null);
    this.inputs = tensors(this.#wasm.input_count(), this.#wasm.input);
    this.outputs = tensors(this.#wasm.output_count(), this.#wasm.output);
    for (const tensor of this.outputs) tensor.scale = scales.find((o) => o.name === tensor.name)?.scale ?? null;
    this.#inputs = this.inputs.map((tensor) => this.#allocate(tensor.elements));
    this.#outputs = this.outputs.map((tensor) => this.#allocate(4 * tensor.elements));
    this.#pointers = this.#allocate(4 * (this.inputs.length + this.outputs.length));
    const pointers = new Uint32Array(this.#wasm.memory.buffer, this.#pointers);
    pointers.set([...this.#inputs, ...this.#outputs]);
  }

  run(given) {
    if (this.#wasm === null) throw new QxrError("QXR_ERROR_ARGUMENT", "this model has been freed");
    const all = Array.isArray(given) ? given : [given];
    if (all.length !== this.inputs.length)
      throw new QxrError("QXR_ERROR_ARGUMENT", `${all.length} inputs given, the network takes ${this.inputs.length}`);
    this.inputs.forEach((tensor, i) => {
      const pixels = all[i] instanceof Uint8Array ? all[i] : pixelsOf(all[i], tensor.shape);
      if (pixels.length !== tensor.elements)
        throw new QxrError(
          "QXR_ERROR_ARGUMENT",
          `${tensor.name}: ${pixels.length} bytes given, expected ${tensor.elements} (${tensor.shape.join(" x ")})`,
        );
      this.#bytes(this.#inputs[i], tensor.elements).set(pixels);
    });
    const outputs = this.#pointers + 4 * this.inputs.length;
    this.#check(this.#wasm.run(this.#arena, this.#arenaSize, this.#pointers, outputs));
    return this.outputs.map(({ name, shape, scale, elements }, i) => ({
      name,
      shape,
      scale,
      integers: new Int32Array(this.#wasm.memory.buffer, this.#outputs[i], elements).slice(),
    }));
  }

  free() {
    this.#wasm = null;
  }
}

/** Pixels of an image as a network takes them: uint8, channels first; grey as Pillow's convert("L") makes it. */
export function pixelsOf({ data, width, height }, [channels, rows, columns]) {
  if (width !== columns || height !== rows)
    throw new QxrError("QXR_ERROR_ARGUMENT", `an image of ${width} x ${height}, the network takes ${columns} x ${rows}`);
  if (![1, 3, 4].includes(channels))
    throw new QxrError("QXR_ERROR_ARGUMENT", `images have 1, 3 or 4 channels, the network takes ${channels}`);
  const count = width * height;
  const pixels = new Uint8Array(channels * count);
  for (let p = 0; p < count; p++) {
    const rgba = data.subarray(4 * p, 4 * p + 4);
    if (channels === 1) pixels[p] = (rgba[0] * 19595 + rgba[1] * 38470 + rgba[2] * 7471 + 0x8000) >> 16;
    else for (let c = 0; c < channels; c++) pixels[c * count + p] = rgba[c];
  }
  return pixels;
}

/** The classes of an output, best first, equal ones by index: index, label, integer, and value = integer * scale. */
export function ranked(output, classNames = null, top = Infinity) {
  return Array.from(output.integers, (integer, index) => ({
    index,
    label: classNames?.[index] ?? `class ${index}`,
    integer,
    value: output.scale === null ? null : integer * output.scale,
  }))
    .sort((a, b) => b.integer - a.integer || a.index - b.index)
    .slice(0, top);
}
