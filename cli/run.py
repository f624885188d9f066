"""qexport run: what a converted network says about images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from qexport.inspection.classify import Prediction
    from qexport.inspection.find import Found


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path())
@click.option("--input", "images", required=True, metavar="PATH", type=click.Path(), help="Image file, npz or npy.")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, metavar="N", show_default=True, help="Classes or objects to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of classes or objects for every image.")
def run(model: str, images: str, top: int, as_json: bool) -> None:
    """Classify images, or find objects in them, with a converted network.

    Needs ONNX Runtime only, and for a .qpk file not even that. Shows the integer logits and the real values they
    stand for; of a detector class, probability and box in pixels, x0,y0,x1,y1.
    """
    from qexport.inspection.classify import classify
    from qexport.inspection.find import find_objects, is_detector
    from qexport.inspection.network import open_network

    network = open_network(model)
    if is_detector(network):
        objects = list(find_objects(network, images, top))
        if as_json:
            _print_json(objects)
        elif len(objects) == 1:
            _print_table(["<object", "probability", "box"], [(o.label, f"{o.score:.4f}", _box(o)) for o in objects[0]])
        else:
            _print_lines([[f"{o.label} {o.score:.2f} at {_box(o)}" for o in found] for found in objects])
        return
    classes = list(classify(network, images, top))
    if as_json:
        _print_json(classes)
    elif len(classes) == 1:
        _print_one(classes[0])
    else:
        _print_lines([[f"{p.label} {p.value:.4g}" for p in found] for found in classes])


def _print_json(results: Sequence[Sequence[Prediction | Found]]) -> None:
    from dataclasses import asdict

    from qexport.cli.json_text import json_text

    click.echo(json_text([[asdict(one) for one in found] for found in results]), nl=False)


def _print_lines(results: list[list[str]]) -> None:
    """One line an image."""
    for number, found in enumerate(results):
        click.echo(f"{number:6}  " + "  ".join(found))


def _print_one(found: list[Prediction]) -> None:
    from qexport.cli.tables import count

    _print_table(["<class", "integer", "value"], [(p.label, count(p.integer), f"{p.value:.6g}") for p in found])


def _print_table(columns: list[str], rows: list[tuple[str, str, str]]) -> None:
    from qexport.cli.tables import stdout_console, table

    shown = table("", columns)
    for row in rows:
        shown.add_row(*row)
    stdout_console().print(shown)


def _box(one: Found) -> str:
    return ",".join(f"{corner:.1f}" for corner in one.box)
