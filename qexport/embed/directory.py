"""qexport embed: the directory with the program, its test and the manifests of a build system."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import qexport
from qexport.backends.packed.reader import read_packed
from qexport.conversion.output import staged
from qexport.embed.program import describe, reference_sample, write_program
from qexport.embed.source import environment, wrapped
from qexport.embed.web_page import WEB_FILES, write_web
from qexport.errors import OptionError

_SOURCES = {
    "{name}.h": "model.h.j2",
    "{name}.c": "model.c.j2",
    "{name}_test.h": "model_test.h.j2",
    "{name}_test.c": "model_test.c.j2",
}
_README = {"README.md": "README.md.j2"}
_EXAMPLE = {"main.c": "main.c.j2", "Makefile": "Makefile.j2"}

TARGETS: dict[str, dict[str, str]] = {
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
    "wasm": WEB_FILES,
}
"""Target -> file -> template."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def embed(
    model: str | os.PathLike[str], output: str | os.PathLike[str], *, target: str = "c", name: str = "model"
) -> dict[str, Any]:
    """Write the C99 program of a packed network, or its directory for a web server.

    Args:
        model: a .qpk file.
        output: directory for the files; made if needed.
        target: key of `TARGETS`.
        name: of the files, functions and, in capitals, macros; two networks in one program need two names.

    Returns:
        what the header says: `arena` and `constant_bytes` in bytes, `inputs`, `outputs`, `hash`, and `files`.

    Raises:
        OptionError: an unknown target, or a name that is no C identifier.
        ArtifactError: the file is damaged.
        OutputError: the directory cannot be written; nothing partial is left.
    """
    if target not in TARGETS:
        raise OptionError("an unknown target", where="--target", got=target, expected=", ".join(TARGETS))
    if not _NAME.fullmatch(name):
        raise OptionError(
            "this name cannot be part of a C identifier", where="--name", got=name, expected=_NAME.pattern
        )
    packed = read_packed(Path(model))
    if target == "wasm":
        return write_web(packed, Path(output), name)
    program = write_program(packed)
    given, expected = reference_sample(packed)
    values = describe(program) | {
        "name": name,
        "prefix": name.upper(),
        "version": qexport.__version__,
        "target": target,
        "test_input": wrapped([str(v) for v in given.tolist()]),
        "test_output": wrapped([f"INT32_C({v})" if v != -(1 << 31) else "INT32_MIN" for v in expected.tolist()]),
    }
    files = {path.format(name=name): template for path, template in TARGETS[target].items()}
    with ExitStack() as folders:
        staging = {str(parent): folders.enter_context(staged(Path(output, parent))) for parent in _parents(files)}
        for path, template in files.items():
            text = environment().get_template(template).render(values)
            Path(staging[str(Path(path).parent)], Path(path).name).write_text(text, encoding="utf-8")
    return values | {"files": list(files)}


def _parents(files: dict[str, str]) -> list[Path]:
    return sorted({Path(path).parent for path in files})
