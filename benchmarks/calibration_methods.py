"""Tables of docs/calibration.md: how the ranges of float activations are chosen, and what it costs.

Run from the project's root, QEXPORT_TEST_DATA as for the tests:

    python benchmarks/calibration_methods.py methods [--checkpoint NAME] [--bits 8,6,4] [--images 256]
    python benchmarks/calibration_methods.py streams

Half an hour and five minutes on one core. OPENBLAS_NUM_THREADS=1 is faster on a busy machine, where threads that wait
for each other spin.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import open_session, run_session
from qexport.calibration import Calibration, calibrate
from qexport.calibration.allocation import allocate_bits
from qexport.calibration.calibrate import layer_inputs
from qexport.calibration.data import open_images
from qexport.calibration.methods import Method, find_method
from qexport.calibration.observers import AverageExtremes, Extremes, Histogram, Range
from qexport.calibration.output_error import refine_on_outputs
from qexport.calibration.ranges import observe
from qexport.capture import capture
from qexport.capture.capture import Captured
from qexport.checkpoints import load_checkpoint
from qexport.datasets import Dataset, open_dataset
from qexport.freeze.model import freeze
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import Lowered, lower

SHAPE = (3, 32, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHT_ONLY: dict[str, dict[str, Any]] = {
    "daq/cifar10_W1A32": {"weight_bits": 1},
    "qn/resnet20_w2t": {},
    "qn/resnet20_w3": {"weight_levels": (-4, -2, -1, 0, 1, 2, 4)},
}
QUANTIZED: dict[str, dict[str, Any]] = {
    "daq/cifar10_W1A1": {"weight_bits": 1, "act_bits": 1},
    "qn/resnet20_w2t_a2": {},
}
PERCENTILES = (99.99, 99.999)
PROBE_IMAGES = 64
BATCH = 250

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Network:
    """A captured checkpoint, and the float logits [509, 10] of its original code on test.npz."""

    captured: Captured
    logits: Floats


@dataclass(frozen=True, eq=False)
class Choice:
    """Ranges to compare, and their bits."""

    name: str
    ranges: dict[str, Range]
    bits: int
    bits_of: dict[str, int]


def load(data: Path, name: str, settings: dict[str, Any]) -> Network:
    checkpoint = load_checkpoint(data / "checkpoints" / f"{name}.pth", **settings)
    module = freeze(checkpoint.model, torch.zeros(2, *SHAPE)).module
    golden = np.load(data / "checkpoints" / f"{name}.logits.npy")
    return Network(capture(module, SHAPE, MEAN, STD), golden)


class Everything(Histogram):
    """What every method needs, from one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.extremes = AverageExtremes()

    def update(self, values: NDArray[np.floating]) -> None:
        super().update(values)
        self.extremes.update(values)

    def seen_by(self, method: Method) -> Extremes:
        return self.extremes if method.observer is AverageExtremes else self


def choices(captured: Captured, pixels: NDArray[np.uint8], widths: list[int]) -> Iterator[Choice]:
    """Every method at every width, then the automatic widths of the same mean, then no images."""
    images = open_images(pixels, captured.graph)
    seen = {name: Everything() for name in layer_inputs(captured.graph)}
    observe(captured.graph, seen, images)
    spans = {name: everything.span() for name, everything in seen.items()}
    named = [(name, find_method(name)) for name in ("max", "average")]
    named += [(f"percentile {p}", find_method("percentile", p)) for p in PERCENTILES]
    named += [(name, find_method(name)) for name in ("entropy", "mse")]
    for bits in widths:
        found = {name: {t: m.choose(e.seen_by(m), bits) for t, e in seen.items()} for name, m in named}
        found["output"] = refine_on_outputs(captured.graph, spans, found["mse"], dict.fromkeys(seen, bits), images)
        for name, ranges in found.items():
            yield Choice(name, ranges, bits, {})
        mse = find_method("mse").choose
        probe = open_images(pixels, captured.graph, limit=PROBE_IMAGES)
        own = allocate_bits(captured.graph, seen, mse, bits, probe) if bits < 8 else {}
        if own:
            yield Choice("mse, bits by budget", {t: mse(e, own[t]) for t, e in seen.items()}, bits, own)
        yield Choice("no images", calibrate(captured, bits=bits).ranges, bits, {})


