"""qexport calibrate: ranges for what training left float, measured on images and kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qexport.cli.options import ACT_BUDGET, EDGE_BITS, checkpoint_options, given, method_option
from qexport.cli.progress import StageLine

FEW_IMAGES = 64
"""Fewer images than this earn a note."""


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
    from qexport.cli.calibration_tables import print_calibration
    from qexport.cli.tables import say, stdout_console

    console = stdout_console()
    print_calibration(console, found)
    if 0 < found.images < FEW_IMAGES:
        say(console, "Note: so few images may miss what the network meets later; a few hundred are usual.")
    say(console, f"wrote {output}")
