// node run_wasi.mjs PROGRAM.wasm FOLDER [ARGUMENT...]: a program compiled for WASI, which sees FOLDER as its working directory.
import fs from "node:fs";
import { WASI } from "node:wasi";

const [program, folder, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...args], preopens: { ".": folder }, returnOnExit: true });
const module = await WebAssembly.compile(fs.readFileSync(program));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
