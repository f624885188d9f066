"""The WebAssembly runtime beside onnxruntime-web, in headless Chromium and in Node.js; the table of docs/embedding.md.

    python benchmarks/web.py [MODEL.qpk ...] [--rounds N] [--scratch DIR]

Without files: seeded CIFAR ResNet-20 networks. onnxruntime-web runs the float network of the same layers, quantized by
ONNX Runtime's own tool (uint8 activations, int8 weights, QDQ), and in float32. One thread each; engines take turns in
every round, and a ratio of medians is the median of the rounds' ratios. The fastest runs stand beside them: a machine
that does other things too interrupts long runs more often than short ones; there the fastest are the fair comparison.
npm installs onnxruntime-web into the scratch folder.
"""

from __future__ import annotations

import functools
import http.server
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import click
import onnx

from qexport.backends.packed.reader import read_packed
from qexport.benchmark.float_network import float_onnx
from qexport.benchmark.quantized_network import quantize
from qexport.checkpoints import save_native
from qexport.conversion import convert
from qexport.embed import embed
from qexport.models.papers import PAIRS
from qexport.models.registry import architecture
from qexport.models.seeded import random_images, seeded

HERE = Path(__file__).resolve().parent
ORT_WEB = "onnxruntime-web@1.30.0"
SEEDED = ("daq-w1a1", "qn-w1a2", "qn-w2a2")
"""Rows of qexport.models.papers.PAIRS."""
SHAPE = (3, 32, 32)
CALIBRATION_IMAGES = 16
BROWSER_SECONDS = 180
CHROMIUM = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def seeded_model(pair: str, folder: Path) -> Path:
    """A ResNet-20 with seeded weights of the pair's quantizers, as .qpk."""
    chosen = PAIRS[pair]
    name = f"{chosen.scheme}-resnet20"
    data = architecture(name).preprocessing
    network = seeded(name, input_shape=SHAPE, **chosen.arguments)
    checkpoint = folder / f"{pair}.pt"
    settings = {"arguments": chosen.arguments, "input_shape": SHAPE, "mean": data.mean, "std": data.std}
    save_native(checkpoint, network, arch=name, **settings)
    images = random_images(SHAPE, CALIBRATION_IMAGES).numpy()
    return convert(checkpoint, folder / pair, formats=("qpk",), calibration_data=images).files["qpk"]


def prepare(model: Path, folder: Path) -> None:
    """Everything both engines need, in a folder with node_modules."""
    embed(model, folder, target="wasm")
    onnx.save(float_onnx(read_packed(model).to_graph()), folder / "float32.onnx")
    quantize(folder / "float32.onnx", folder / "int8.onnx")
    for file in (HERE / "web").iterdir():
        shutil.copy(file, folder)


def measure_in_node(folder: Path, rounds: int) -> dict[str, Any]:
    done = subprocess.run(["node", "node.js", str(rounds)], cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and takes what the page sends back."""

    results: queue.Queue[dict[str, Any]] = queue.Queue()

    def end_headers(self) -> None:
        """With these two headers browsers give their finer clock, 5 microseconds instead of 100."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def measure_in_chromium(folder: Path, rounds: int) -> dict[str, Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        address = f"http://127.0.0.1:{server.server_port}/bench.html?rounds={rounds}"
        command = ["chromium", *CHROMIUM, f"--user-data-dir={profile}", "--remote-debugging-port=0", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = _Handler.results.get(timeout=BROWSER_SECONDS)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    if "error" in found:
        raise click.ClickException(found["error"])
    return found


TITLE = """\
| network | in | | qxr.wasm | onnxruntime-web int8 | float32 |
|---|---|---|---|---|---|"""


def rows(name: str, where: str, found: dict[str, Any]) -> Iterator[str]:
    """Lines of the table, in milliseconds."""
    for title, key, summary in (("median", "medians", median), ("fastest", "fastest", min)):
        ours = found[key]["qxr"]
        cells = [f"{summary(ours):.2f}"]
        for peer in ("int8", "float32"):
            theirs = found[key][peer]
            by_round = median(t / o for t, o in zip(theirs, ours, strict=True))
            ratio = by_round if title == "median" else min(theirs) / min(ours)
            cells.append(f"{summary(theirs):.2f} ({ratio:.1f} x)")
        yield f"| {name} | {where} | {title} | " + " | ".join(cells) + " |"


@click.command()
@click.argument("models", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", "count", default=15, show_default=True, help="Each engine runs for 120 ms in every round.")
@click.option("--scratch", type=click.Path(path_type=Path), help="Kept folder; a temporary one otherwise.")
def main(models: tuple[Path, ...], count: int, scratch: Path | None) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (scratch or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", ORT_WEB], cwd=folder, check=True)
        named = {path.stem: path for path in models} or {
            f"ResNet-20 {pair}": seeded_model(pair, folder) for pair in SEEDED
        }
        click.echo(TITLE)
        for name, model in named.items():
            prepare(model, folder)
            for where, measured in (("Chromium", measure_in_chromium), ("Node.js", measure_in_node)):
                click.echo("\n".join(rows(name, where, measured(folder, count))))


if __name__ == "__main__":
    main()
