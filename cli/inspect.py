"""qexport inspect: what a checkpoint or an artifact holds."""

from __future__ import annotations

from typing import Any

import click

from qexport.cli.options import checkpoint_options, given
from qexport.cli.progress import StageLine


@click.command()
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--assert-integer", is_flag=True, help="Exit with status 1 if any tensor of the ONNX file is float.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@checkpoint_options
def inspect(file: str, assert_integer: bool, as_json: bool, **options: Any) -> None:
    """Show what a checkpoint or an ONNX file holds.

    A file named *.onnx is read as an artifact, any other as a checkpoint; the options below say how.
    """
    if file.lower().endswith(".onnx"):
        _inspect_artifact(file, assert_integer, as_json, given(options))
    elif assert_integer:
        raise click.UsageError("--assert-integer is for .onnx files; a checkpoint computes in floats.")
    else:
        _inspect_checkpoint(file, as_json, given(options))


def _inspect_artifact(file: str, assert_integer: bool, as_json: bool, options: dict[str, Any]) -> None:
    from qexport.backends.onnx.describe import check_integer, describe_onnx

    if options:
        raise click.UsageError(f"--{next(iter(options)).replace('_', '-')} is for checkpoints, not for .onnx files.")
    found = describe_onnx(file)
    if as_json:
        _print_json(found)
    else:
        from qexport.cli.inspect_tables import print_artifact

        print_artifact(found)
    if assert_integer:
        check_integer(file)
        if not as_json:
            click.echo("integer only: no tensor between input and output has a float type.")


def _inspect_checkpoint(file: str, as_json: bool, options: dict[str, Any]) -> None:
    with StageLine() as stage:
        stage("freezing")
        from qexport.inspection.checkpoint import describe_checkpoint

        found = describe_checkpoint(file, **options)
    if as_json:
        _print_json(found)
    else:
        from qexport.cli.inspect_tables import print_checkpoint

        print_checkpoint(found)


def _print_json(found: dict[str, Any]) -> None:
    from qexport.cli.json_text import json_text

    click.echo(json_text(found), nl=False)
