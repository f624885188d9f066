// The page: a network and an image, dropped or chosen, become classes with scores and the time of a run.

import { load, pixelsOf, QxrError, ranked } from "./qxr.js";

const TOP = 8;
const ENOUGH_MS = 150; // the time is measured for so long
const BATCH_MS = 5;
const MOST_RUNS = 200; // of a batch

const element = (id) => document.getElementById(id);
let model = null;
let image = null; // ImageBitmap of the last image

function show(error) {
  element("error").textContent = error instanceof QxrError ? error.message : String(error?.message ?? error);
  element("error").hidden = false;
  console.error(error);
}

// Whatever the user does next starts without the last error.
async function attempt(action) {
  element("error").hidden = true;
  document.body.dataset.state = "busy";
  try {
    await action();
  } catch (error) {
    show(error);
  }
  document.body.dataset.state = "ready";
}

function row(term, text) {
  const dt = document.createElement("dt");
  const dd = document.createElement("dd");
  dt.textContent = term;
  dd.textContent = text;
  return [dt, dd];
}

function describe(name, size) {
  const about = element("about");
  about.replaceChildren(
    ...row("file", `${name}, ${size.toLocaleString("en")} bytes`),
    ...row("network", model.metadata["qexport.architecture"] ?? "unnamed"),
    ...row("input", model.inputs.map(({ shape }) => shape.join(" × ")).join(", ")),
    ...row("classes", String(model.outputs[0].elements)),
    ...row("kernels", model.isa),
  );
}

async function useModel(name, bytes) {
  const next = await load(bytes);
  if (next.metadata["qexport.detector"]) throw new Error(`${name} finds objects; this page shows classes only`);
  if (next.inputs.length !== 1 || next.inputs[0].shape.length !== 3)
    throw new Error(`${name} takes no single image: ${next.inputs.map(({ shape }) => shape.join(" × ")).join(", ")}`);
  model?.free();
  model = next;
  describe(name, bytes.byteLength);
  classify();
}

// The image as the network sees it. Of another size it is scaled so that it fills the input, and cut in the middle.
function draw() {
  const [, height, width] = model.inputs[0].shape;
  const canvas = element("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  canvas.width = width;
  canvas.height = height;
  canvas.hidden = false;
  if (image.width === width && image.height === height) {
    context.drawImage(image, 0, 0);
    element("note").textContent = `${width} × ${height} pixels, as they are`;
  } else {
    const scale = Math.max(width / image.width, height / image.height);
    const [w, h] = [width / scale, height / scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(image, (image.width - w) / 2, (image.height - h) / 2, w, h, 0, 0, width, height);
    element("note").textContent = `scaled from ${image.width} × ${image.height} to ${width} × ${height} pixels`;
  }
  return context.getImageData(0, 0, width, height);
}

// Milliseconds of a run: the median of batches that are long beside the resolution of the browser's clock.
function timed(run) {
  const batch = (count) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) run();
    return (performance.now() - start) / count;
  };
  const count = Math.ceil(BATCH_MS / Math.max(batch(1), BATCH_MS / MOST_RUNS));
  const times = [];
  const end = performance.now() + ENOUGH_MS;
  do times.push(batch(count));
  while (performance.now() < end);
  return times.sort((a, b) => a - b)[times.length >> 1];
}

function classify() {
  if (model === null || image === null) return;
  const pixels = pixelsOf(draw(), model.inputs[0].shape);
  const [output] = model.run(pixels);
  const all = ranked(output, model.classNames);
  const real = all.map((one) => one.value ?? one.integer);
  const total = real.reduce((sum, value) => sum + Math.exp(value - real[0]), 0);
  element("waiting").hidden = true;
  element("classes").replaceChildren(
    ...all.slice(0, TOP).map((one, i) => {
      const item = document.createElement("li");
      const share = Math.exp(real[i] - real[0]) / total;
      const bar = document.createElement("div");
      bar.className = "bar";
      bar.style.width = `${100 * share}%`;
      item.append(bar);
      const score = one.value === null ? one.integer.toLocaleString("en") : one.value.toFixed(3);
      for (const [kind, text] of [["label", one.label], ["score", score], ["share", `${(100 * share).toFixed(1)} %`]]) {
        const span = document.createElement("span");
        span.className = kind;
        span.textContent = text;
        item.append(span);
      }
      item.title = `integer ${one.integer.toLocaleString("en")}`;
      item.dataset.index = one.index;
      item.dataset.integer = one.integer;
      return item;
    }),
  );
  element("time").textContent = `${timed(() => model.run(pixels)).toFixed(2)} ms a run, one thread`;
}

// Pixels as they stand in the file: no colour profile, no turning by EXIF, no premultiplication while decoding.
const AS_STORED = { colorSpaceConversion: "none", imageOrientation: "none", premultiplyAlpha: "none" };

async function useFile(file) {
  if (file.name.toLowerCase().endsWith(".qpk")) return useModel(file.name, await file.arrayBuffer());
  try {
    image = await createImageBitmap(file, AS_STORED);
  } catch {
    throw new Error(`${file.name} is neither an image that this browser reads nor a .qpk file`);
  }
  classify();
}

for (const id of ["choose-model", "choose-image"])
  element(id).addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = ""; // choosing the same file again is a change, too
    if (file) attempt(() => useFile(file));
  });

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const files = [...event.dataTransfer.files];
  attempt(async () => {
    // A network and an image dropped together: the network first.
    files.sort((a, b) => b.name.toLowerCase().endsWith(".qpk") - a.name.toLowerCase().endsWith(".qpk"));
    for (const file of files) await useFile(file);
  });
});

attempt(async () => {
  const name = document.body.dataset.model;
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  await useModel(name, await response.arrayBuffer());
});
