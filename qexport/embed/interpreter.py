"""qexport embed --runtime: .qpk files as arrays beside the interpreter, for several networks on one device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from qexport.backends.packed.reader import PackedModel
from qexport.embed.describe import describe_model, sample_initializers
from qexport.embed.source import environment, wrapped
from qexport.embed.sources import portable_sources
from qexport.errors import OptionError
from qexport.session import InferenceSession

ARENA_ALIGN = 64
FILE_ALIGN = 16
INTERPRETER_KILOBYTES = 18
"""Of code on a Cortex-M4 at -Os (gcc 12.2); a test compiles and compares."""

_MODEL = {
    "{name}.h": "runtime/model.h.j2",
    "{name}.c": "runtime/model.c.j2",
    "{name}_test.h": "model_test.h.j2",
    "{name}_test.c": "runtime/model_test.c.j2",
}
_EXAMPLE = {"main.c": "runtime/main.c.j2", "Makefile": "runtime/Makefile.j2"}
_SHARED = {"models.h": "runtime/models.h.j2", "README.md": "runtime/README.md.j2"}

_SHARED_BY_TARGET: dict[str, dict[str, str]] = {
    "c": _SHARED | _EXAMPLE,
    "cmake": _SHARED | _EXAMPLE | {"CMakeLists.txt": "runtime/CMakeLists.txt.j2"},
    "arduino": {
        "src/models.h": "runtime/models.h.j2",
        "README.md": "runtime/README.md.j2",
        "library.properties": "runtime/library.properties.j2",
        "examples/self_check/self_check.ino": "runtime/self_check.ino.j2",
    },
    "zephyr": _SHARED
    | {
        "zephyr/module.yml": "runtime/module.yml.j2",
        "zephyr/CMakeLists.txt": "runtime/zephyr_CMakeLists.txt.j2",
        "zephyr/Kconfig": "runtime/Kconfig.j2",
    },
}


def interpreted(models: Mapping[str, PackedModel], target: str, version: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The directory of some networks with the interpreter.

    Args:
        models: by the name of their files, functions and macros.
        target: a key of `_SHARED_BY_TARGET`.
        version: of qexport.

    Returns:
        files by path, and values: `models`, each with what its header says, and their sums.

    Raises:
        OptionError: a name that a file of the interpreter has.
    """
    sources = portable_sources()
    _refuse_names_of_sources(models, sources)
    described = [_values(name, model) for name, model in models.items()]
    common = {"version": version, "target": target}
    shared = common | {"models": described, "interpreter_kilobytes": INTERPRETER_KILOBYTES}
    # Arduino compiles what lies below src and searches nothing else for headers.
    own, interpreter = ("src/", "src/") if target == "arduino" else ("", "qxr/")
    files = {interpreter + path: text for path, text in sources.items()}
    for values in described:
        for path, template in _MODEL.items():
            files[own + path.format(name=values["name"])] = _render(template, common | values)
    files |= {path: _render(template, shared) for path, template in _SHARED_BY_TARGET[target].items()}
    return files, {
        "models": described,
        "constant_bytes": sum(v["constant_bytes"] for v in described),
        "arena": max(v["arena"] for v in described),
    }


def _render(template: str, values: dict[str, Any]) -> str:
    return environment().get_template(template).render(values)


def _values(name: str, model: PackedModel) -> dict[str, Any]:
    data = model.sections.data.tobytes()
    described = describe_model(model) | sample_initializers(model)
    at = 0
    for x in described["inputs"]:
        x["offset"], at = at, at + x["size"]
    return described | {
        "name": name,
        "prefix": name.upper(),
        "arena": InferenceSession(data, isa="scalar").arena_size,
        "align": ARENA_ALIGN,
        "file_align": FILE_ALIGN,
        "constant_bytes": len(data),
        "file": wrapped([str(byte) for byte in data]),
    }


def _refuse_names_of_sources(names: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    taken = {PurePosixPath(path).stem for path in sources}
    for name in names:
        if {name, f"{name}_test"} & taken:
            raise OptionError(
                "a file of the interpreter has this name", where="--name", got=name, expected="any other name"
            )
