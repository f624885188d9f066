// node run_model.mjs FOLDER ISA < samples > outputs: every sample of standard input through the network of a directory that
// `qexport embed --target wasm` wrote. Samples and outputs follow each other without gaps, as bytes and as int32.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, isa] = process.argv.slice(2);
const { compile, load } = await import(pathToFileURL(path.join(folder, "qxr.js")));
await compile(fs.readFileSync(path.join(folder, "qxr.wasm")));
const model = await load(fs.readFileSync(path.join(folder, "model.qpk")), { isa });
if (model.isa !== isa) throw new Error(`${model.isa} kernels instead of ${isa}`);

const samples = new Uint8Array(fs.readFileSync(0));
const found = [];
for (let at = 0; at < samples.length; ) {
  const inputs = model.inputs.map(({ elements }) => samples.subarray(at, (at += elements)));
  for (const output of model.run(inputs)) found.push(Buffer.from(output.integers.buffer));
}
fs.writeSync(1, Buffer.concat(found));
