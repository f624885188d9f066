"""What an ONNX file holds, as plain values for people and programs; any ONNX file, with more to say about our own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, numpy_helper

from qexport.backends.metadata import decode_metadata
from qexport.backends.onnx.inspection import assert_integer, find_float_tensors, weight_bytes
from qexport.backends.onnx.reader import read_onnx
from qexport.backends.onnx.windows import BIAS, window_thresholds
from qexport.errors import ArtifactError

_COMPARISON = "/reached"
"""Comparisons of a quantizer X with its thresholds are the values X/reached, X/reached_2 ..."""

_BARS = "/bars"
"""The thresholds of a binary search of quantizer X are the initializer X/bars, filled up with int32's largest value."""

_LEVELS = "/levels"
"""Beside X/bars, the initializer X/levels holds the levels, and once more in falling order."""


def describe_onnx(path: str | Path) -> dict[str, Any]:
    """An ONNX file as plain JSON types.

    Returns:
        file, bytes, producer, opset, format (None for a foreign file), inputs, outputs, operators (kind -> count),
        initializer_bytes, float_tensors (None where types cannot be inferred), metadata (qexport's keys, decoded),
        layers and thresholds (both empty for a foreign file).

    Raises:
        ArtifactError: no such file, no ONNX model, or metadata that cannot be decoded.
    """
    model, properties = read_onnx(path)
    metadata = decode_metadata(properties, path)
    stored = weight_bytes(model)
    bounds = metadata.get("qexport.bounds", {})
    return {
        "file": str(path),
        "bytes": Path(path).stat().st_size,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "format": metadata.get("qexport.format"),
        "inputs": [_value(info) for info in model.graph.input],
        "outputs": [_value(info) for info in model.graph.output],
        "operators": dict(Counter(node.op_type for node in model.graph.node).most_common()),
        "initializer_bytes": sum(len(t.raw_data) or numpy_helper.to_array(t).nbytes for t in model.graph.initializer),
        "float_tensors": _float_tensors(model),
        "metadata": metadata,
        "layers": [
            {**layer, "stored_bytes": stored.get(layer["name"])} for layer in metadata.get("qexport.layers", [])
        ],
        "thresholds": _thresholds(model) if bounds else [],
    }


def check_integer(path: str | Path) -> None:
    """Check that an ONNX file, whoever wrote it, computes in integers only.

    Raises:
        ArtifactError: naming the file and its float values.
    """
    model, _ = read_onnx(path)
    try:
        assert_integer(model)
    except ArtifactError as error:
        raise ArtifactError(
            error.what, where=str(path), got=error.got, expected=error.expected, remedy=error.remedy
        ) from error


def _value(info: ValueInfoProto) -> dict[str, Any]:
    tensor = info.type.tensor_type
    shape = [d.dim_param or "?" if not d.HasField("dim_value") else d.dim_value for d in tensor.shape.dim]
    return {"name": info.name, "type": TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}


def _float_tensors(model: onnx.ModelProto) -> list[str] | None:
    try:
        return find_float_tensors(model)
    except ArtifactError:
        return None


def _thresholds(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Thresholds of every quantizer that compares with constants: per step, smallest and largest over the channels.

    They are those the file compares with: of the accumulator, or of a sum in the units of its plain form (sums.py).
    """
    constants = {t.name: t for t in model.graph.initializer}
    ranges: dict[str, list[list[float]]] = {}
    steps: Counter[str] = Counter()
    for node in model.graph.node:
        name, found, _ = node.output[0].rpartition(_COMPARISON)
        if not found or node.input[1] not in constants:
            continue
        values = numpy_helper.to_array(constants[node.input[1]])
        if node.op_type == "Greater":
            values = window_thresholds(values, numpy_helper.to_array(constants[f"{name}{BIAS}"]))
        elif node.op_type != "GreaterOrEqual":
            continue
        ranges.setdefault(name, []).append(_range(values))
        steps[name] += 1
    for tensor in constants.values():
        name, found, rest = tensor.name.rpartition(_BARS)
        if found and not rest:
            bars = numpy_helper.to_array(tensor)
            used = bars[bars < np.iinfo(np.int32).max]
            ranges[name] = [_range(used)]
            steps[name] = constants[f"{name}{_LEVELS}"].dims[0] // 2 - 1
    return [{"name": name, "steps": steps[name], "thresholds": found} for name, found in ranges.items()]


def _range(values: NDArray) -> list[float]:
    return [values.min().item(), values.max().item()] if values.size else []
