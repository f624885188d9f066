"""qexport embed --target wasm: a directory for a web server, with the runtime as a WebAssembly module and a page."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import qexport
from qexport.backends.packed.reader import PackedModel
from qexport.conversion.output import staged
from qexport.embed.source import comment, environment

_STATIC = ("qxr.wasm", "qxr.js", "qxr.d.ts", "page.js", "page.css")
"""Files of the folder `web` beside this module, the same for every network. runtime/wasm/build.py makes the first."""

_TEMPLATES = {"index.html": "index.html.j2", "package.json": "package.json.j2", "README.md": "web_README.md.j2"}

WEB_FILES = {**{file: file for file in _STATIC}, **_TEMPLATES, "{name}.qpk": "the file itself"}
"""File -> what it is made of."""


def write_web(packed: PackedModel, output: Path, name: str) -> dict[str, Any]:
    """Write the directory of a checked file.

    Args:
        packed: the file, which is copied.
        output: directory for the files; made if needed.
        name: of the copy.

    Returns:
        `arena` and `constant_bytes` (the whole file) in bytes, `inputs`, `outputs`, `hash`, and `files`.

    Raises:
        OutputError: the directory cannot be written; nothing partial is left.
    """
    values = _describe(packed) | {"name": name, "version": qexport.__version__, "target": "wasm"}
    static = files("qexport.embed").joinpath("web")
    with staged(output) as staging:
        for file in _STATIC:
            (staging / file).write_bytes(static.joinpath(file).read_bytes())
        module_bytes = (staging / "qxr.wasm").stat().st_size
        for file, template in _TEMPLATES.items():
            text = environment().get_template(template).render(values, module_bytes=module_bytes)
            (staging / file).write_text(text, encoding="utf-8")
        (staging / f"{name}.qpk").write_bytes(packed.sections.data.tobytes())
    return values | {"files": [file.format(name=name) for file in WEB_FILES]}


def _describe(packed: PackedModel) -> dict[str, Any]:
    """Values of the templates; texts of the metadata are made harmless, whoever wrote them."""
    data = packed.sections.data.tobytes()
    count, outputs = packed.sections.inputs, packed.sections.outputs.tolist()
    named = [{"name": comment(packed.names[t]), "shape": packed.claims[t].shape} for t in [*range(count), *outputs]]
    return {
        "hash": hashlib.sha256(data).hexdigest()[:16],
        "inputs": named[:count],
        "outputs": named[count:],
        "preprocessing": comment(packed.metadata.get("qexport.preprocessing", "")),
        "architecture": comment(packed.metadata.get("qexport.architecture", "")),
        "arena": int(packed.sections.header["arena_size"]),
        "constant_bytes": len(data),
    }
