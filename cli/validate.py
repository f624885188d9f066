"""qexport validate: the proof on data, as tables and an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qexport.cli.options import given, override_options
from qexport.cli.progress import StageLine

if TYPE_CHECKING:
    from qexport.validation import Report


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path())
@click.option("--checkpoint", required=True, metavar="CKPT", type=click.Path(), help="The file they were made from.")
@click.option("--data", required=True, metavar="PATH", type=click.Path(), help="Image folder, npz or npy.")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    metavar="PP",
    help="Allowed loss of top-1 (detectors: mAP@0.5), percentage points.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use at most so many images.")
@click.option(
    "--json", "json_file", metavar="FILE", type=click.Path(path_type=Path), help="Write the results here too."
)
@click.option(
    "--html", "html_file", metavar="FILE", type=click.Path(path_type=Path), help="Write a page with plots, too."
)
@override_options
def validate(artifacts: tuple[str, ...], json_file: Path | None, html_file: Path | None, **options: Any) -> None:
    """Compare float, frozen and integer network and every artifact on data.

    Exit status 0 if every difference is explained by its proven bound, integer artifacts equal the reference, and
    top-1, or a detector's mAP@0.5, falls by no more than --max-drop; else 1.
    """
    with StageLine() as stage:
        stage("starting")
        from qexport.validation import validate as validate_artifacts

        report = validate_artifacts(artifacts, progress=stage, on_images=stage.images, **given(options))
    from qexport.cli.validate_tables import print_validation

    print_validation(report)
    _write_files(report, json_file, html_file)
    if not report.passed:
        raise click.exceptions.Exit(1)


def _write_files(report: Report, json_file: Path | None, html_file: Path | None) -> None:
    """The same results for programs and for people."""
    from qexport.conversion.output import write_text

    if json_file is not None:
        from qexport.cli.json_text import json_text

        write_text(json_file, json_text(report.to_dict()))
    if html_file is not None:
        from qexport.validation.html import html_report

        write_text(html_file, html_report(report))
