"""qexport models: the architectures a checkpoint may name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from qexport.models.describe import Description


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(names: tuple[str, ...], as_json: bool) -> None:
    """List the architectures qexport knows: input, parameters, multiply-accumulates, preprocessing.

    NAME restricts the list to names that contain it, such as resnet or qn-. Figures are for the default arguments and
    the input shown.
    """
    from qexport.models.describe import describe
    from qexport.models.registry import architectures

    chosen = [arch for arch in architectures() if not names or any(name in arch for name in names)]
    if not chosen:
        raise click.BadParameter(f"no architecture has {' or '.join(names)} in its name", param_hint="NAME")
    found = [describe(name) for name in chosen]
    if as_json:
        from qexport.cli.json_text import json_text

        click.echo(json_text([asdict(d) for d in found]), nl=False)
    else:
        _print(found)


def _print(found: list[Description]) -> None:
    from qexport.cli.tables import stdout_console, table

    rows = table(
        "Architectures",
        ["<name", "input", "parameters", "MACs", "<outputs", "<mean", "<std"],
        caption="pixels / 255, minus mean, divided by std; a checkpoint may say otherwise",
    )
    for d in found:
        rows.add_row(
            d.name,
            _shape(d.preprocessing.input_shape),
            f"{d.parameters:,}",
            f"{d.macs / 1e6:,.1f} M",
            " ".join(map(_shape, d.outputs)),
            _numbers(d.preprocessing.mean),
            _numbers(d.preprocessing.std),
        )
    stdout_console().print(rows)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(values: tuple[float, ...]) -> str:
    """Five digits; equal channels once."""
    return " ".join(f"{v:.5g}" for v in (values[:1] if len(set(values)) == 1 else values))
