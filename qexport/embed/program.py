"""The whole program of one network, and what its templates need to know."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed.format import MAJOR, MINOR
from qexport.backends.packed.reader import PackedModel
from qexport.embed.layout import Layout, lay_out
from qexport.embed.operators import write_group
from qexport.embed.source import Source, comment
from qexport.reference import interpret

ARENA_ALIGN = 16


@dataclass(frozen=True)
class Program:
    """A network as C.

    Attributes:
        layout: where it keeps its tensors.
        source: constants, kernels and functions.
        body: statements of model_run.
        arena: bytes, scratch memory included.
    """

    layout: Layout
    source: Source
    body: list[str]
    arena: int


def write_program(model: PackedModel) -> Program:
    """Generate the C of a checked file."""
    layout, source = lay_out(model), Source()
    scratch = max(write_group(layout, members, source) for members in layout.groups)
    source.kernel("copy_input")
    body, at = [], 0
    for x in layout.tensors[: layout.inputs]:
        body.append(f"copy_input(in + {at}, {x.channels}u, {x.pixels}u, memory + {x.offset});")
        at += x.channels * x.pixels
    body += [f"group_{members.start}(memory);" for members in layout.groups]
    at = 0
    for t in model.sections.outputs.tolist():
        y = layout.tensors[t]
        suffix = source.kernel("copy_output", storage=y.storage)
        body.append(f"copy_output{suffix}(memory + {y.offset}, {y.base}, {y.channels}u, {y.pixels}u, out + {at});")
        at += y.channels * y.pixels
    return Program(layout, source, body, layout.arena + scratch)


def describe(program: Program) -> dict[str, Any]:
    """Values of the templates."""
    model = program.layout.model
    metadata, names = model.metadata, model.names
    outputs = model.sections.outputs.tolist()
    known = _scales(metadata)
    at, described = 0, []
    for t in outputs:
        shape = model.claims[t].shape
        described.append(
            {"name": names[t], "shape": shape, "size": int(np.prod(shape)), "offset": at, "scale": known.get(names[t])}
        )
        at += described[-1]["size"]
    inputs = [
        {"name": names[t], "shape": model.claims[t].shape, "size": int(np.prod(model.claims[t].shape))}
        for t in range(program.layout.inputs)
    ]
    return {
        "hash": hashlib.sha256(model.sections.data.tobytes()).hexdigest()[:16],
        "format_major": MAJOR,
        "format_minor": MINOR,
        "inputs": inputs,
        "outputs": described,
        "input_size": sum(i["size"] for i in inputs),
        "output_size": at,
        "classes": _class_names(metadata),
        "preprocessing": comment(metadata.get("qexport.preprocessing", "")),
        "architecture": comment(metadata.get("qexport.architecture", "")),
        "arena": program.arena,
        "align": ARENA_ALIGN,
        "constant_bytes": program.source.constant_bytes,
        "source": program.source,
        "body": program.body,
    }


def _json(metadata: Mapping[str, str], key: str) -> Any:
    """What the metadata hold; nothing in them decides what is computed, so what cannot be read is left out."""
    try:
        return json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError):
        return None


def _scales(metadata: Mapping[str, str]) -> dict[str, float]:
    """Output -> real value of one."""
    found = _json(metadata, "qexport.outputs")
    entries = [o for o in found if isinstance(o, dict)] if isinstance(found, list) else []
    scales = {str(o.get("name")): o.get("scale") for o in entries}
    return {name: float(s) for name, s in scales.items() if isinstance(s, int | float) and math.isfinite(s)}


def _class_names(metadata: Mapping[str, str]) -> list[str]:
    found = _json(metadata, "qexport.class_names")
    return [str(name) for name in found] if isinstance(found, list) else []


def reference_sample(model: PackedModel) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """(inputs as bytes, outputs) of one sample, both as model_run takes and gives them; from the numpy reference.

    The input is random: a network's answer to noise depends on every constant, and it needs no image of anyone.
    """
    graph = model.to_graph()
    rng = np.random.default_rng(int(model.sections.header["crc"]))
    feeds = {name: rng.integers(0, 256, (1, *t.shape), np.int64) for name, t in graph.inputs.items()}
    found = interpret(graph, feeds).outputs
    given = np.concatenate([feeds[name].ravel() for name in graph.inputs]).astype(np.uint8)
    return given, np.concatenate([found[name].ravel() for name in graph.outputs]).astype(np.int32)
