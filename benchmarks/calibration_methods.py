"""Table of docs/decisions/003-activation-ranges.md: how the ranges of float activations are chosen, and what it costs.

Run from the project's root, QEXPORT_TEST_DATA as for the tests:

    python benchmarks/calibration_methods.py [--bits 8,6,4] [--images 256]

A few minutes on one core. OPENBLAS_NUM_THREADS=1 is faster on a busy machine: waiting threads spin.
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

from qexport.calibration import calibrate, ranges_from_statistics
from qexport.calibration.calibrate import layer_inputs
from qexport.capture import capture
from qexport.capture.capture import Captured
from qexport.checkpoints import load_checkpoint
from qexport.datasets import open_dataset
from qexport.freeze.model import freeze
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import lower
from qexport.reference import interpret

SHAPE = (3, 32, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "daq/cifar10_W1A32": {"weight_bits": 1},
    "qn/resnet20_w2t": {},
    "qn/resnet20_w3": {"weight_levels": (-4, -2, -1, 0, 1, 2, 4)},
}
PERCENTILES = (99.9, 99.99, 99.999)
DEVIATIONS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)
EDGE_BITS = 16
BATCH = 8

Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Score:
    """Integer network against the float logits of the original code.

    Attributes:
        top1, agreement: percent of the images.
        sqnr: signal to quantization noise of the logits, dB.
        stream_bits: widths of the residual streams, joined by a slash.
    """

    top1: float
    agreement: float
    sqnr: float
    stream_bits: str


def methods(captured: Captured, images: NDArray[np.uint8]) -> Iterator[tuple[str, Ranges, Ranges]]:
    """(name, ranges of layer inputs, ranges for the streams) of everything compared."""
    wanted = layer_inputs(captured.graph)
    extremes = calibrate(captured, images, method="max")
    yield "max", extremes, {}
    yield "max, 16-bit streams allowed", extremes, extremes
    for percentile in PERCENTILES:
        yield f"percentile {percentile}", calibrate(captured, images, method="percentile", percentile=percentile), {}
    for deviations in DEVIATIONS:
        known = ranges_from_statistics(captured.graph, captured.statistics, deviations)
        yield f"batch norm, {deviations:g} deviations", {name: known[name] for name in wanted}, {}
    yield "none (proven ranges)", {}, {}


def score(
    captured: Captured,
    ranges: Ranges,
    streams: Ranges,
    act_bits: int,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    golden: NDArray[np.float32],
) -> Score:
    """Convert with the given ranges and run the numpy reference."""
    lowered = lower(quantize_layers(captured.graph, LayerOptions(EDGE_BITS, act_bits, ranges)), streams)
    output = lowered.outputs[0]
    batches = range(0, len(images), BATCH)
    runs = (interpret(lowered.graph, {"image": images[i : i + BATCH]}).outputs[output.tensor] for i in batches)
    logits = np.concatenate(list(runs)) * float(output.scale)
    predicted, expected = logits.argmax(1), golden.argmax(1)
    noise = np.square(logits - golden).sum() / np.square(golden.astype(np.float64)).sum()
    widths = sorted({f.bits for name, f in lowered.fixed_points.items() if name in lowered.real.types})
    return Score(
        100 * float((predicted == labels).mean()),
        100 * float((predicted == expected).mean()),
        -10 * float(np.log10(noise)),
        "/".join(map(str, widths)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", default="8,6,4", help="activation bits, comma-separated")
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--networks", default=",".join(CHECKPOINTS), help="which checkpoints, comma-separated")
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("QEXPORT_TEST_DATA", root.parent / "shared" / "data"))
    test = open_dataset(data / "cifar10" / "test.npz", SHAPE)
    assert test.labels is not None
    calibration = open_dataset(data / "cifar10" / "calibration.npz", SHAPE, limit=options.images).images()
    print("| checkpoint | bits | method | top-1 % | agreement % | logit SQNR dB | streams |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks.split(","):
        checkpoint = load_checkpoint(data / "checkpoints" / f"{name}.pth", **CHECKPOINTS[name])
        captured = capture(freeze(checkpoint.model, torch.zeros(2, *SHAPE)).module, SHAPE, MEAN, STD)
        golden = np.load(data / "checkpoints" / f"{name}.logits.npy")
        accuracy = 100 * float((golden.argmax(1) == test.labels).mean())
        print(f"| {name} | float | original code | {accuracy:.2f} | 100.00 | | |", flush=True)
        for method, ranges, streams in methods(captured, calibration):
            for bits in map(int, options.bits.split(",")):
                s = score(captured, ranges, streams, bits, test.images(), test.labels, golden)
                row = f"{s.top1:.2f} | {s.agreement:.2f} | {s.sqnr:.1f} | {s.stream_bits}"
                print(f"| {name} | {bits} | {method} | {row} |", flush=True)


if __name__ == "__main__":
    main()
