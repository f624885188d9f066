"""What the width of the float first and last layer costs: accuracy, agreement and size on real checkpoints.

    python benchmarks/edge_bits.py [--markdown FILE]

Prints one row per checkpoint and edge width; docs/decisions/004-edge-bits.md keeps the output.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from qexport.backends.onnx.session import open_session, run_session
from qexport.conversion import convert
from qexport.datasets import Dataset, open_dataset
from qexport.validation.accuracy import mcnemar

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("QEXPORT_TEST_DATA", ROOT.parent / "shared" / "data"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = (8, 10, 12, 14, 16, 18, None)
CHECKPOINTS = {"DAQ W1A1": ("daq/cifar10_W1A1.pth", 1), "QN W2A2": ("qn/resnet20_w2t_a2.pth", 2)}


def frozen_predictions(module: torch.nn.Module, data: Dataset) -> NDArray[np.int64]:
    """Argmax of the frozen network."""
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        parts = [module((torch.from_numpy(x).float() / 255 - mean) / std).argmax(1).numpy() for x in data.batches(128)]
    return np.concatenate(parts)


def integer_predictions(path: Path, data: Dataset) -> NDArray[np.int64]:
    """Argmax of the ONNX model."""
    session = open_session(path.read_bytes(), threads=1)
    parts = []
    for x in data.batches(128):
        (logits,) = run_session(session, {"image": x}).values()
        parts.append(logits.argmax(1))
    return np.concatenate(parts)


def rows() -> list[str]:
    """Table lines in Markdown."""
    shape = (3, 32, 32)
    sets = {name: open_dataset(DATA / "cifar10" / name, shape) for name in ("test.npz", "test_jpeg")}
    lines = [
        "| checkpoint | edge bits | agreement test / jpeg | top-1 test (frozen) | p | top-1 jpeg (frozen) | p | KB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, (file, bits) in CHECKPOINTS.items():
        for width in WIDTHS:
            with tempfile.TemporaryDirectory() as folder:
                path = DATA / "checkpoints" / file
                artifact = convert(path, folder, bits=bits, edge_bits=width, mean=MEAN, std=STD)
                cells, agreements = [], []
                for data in sets.values():
                    frozen = frozen_predictions(artifact.built.frozen.module, data)
                    found = integer_predictions(artifact.files["onnx"], data)
                    right = [p == data.labels for p in (frozen, found)]
                    agreements.append(f"{100 * np.mean(frozen == found):.1f}")
                    cells.append(f"{100 * right[1].mean():.2f} ({100 * right[0].mean():.2f}) | {mcnemar(*right):.2f}")
                size = artifact.files["onnx"].stat().st_size / 1024
            lines.append(
                f"| {title} | {width or 'max'} | {' / '.join(agreements)} | {' | '.join(cells)} | {size:.0f} |"
            )
            click.echo(lines[-1])
    return lines


@click.command()
@click.option("--markdown", type=click.Path(path_type=Path), help="also write the table to this file")
def main(markdown: Path | None) -> None:
    """Measure edge widths on the real checkpoints."""
    lines = rows()
    if markdown is not None:
        markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
