"""qexport inspect: what a checkpoint or an artifact holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qexport.cli.options import checkpoint_options, given
from qexport.cli.progress import StageLine


@click.command()
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--assert-integer", is_flag=True, help="Exit with status 1 if any tensor of an artifact is float.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@checkpoint_options
def inspect(file: str, assert_integer: bool, as_json: bool, **options: Any) -> None:
    """Show what a checkpoint, an ONNX file, a .qpk file or a calibration file holds.

    A file named *.onnx or *.qpk is read as an artifact, one named *.json as a calibration, any other as a
    checkpoint; the options below say how.
    """
    from qexport.session import is_packed

    suffix = Path(file).suffix.lower()
    if suffix in (".onnx", ".json") or is_packed(file):
        if unused := given(options):
            option = next(iter(unused)).replace("_", "-")
            raise click.UsageError(f"--{option} is for checkpoints, not for {suffix} files.")
        if suffix == ".json":
            if assert_integer:
                raise click.UsageError("--assert-integer is for artifacts; a calibration computes nothing.")
            _inspect_calibration(file, as_json)
        else:
            (_inspect_packed if is_packed(file) else _inspect_onnx)(file, assert_integer, as_json)
    elif assert_integer:
        raise click.UsageError("--assert-integer is for artifacts; a checkpoint computes in floats.")
    else:
        _inspect_checkpoint(file, as_json, given(options))


def _inspect_onnx(file: str, assert_integer: bool, as_json: bool) -> None:
    from qexport.backends.onnx.describe import check_integer, describe_onnx

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


def _inspect_packed(file: str, assert_integer: bool, as_json: bool) -> None:
    from qexport.backends.packed.describe import describe_packed

    found = describe_packed(file)
    if as_json:
        _print_json(found)
        return
    from qexport.cli.packed_tables import print_packed

    print_packed(found)
    if assert_integer:
        click.echo("integer only: the packed format has no float types.")


def _inspect_calibration(file: str, as_json: bool) -> None:
    from qexport.calibration import Calibration

    found = Calibration.load(file)
    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    from qexport.cli.calibration_tables import print_calibration
    from qexport.cli.tables import say, stdout_console

    console = stdout_console()
    if found.source is not None:
        say(console, f"{file}: made for {found.source.file}, images {'x'.join(map(str, found.source.input_shape))}")
    print_calibration(console, found)


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
