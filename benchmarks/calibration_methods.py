"""Tables of docs/decisions/003-activation-ranges.md: how the ranges of float activations are chosen, and what it costs.

Run from the project's root, QEXPORT_TEST_DATA as for the tests:

    python benchmarks/calibration_methods.py ranges [--bits 8,6,4] [--images 256]
    python benchmarks/calibration_methods.py streams

A quarter of an hour and five minutes on one core. OPENBLAS_NUM_THREADS=1 is faster on a busy machine: threads that wait
for each other spin.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qexport.calibration import calibrate, ranges_from_statistics
from qexport.calibration.calibrate import layer_inputs
from qexport.capture import capture
from qexport.capture.capture import Captured
from qexport.checkpoints import load_checkpoint
from qexport.datasets import open_dataset
from qexport.freeze.model import freeze
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.reference import interpret

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
PERCENTILES = (99.9, 99.99, 99.999)
DEVIATIONS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)
EDGE_BITS = 16
BATCH = 8

Ranges = dict[str, tuple[float, float]]


def load(data: Path, name: str, settings: dict[str, Any]) -> tuple[Captured, NDArray[np.float32]]:
    """The captured network and the float logits [509, 10] of the original code on test.npz."""
    checkpoint = load_checkpoint(data / "checkpoints" / f"{name}.pth", **settings)
    captured = capture(freeze(checkpoint.model, torch.zeros(2, *SHAPE)).module, SHAPE, MEAN, STD)
    return captured, np.load(data / "checkpoints" / f"{name}.logits.npy")


def methods(captured: Captured, images: NDArray[np.uint8]) -> Iterator[tuple[str, Ranges, Ranges]]:
    """(name, ranges of layer inputs, ranges for the streams) of everything compared."""
    wanted = layer_inputs(captured.graph)
    extremes = calibrate(captured, images, method="max", streams=True)
    yield "max", extremes, {}
    yield "max, 16-bit streams allowed", extremes, extremes
    for percentile in PERCENTILES:
        yield f"percentile {percentile}", calibrate(captured, images, method="percentile", percentile=percentile), {}
    for deviations in DEVIATIONS:
        known = ranges_from_statistics(captured.graph, captured.statistics, deviations)
        yield f"batch norm, {deviations:g} deviations", {name: known[name] for name in wanted}, {}
    yield "none (proven ranges)", {}, {}


def logits(lowered: Lowered, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the numpy reference computes, [N, classes]."""
    output = lowered.outputs[0]
    batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    runs = [interpret(lowered.graph, {"image": batch}).outputs[output.tensor] for batch in batches]
    return np.concatenate(runs) * float(output.scale)


def widths(lowered: Lowered) -> str:
    """Widths of what is carried as fixed point, such as 16/32."""
    return "/".join(str(bits) for bits in sorted({f.bits for f in lowered.fixed_points.values()}))


def percent(hits: NDArray[np.bool_]) -> str:
    return f"{100 * float(hits.mean()):.2f}"


def ranges_table(data: Path, calibration: NDArray[np.uint8], widths_of_codes: list[int]) -> None:
    """Every method on every weight-only checkpoint, against the float logits of the original code."""
    test = open_dataset(data / "cifar10" / "test.npz", SHAPE)
    print("| checkpoint | bits | method | top-1 % | agreement % | logit SQNR dB | fixed point |")
    print("|---|---|---|---|---|---|---|")
    for name, settings in WEIGHT_ONLY.items():
        captured, golden = load(data, name, settings)
        print(f"| {name} | float | original code | {percent(golden.argmax(1) == test.labels)} | | | |", flush=True)
        for method, ranges, streams in methods(captured, calibration):
            for bits in widths_of_codes:
                lowered = lower(quantize_layers(captured.graph, LayerOptions(EDGE_BITS, bits, ranges)), streams)
                found = logits(lowered, test.images())
                top1 = percent(found.argmax(1) == test.labels)
                agreement = percent(found.argmax(1) == golden.argmax(1))
                sqnr = 10 * np.log10(np.square(golden, dtype=np.float64).sum() / np.square(found - golden).sum())
                row = f"{top1} | {agreement} | {sqnr:.1f} | {widths(lowered)}"
                print(f"| {name} | {bits} | {method} | {row} |", flush=True)


def streams_table(data: Path, calibration: NDArray[np.uint8]) -> None:
    """32-bit against 16-bit residual streams on networks with trained activations, edges as wide as int32 allows."""
    test = open_dataset(data / "cifar10" / "test.npz", SHAPE)
    jpeg = open_dataset(data / "cifar10" / "test_jpeg", SHAPE)
    print("| checkpoint | fixed point | top-1 % | agreement % | JPEG top-1 % | JPEG predictions equal to 32 bits % |")
    print("|---|---|---|---|---|---|")
    for name, settings in QUANTIZED.items():
        captured, golden = load(data, name, settings)
        real = quantize_layers(captured.graph, LayerOptions(edge_bits=None))
        reference: NDArray[np.int64] | None = None
        for streams in ({}, calibrate(captured, calibration, method="max", streams=True)):
            lowered = lower(real, streams)
            found, on_jpeg = logits(lowered, test.images()).argmax(1), logits(lowered, jpeg.images()).argmax(1)
            reference = on_jpeg if reference is None else reference
            hits = (found == test.labels, found == golden.argmax(1), on_jpeg == jpeg.labels, on_jpeg == reference)
            print(f"| {name} | {widths(lowered)} | {' | '.join(map(percent, hits))} |", flush=True)
            lost, gained = (reference == jpeg.labels) & ~hits[2], (reference != jpeg.labels) & hits[2]
            print(f"| | | | | {lost.sum()} lost, {gained.sum()} gained | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("ranges", "streams"))
    parser.add_argument("--bits", default="8,6,4", help="activation bits, comma-separated")
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("QEXPORT_TEST_DATA", root.parent / "shared" / "data"))
    calibration = open_dataset(data / "cifar10" / "calibration.npz", SHAPE, limit=options.images).images()
    if options.table == "ranges":
        ranges_table(data, calibration, [int(bits) for bits in options.bits.split(",")])
    else:
        streams_table(data, calibration)


if __name__ == "__main__":
    main()
