"""qexport embed: packed networks become a directory of C, for the web or for Android."""

from __future__ import annotations

from pathlib import Path

import click

from qexport.cli.options import NameList

MOST_NAMED = 20
"""Files that are named one by one; the interpreter alone has more."""


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--target",
    metavar="T",
    default="c",
    show_default=True,
    help="c (Makefile), cmake, arduino or zephyr: what stands beside the C files; wasm: a web page; android: a module.",
)
@click.option(
    "--name",
    type=NameList(),
    metavar="NAME,...",
    help="One a model: of files and functions; capitals for macros.  [default: model; of several, their files']",
)
@click.option(
    "--runtime", is_flag=True, help="The files as arrays beside the interpreter: for several networks on one device."
)
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(), help="Directory for the files.")
def embed(models: tuple[str, ...], target: str, name: tuple[str, ...] | None, runtime: bool, output: str) -> None:
    """Write a .qpk network as C99, as a web page or for Android; it runs without this package.

    The C has the constants, only the kernels this network uses and one function NAME_run; no heap, no floating point,
    no library but memcpy and memset. Beside it stand a test vector with a self-check, an example and a README.

    With --runtime the directory holds one or several .qpk files as arrays and the interpreter, which they share.

    With --target wasm the directory is for a web server: the network, the C runtime as a WebAssembly module, its
    JavaScript API and a page that classifies images.

    With --target android it is a Gradle module: .qpk files as assets, the C runtime for the NDK and a Java API.
    """
    from qexport.cli.tables import count
    from qexport.embed import embed as write

    values = write(models, output, target=target, name=name, runtime=runtime)
    for label, size in (("constants", values["constant_bytes"]), ("working memory", values["arena"])):
        click.echo(f"{label:15} {count(size):>9} bytes")
    if len(values["files"]) > MOST_NAMED:
        click.echo(f"wrote {len(values['files'])} files into {output}")
        return
    for file in values["files"]:
        click.echo(f"wrote {Path(output, file)}")
