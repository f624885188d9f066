// Interleaved runs of one network in qxr.wasm and in onnxruntime-web, the same in a browser and in Node.js.

const WARM_MS = 2000; // engines compile in the background at first
const ROUND_MS = 120; // each engine's share of a round

const now = () => performance.now();

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

async function repeat(run, milliseconds) {
  const times = [];
  const end = now() + milliseconds;
  do {
    const start = now();
    await run();
    times.push(now() - start);
  } while (now() < end);
  return times;
}

// Sessions of onnxruntime-web on one thread. `models`: name -> bytes of an ONNX file with one float input.
async function openPeers(ort, models, shape) {
  const peers = {};
  for (const [name, bytes] of Object.entries(models)) {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const pixels = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i));
    const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", pixels, [1, ...shape]) };
    peers[name] = () => session.run(feeds);
  }
  return peers;
}

// Returns milliseconds, engine -> a number for every round: the median of its runs, and the fastest. All engines take their
// turn in every round.
export async function measure({ load, file, ort, models, rounds }) {
  const model = await load(file);
  const [{ shape, elements }] = model.inputs;
  const pixels = Uint8Array.from({ length: elements }, (_, i) => (i * 7919) >> 3);
  const engines = { qxr: () => model.run(pixels), ...(await openPeers(ort, models, shape)) };
  const medians = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
  const fastest = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
  for (const run of Object.values(engines)) await repeat(run, WARM_MS);
  for (let round = 0; round < rounds; round++)
    for (const [name, run] of Object.entries(engines)) {
      const times = await repeat(run, ROUND_MS);
      medians[name].push(median(times));
      fastest[name].push(Math.min(...times));
    }
  return { medians, fastest, kernels: model.isa };
}
