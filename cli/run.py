"""qexport run: what a converted network says about images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from qexport.inspection.classify import Prediction


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path())
@click.option("--input", "images", required=True, metavar="PATH", type=click.Path(), help="Image file, npz or npy.")
@click.option("--top", type=click.IntRange(min=1), default=5, metavar="N", show_default=True, help="Classes to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of classes for every image.")
def run(model: str, images: str, top: int, as_json: bool) -> None:
    """Classify images with a converted network.

    Needs ONNX Runtime only, and for a .qpk file not even that. Shows the integer logits and the real values they
    stand for.
    """
    from qexport.inspection.classify import classify

    results = list(classify(model, images, top))
    if as_json:
        from dataclasses import asdict

        from qexport.cli.json_text import json_text

        click.echo(json_text([[asdict(prediction) for prediction in found] for found in results]), nl=False)
    elif len(results) == 1:
        _print_one(results[0])
    else:
        for number, found in enumerate(results):
            click.echo(f"{number:6}  " + "  ".join(f"{p.label} {p.value:.4g}" for p in found))


def _print_one(found: list[Prediction]) -> None:
    from qexport.cli.tables import count, stdout_console, table

    shown = table("", ["<class", "integer", "value"])
    for prediction in found:
        shown.add_row(prediction.label, count(prediction.integer), f"{prediction.value:.6g}")
    stdout_console().print(shown)
