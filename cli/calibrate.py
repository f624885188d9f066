"""qexport calibrate: ranges for what training left float, measured on images and kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qexport.cli.options import ACT_BUDGET, EDGE_BITS, checkpoint_options, given, method_option
from qexport.cli.progress import StageLine

if TYPE_CHECKING:
    from rich.table import Table

    from qexport.calibration import Calibration
    from qexport.calibration.calibration import Cost

FEW_IMAGES = 64
"""Fewer images than this earn a note."""

KINDS = {"activation": "activation", "weights": "weights", "stream": "16-bit sum"}


@click.command()
@click.argument("checkpoint", metavar="CKPT", type=click.Path())
@click.option("--data", required=True, metavar="PATH", type=click.Path(), help="Image folder, npz or npy; no labels.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File for qexport convert --calibration.",
)
@method_option("--method")
@click.option("--percentile", type=float, metavar="P", help="For that method, above 50.  [default: 99.999]")
@ACT_BUDGET
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use at most so many images.")
@click.option("--sensitivity", is_flag=True, help="Also measure what each integer choice costs, worst first.")
@EDGE_BITS
@checkpoint_options
def calibrate(checkpoint: str, data: str, output: Path, **options: Any) -> None:
    """Measure the ranges of activations that training left float.

    A few hundred unlabelled images do. FILE is small and readable; it fits CKPT only.
    """
    with StageLine() as stage:
        stage("starting")
        from qexport.conversion import calibrate as calibrate_checkpoint

        found = calibrate_checkpoint(checkpoint, data, output, progress=stage, **given(options))
    _print(found, output)


def _print(found: Calibration, output: Path) -> None:
    from qexport.cli.tables import say, stdout_console

    console = stdout_console()
    if found.ranges:
        console.print(range_table(found))
    else:
        say(console, "No activation needs a range: training quantized them all.")
    if found.sensitivity:
        console.print(sensitivity_table(found.sensitivity))
    say(console, f"Measured on {found.describe()}.")
    if 0 < found.images < FEW_IMAGES:
        say(console, "Note: so few images may miss what the network meets later; a few hundred are usual.")
    say(console, f"wrote {output}")


def range_table(found: Calibration) -> Table:
    """One row per calibrated activation."""
    from qexport.cli.tables import real, table

    shown = table("Ranges of float activations", ["<activation", "bits", "from", "to"])
    for name, (lo, hi) in found.ranges.items():
        shown.add_row(name, str(found.bits(name)), real(lo), real(hi))
    return shown


def sensitivity_table(costs: tuple[Cost, ...]) -> Table:
    """One row per integer choice, worst first."""
    from qexport.cli.tables import percent, table

    shown = table(
        "What each integer choice costs by itself, worst first",
        ["<choice", "<of", "bits", "layer", "output", "same", "<remedy"],
        caption="layer, output: signal to quantization noise in dB, of the layers concerned and of the network's "
        "output; same: predictions that stay",
    )
    for cost in costs:
        shown.add_row(
            cost.name,
            KINDS[cost.kind],
            str(cost.bits),
            _decibels(cost.sqnr_db),
            _decibels(cost.output_db),
            percent(cost.agreement),
            cost.remedy,
        )
    return shown


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
