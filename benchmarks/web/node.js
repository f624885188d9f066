// node node.js ROUNDS: measures in Node.js, in a folder that benchmarks/web.py has prepared, and prints JSON.
import fs from "node:fs";
import * as ort from "onnxruntime-web";
import { measure } from "./measure.js";
import { compile, load } from "./qxr.js";

ort.env.wasm.numThreads = 1;
await compile(fs.readFileSync("qxr.wasm"));
const models = { int8: fs.readFileSync("int8.onnx"), float32: fs.readFileSync("float32.onnx") };
const found = await measure({ load, file: fs.readFileSync("model.qpk"), ort, models, rounds: Number(process.argv[2]) });
console.log(JSON.stringify(found));
process.exit(0);
