"""qexport convert: a checkpoint becomes artifacts and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qexport.cli.options import EdgeBits, NameList, checkpoint_options, given
from qexport.cli.progress import StageLine


@click.command()
@click.argument("checkpoint", metavar="CKPT", type=click.Path())
@checkpoint_options
@click.option(
    "--edge-bits",
    type=EdgeBits(),
    metavar="8|16|max",
    help="Weight bits of layers that training left float; max is what int32 accumulators allow.  [default: max]",
)
@click.option(
    "--stream-bits",
    type=int,
    metavar="16|32",
    help="16 narrows residual streams where --calibration-data shows that they fit.  [default: 16]",
)
@click.option(
    "--format",
    "formats",
    type=NameList(),
    default="onnx",
    metavar="F,F",
    show_default=True,
    help="onnx (integers only) and onnx-qdq, separated by commas.",
)
@click.option(
    "--calibration-data",
    metavar="PATH",
    type=click.Path(),
    help="Image folder, npz or npy: ranges of activations that training left float.",
)
@click.option("--opset", type=int, metavar="N", help="ONNX operator set, 18 to 25.  [default: 25]")
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(), help="Directory for the results.")
def convert(checkpoint: str, output: str, **options: Any) -> None:
    """Convert a checkpoint to integer-only ONNX, proven while it is made.

    Writes DIR/model.onnx, DIR/model.qdq.onnx and DIR/report.json, as --format says; all of them or none.
    """
    with StageLine() as stage:
        stage("starting")
        from qexport.conversion import convert as convert_checkpoint

        artifact = convert_checkpoint(checkpoint, output, progress=stage, **given(options))
    from qexport.cli.convert_tables import print_conversion

    print_conversion(artifact.report, Path(output))
