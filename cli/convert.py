"""qexport convert: a checkpoint becomes artifacts and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from qexport.cli.options import ACT_BUDGET, EDGE_BITS, NameList, checkpoint_options, given, method_option
from qexport.cli.progress import StageLine


@click.command()
@click.argument("checkpoint", metavar="CKPT", type=click.Path())
@checkpoint_options
@EDGE_BITS
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
    help="onnx (integers only), onnx-qdq, onnx-qdq8 (residual sums rounded to bytes, too), qpk (packed bits) and ort "
    "(for phones), separated by commas.",
)
@click.option(
    "--calibration-data",
    metavar="PATH",
    type=click.Path(),
    help="Image folder, npz or npy: ranges of activations that training left float.",
)
@method_option("--calibration-method")
@ACT_BUDGET
@click.option(
    "--calibration", metavar="FILE", type=click.Path(), help="Ranges of qexport calibrate, instead of images."
)
@click.option("--opset", type=int, metavar="N", help="ONNX operator set, 18 to 25.  [default: 25]")
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(), help="Directory for the results.")
def convert(checkpoint: str, output: str, **options: Any) -> None:
    """Convert a checkpoint to integer-only artifacts, proven while they are made.

    Writes DIR/model.onnx, DIR/model.qdq.onnx, DIR/model.qdq8.onnx, DIR/model.qpk and DIR/model.ort, as --format says,
    DIR/report.json, and for a detector DIR/post.onnx; all of them or none.
    """
    with StageLine() as stage:
        stage("starting")
        from qexport.conversion import convert as convert_checkpoint

        artifact = convert_checkpoint(checkpoint, output, progress=stage, **given(options))
    from qexport.cli.convert_tables import print_conversion

    print_conversion(artifact.report, Path(output))
    if artifact.built.settings.ranges and not measured(options):
        from qexport.cli.tables import say, stdout_console

        say(
            stdout_console(),
            "Note: ranges of activations come from batch-norm statistics; a few hundred unlabelled images "
            "(--calibration-data) give better ones, most of all below 8 bits.",
        )


def measured(options: Mapping[str, Any]) -> bool:
    """Whether images decided about ranges, in this run or before."""
    return options["calibration_data"] is not None or options["calibration"] is not None
