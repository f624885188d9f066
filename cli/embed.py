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
    help="c (Makefile), cmake, arduino or zephyr: what stands beside the C files; or wasm: a web page.",
)
@click.option(
    "--name", metavar="NAME", default="model", show_default=True, help="Of files and functions; capitals for macros."
)
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(), help="Directory for the files.")
def embed(model: str, target: str, name: str, output: str) -> None:
    """Write a .qpk network as C99, or as a web page, that runs without this package.

    The C has the constants, only the kernels this network uses and one function NAME_run; no heap, no floating point,
    no library but memcpy and memset. Beside it stand a test vector with a self-check, an example and a README.

    With --target wasm the directory is for a web server: the network, the C runtime as a WebAssembly module, its
    JavaScript API and a page that classifies images.
    """
    from qexport.cli.tables import count
    from qexport.embed import embed as write

    values = write(model, output, target=target, name=name)
    for label, size in (("constants", values["constant_bytes"]), ("working memory", values["arena"])):
        click.echo(f"{label:15} {count(size):>9} bytes")
    for file in values["files"]:
        click.echo(f"wrote {Path(output, file)}")
