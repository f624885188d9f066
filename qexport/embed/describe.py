"""What a header says about a network: shapes, scales, names of classes; and its test vector."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed.format import MAJOR, MINOR
from qexport.backends.packed.reader import PackedModel
from qexport.embed.source import comment, wrapped
from qexport.ir.types import INT32_MIN
from qexport.reference import interpret


def describe_model(model: PackedModel) -> dict[str, Any]:
    """Values that templates show, whatever the form of the program; texts of the metadata are harmless in comments."""
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
        for t in range(model.sections.inputs)
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


def sample_initializers(model: PackedModel) -> dict[str, str]:
    """Initializers of a random input and its outputs."""
    given, expected = reference_sample(model)
    return {
        "test_input": wrapped([str(v) for v in given.tolist()]),
        "test_output": wrapped(["INT32_MIN" if v == INT32_MIN else f"INT32_C({v})" for v in expected.tolist()]),
    }


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