def logits(lowered: Lowered, dataset: Dataset) -> Floats:
    """What the integer network computes under ONNX Runtime, [N, 10]."""
    # One thread: with several, those that wait for each other spin.
    session = open_session(to_onnx(lowered.graph, metadata={}), threads=1)
    found = [next(iter(run_session(session, {"image": batch}).values())) for batch in dataset.batches(BATCH)]
    return np.concatenate(found) * float(lowered.outputs[0].scale)


def widths_of(lowered: Lowered) -> str:
    """Widths of what is carried as fixed point, such as 16/32."""
    return "/".join(str(bits) for bits in sorted({f.bits for f in lowered.fixed_points.values()}))


def percent(hits: NDArray[np.bool_]) -> str:
    return f"{100 * float(hits.mean()):.2f}"


def decibels(found: Floats, wanted: Floats) -> str:
    return f"{10 * np.log10(np.square(wanted, dtype=np.float64).sum() / np.square(found - wanted).sum()):.1f}"


def methods_table(data: Path, pixels: NDArray[np.uint8], test: Dataset, widths: list[int], only: str | None) -> None:
    """Every method on every weight-only checkpoint, against the float logits of the original code."""
    print("| checkpoint | bits | method | top-1 | agreement | SQNR |")
    print("|---|---|---|---|---|---|")
    for name, settings in WEIGHT_ONLY.items():
        if only is not None and name != only:
            continue
        network = load(data, name, settings)
        golden = network.logits.argmax(1)
        print(f"| {name} | float | - | {percent(golden == test.labels)} | | |", flush=True)
        for choice in choices(network.captured, pixels, widths):
            options = LayerOptions(None, choice.bits, choice.ranges, choice.bits_of)
            found = logits(lower(quantize_layers(network.captured.graph, options)), test)
            top1, same = percent(found.argmax(1) == test.labels), percent(found.argmax(1) == golden)
            row = f"{top1} | {same} | {decibels(found, network.logits)}"
            print(f"| {name} | {choice.bits} | {choice.name} | {row} |", flush=True)


def streams_table(data: Path, pixels: NDArray[np.uint8], test: Dataset, jpeg: Dataset) -> None:
    """32-bit against 16-bit residual streams on networks with trained activations, edges as wide as int32 allows."""
    print("| checkpoint | fixed point | top-1 % | agreement % | JPEG top-1 % | JPEG predictions equal to 32 bits % |")
    print("|---|---|---|---|---|---|")
    for name, settings in QUANTIZED.items():
        network = load(data, name, settings)
        real = quantize_layers(network.captured.graph, LayerOptions(edge_bits=None))
        reference: NDArray[np.int64] | None = None
        measured = calibrate(network.captured, pixels, streams=True)
        for calibration in (Calibration({}, {}, 8), measured):
            lowered = lower(real, calibration.streams)
            found, on_jpeg = logits(lowered, test).argmax(1), logits(lowered, jpeg).argmax(1)
            reference = on_jpeg if reference is None else reference
            labels = jpeg.labels
            hits = (found == test.labels, found == network.logits.argmax(1), on_jpeg == labels, on_jpeg == reference)
            print(f"| {name} | {widths_of(lowered)} | {' | '.join(map(percent, hits))} |", flush=True)
            lost, gained = (reference == labels) & ~hits[2], (reference != labels) & hits[2]
            print(f"| | | | | {lost.sum()} lost, {gained.sum()} gained | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("methods", "streams"))
    parser.add_argument("--checkpoint", choices=tuple(WEIGHT_ONLY), help="one of them only")
    parser.add_argument("--bits", default="8,6,4", help="activation bits, comma-separated")
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("QEXPORT_TEST_DATA", root.parent / "shared" / "data"))
    pixels = open_dataset(data / "cifar10" / "calibration.npz", SHAPE, limit=options.images).images()
    test = open_dataset(data / "cifar10" / "test.npz", SHAPE)
    if options.table == "methods":
        methods_table(data, pixels, test, [int(bits) for bits in options.bits.split(",")], options.checkpoint)
    else:
        streams_table(data, pixels, test, open_dataset(data / "cifar10" / "test_jpeg", SHAPE))


if __name__ == "__main__":
    main()
