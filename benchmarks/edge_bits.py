"""What the width of the float first and last layer, and of residual streams, costs on real checkpoints.

    python benchmarks/edge_bits.py [--checkpoint "DAQ W1A1"] [--without-images] [--markdown FILE]

Prints one row per checkpoint, edge width and stream width; docs/decisions/004-edge-bits.md keeps the output. Weights
round, and streams narrow, by calibration images; nothing is chosen on the images that are reported. Without images,
weights round as `qexport convert` does where no data is given, and streams stay wide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import open_session, run_session
from qexport.calibration import calibrate
from qexport.calibration.data import open_images
from qexport.calibration.moments import input_moments
from qexport.conversion import Settings
from qexport.conversion.build import load_network
from qexport.datasets import Dataset, open_dataset
from qexport.passes.edge_fit import fit_edge_weights
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import lower
from qexport.validation.accuracy import mcnemar

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("QEXPORT_TEST_DATA", ROOT.parent / "shared" / "data"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = (3, 32, 32)
IMAGES = 256
EDGE_BITS = (4, 8, 16, None)
STREAM_BITS = (32, 16)
CHECKPOINTS = {"DAQ W1A1": ("daq/cifar10_W1A1.pth", 1), "QN W2A2": ("qn/resnet20_w2t_a2.pth", 2)}

HEAD = (
    "| checkpoint | edge bits | stream bits | agreement test / jpeg | top-1 test (frozen) | p | top-1 jpeg (frozen) "
    "| p | both sets (frozen) | p | p, 16 against 32 | KB |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)

Predictions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cell:
    """One model: predictions on all images and the size of its file."""

    edge_bits: int | None
    stream_bits: int
    found: Predictions
    size: int


def frozen_predictions(module: torch.nn.Module, data: Dataset) -> Predictions:
    """Argmax of the frozen network."""
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        parts = [module((torch.from_numpy(x).float() / 255 - mean) / std).argmax(1).numpy() for x in data.batches(128)]
    return np.concatenate(parts)


def integer_predictions(model: bytes, data: Dataset) -> Predictions:
    """Argmax of the ONNX model."""
    session = open_session(model, threads=1)
    parts = []
    for x in data.batches(128):
        (logits,) = run_session(session, {"image": x}).values()
        parts.append(logits.argmax(1))
    return np.concatenate(parts)


def cells(file: str, bits: int, sets: list[Dataset], with_images: bool) -> Iterator[tuple[Predictions, Cell]]:
    """Predictions of the frozen network, and those of every combination of widths."""
    settings = Settings(weight_bits=bits, act_bits=bits, mean=MEAN, std=STD)
    network = load_network(DATA / "checkpoints" / file, settings)
    graph = network.captured.graph
    images = np.load(DATA / "cifar10" / "calibration.npz")["images"][:IMAGES]
    streams = calibrate(network.captured, images, streams=True).streams
    moments = input_moments(graph, open_images(images, graph))
    frozen = np.concatenate([frozen_predictions(network.frozen.module, data) for data in sets])
    for edge_bits in EDGE_BITS:
        options = LayerOptions(edge_bits)
        if with_images and edge_bits is not None:
            options = replace(options, edge_weights=fit_edge_weights(graph, options, moments))
        real = quantize_layers(graph, options)
        for stream_bits in STREAM_BITS if with_images else (32,):
            lowered = lower(real, streams if stream_bits == 16 else {})
            model = to_onnx(lowered.graph, metadata={}).SerializeToString()
            found = np.concatenate([integer_predictions(model, data) for data in sets])
            yield frozen, Cell(edge_bits, stream_bits, found, len(model))


def row(title: str, cell: Cell, frozen: Predictions, wide: Predictions, sets: list[Dataset]) -> str:
    """Table line of one model; `wide` is what the model with 32-bit streams predicts."""
    labels = np.concatenate([np.asarray(data.labels) for data in sets])
    first = len(sets[0])
    right = {"frozen": frozen == labels, "found": cell.found == labels, "wide": wide == labels}
    compared = []
    for part in (slice(first), slice(first, None), slice(None)):
        before, after = right["frozen"][part], right["found"][part]
        compared.append(f"{100 * after.mean():.2f} ({100 * before.mean():.2f}) | {mcnemar(before, after):.2f}")
    same = frozen == cell.found
    agreement = f"{100 * same[:first].mean():.1f} / {100 * same[first:].mean():.1f}"
    against = "" if cell.stream_bits == 32 else f"{mcnemar(right['wide'], right['found']):.2f}"
    widths = f"{cell.edge_bits or 'max'} | {cell.stream_bits}"
    return f"| {title} | {widths} | {agreement} | {' | '.join(compared)} | {against} | {cell.size / 1024:.0f} |"


@click.command()
@click.option("--checkpoint", type=click.Choice(list(CHECKPOINTS)), help="only this one")
@click.option("--without-images", is_flag=True, help="round weights without calibration images")
@click.option("--markdown", type=click.Path(path_type=Path), help="also write the table to this file")
def main(checkpoint: str | None, without_images: bool, markdown: Path | None) -> None:
    """Measure edge and stream widths on the real checkpoints."""
    sets = [open_dataset(DATA / "cifar10" / name, SHAPE) for name in ("test.npz", "test_jpeg")]
    lines = list(HEAD)
    click.echo("\n".join(lines))
    for title in [checkpoint] if checkpoint else CHECKPOINTS:
        wide: Predictions = np.empty(0, np.int64)
        for frozen, cell in cells(*CHECKPOINTS[title], sets, not without_images):
            wide = cell.found if cell.stream_bits == 32 else wide
            lines.append(row(title, cell, frozen, wide, sets))
            click.echo(lines[-1])
    if markdown is not None:
        markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
