"""qexport embed: the directory with the program, its test and the manifests of a build system."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import qexport
from qexport.backends.packed.reader import PackedModel, read_packed
from qexport.conversion.output import staged
from qexport.embed.android import android_module
from qexport.embed.describe import sample_initializers
from qexport.embed.interpreter import interpreted
from qexport.embed.program import describe, write_program
from qexport.embed.source import environment
from qexport.embed.web_page import write_web
from qexport.errors import OptionError

_SOURCES = {
    "{name}.h": "model.h.j2",
    "{name}.c": "model.c.j2",
    "{name}_test.h": "model_test.h.j2",
    "{name}_test.c": "model_test.c.j2",
}
_README = {"README.md": "README.md.j2"}
_EXAMPLE = {"main.c": "main.c.j2", "Makefile": "Makefile.j2"}

_STRAIGHT: dict[str, dict[str, str]] = {
    "c": _SOURCES | _README | _EXAMPLE,
    "cmake": _SOURCES | _README | _EXAMPLE | {"CMakeLists.txt": "CMakeLists.txt.j2"},
    "arduino": {f"src/{file}": template for file, template in _SOURCES.items()}
    | _README
    | {"library.properties": "library.properties.j2", "examples/self_check/self_check.ino": "self_check.ino.j2"},
    "zephyr": _SOURCES
    | _README
    | {
        "zephyr/module.yml": "module.yml.j2",
        "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt.j2",
        "zephyr/Kconfig": "Kconfig.j2",
    },
}
"""Target of straight-line C -> file -> template."""

TARGETS = (*_STRAIGHT, "wasm", "android")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = {"main", "models", "limits", "stddef", "stdint", "stdio", "string", "qxr"}
"""Names of files that stand beside, or that are included."""


def embed(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    target: str = "c",
    name: str | Sequence[str] | None = None,
    runtime: bool = False,
) -> dict[str, Any]:
    """Write a packed network as C99, several with their interpreter, or a directory for a web server or for Android.

    Args:
        models: a .qpk file; with `runtime`, or for Android, one or several.
        output: directory for the files; made if needed.
        target: one of `TARGETS`.
        name: of the files, functions and, in capitals, macros, for each model; by default "model", or where there are
            several the names of their files. Two networks in one program need two names.
        runtime: the files as arrays beside the interpreter, instead of straight-line C.

    Returns:
        `arena` and `constant_bytes` in bytes, and `files`; of one network `inputs`, `outputs` and `hash`, of several
        the same in `models`.

    Raises:
        OptionError: an unknown target, several models where one is meant, or a name that cannot be one.
        ArtifactError: a file is damaged.
        OutputError: the directory cannot be written; nothing partial is left.
    """
    paths = [Path(m) for m in ([models] if isinstance(models, str | os.PathLike) else models)]
    if target not in TARGETS:
        raise OptionError("an unknown target", where="--target", got=target, expected=", ".join(TARGETS))
    if runtime and target == "wasm":
        raise OptionError("the page holds the interpreter anyway", where="--runtime", got=target, expected="no option")
    if len(paths) != 1 and not runtime and target != "android":
        raise OptionError(
            "straight-line C is of one network",
            where="MODEL",
            got=f"{len(paths)} files",
            expected="1",
            remedy="--runtime for several, or call it once a network, each with its --name",
        )
    names = _names(paths, name)
    packed = {n: read_packed(path) for n, path in zip(names, paths, strict=True)}
    if target == "wasm":
        return write_web(packed[names[0]], Path(output), names[0])
    files: Mapping[str, str | bytes]
    if target == "android":
        files, values = android_module(packed, qexport.__version__)
    elif runtime:
        files, values = interpreted(packed, target, qexport.__version__)
    else:
        files, values = _straight(packed[names[0]], names[0], target)
    _write(Path(output), files)
    return values | {"files": list(files)}


def _names(paths: list[Path], given: str | Sequence[str] | None) -> list[str]:
    """One name a model, checked."""
    names = [given] if isinstance(given, str) else list(given or ())
    if not names:
        names = ["model"] if len(paths) == 1 else [re.sub(r"\W", "_", path.stem, flags=re.ASCII) for path in paths]
    if len(names) != len(paths):
        raise OptionError("not one name a model", where="--name", got=len(names), expected=len(paths))
    for name in names:
        if not _NAME.fullmatch(name):
            raise OptionError(
                "this name cannot be part of a C identifier", where="--name", got=name, expected=_NAME.pattern
            )
        if name in _TAKEN:
            raise OptionError("another file has this name", where="--name", got=name, expected="any other name")
    if len({name.upper() for name in names}) < len(names):
        raise OptionError(
            "two networks would have one name",
            where="--name",
            got=", ".join(names),
            expected="different ones",
            remedy="--name A,B gives each its own",
        )
    return names


def _straight(packed: PackedModel, name: str, target: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Files and values of one network as straight-line C."""
    own = {"name": name, "prefix": name.upper(), "version": qexport.__version__, "target": target}
    values = describe(write_program(packed)) | sample_initializers(packed) | own
    templates = {path.format(name=name): template for path, template in _STRAIGHT[target].items()}
    return {path: environment().get_template(file).render(values) for path, file in templates.items()}, values


def _write(output: Path, files: Mapping[str, str | bytes]) -> None:
    """Write all of the files or none."""
    with ExitStack() as folders:
        parents = sorted({Path(path).parent for path in files})
        staging = {parent: folders.enter_context(staged(output / parent)) for parent in parents}
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            Path(staging[Path(path).parent], Path(path).name).write_bytes(data)
