"""qexport embed: a packed network becomes a directory of C."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path())
@click.option(
    "--target",
    metavar="T",
    default="c",
    show_default=True,
    help="c (Makefile), cmake, arduino or zephyr: what stands beside the C files.",
)
@click.option(
    "--name", metavar="NAME", default="model", show_default=True, help="Of files and functions; capitals for macros."
)
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(), help="Directory for the files.")
def embed(model: str, target: str, name: str, output: str) -> None:
    """Write a .qpk network as C99 that runs without this package.

    The C has the constants, only the kernels this network uses and one function NAME_run; no heap, no floating point,
    no library but memcpy and memset. Beside it stand a test vector with a self-check, an example and a README.
    """
    from qexport.cli.tables import count
    from qexport.embed import embed as write

    values = write(model, output, target=target, name=name)
    for label, size in (("constants", values["constant_bytes"]), ("working memory", values["arena"])):
        click.echo(f"{label:15} {count(size):>9} bytes")
    for file in values["files"]:
        click.echo(f"wrote {Path(output, file)}")
