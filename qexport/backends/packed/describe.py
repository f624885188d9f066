"""What a .qpk file holds, as plain values for people and programs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.metadata import decode_metadata
from qexport.backends.packed import format as f
from qexport.backends.packed.format import Feature, Opcode, Storage
from qexport.backends.packed.reader import PackedModel, read_packed
from qexport.ops import Conv2d, Linear


def describe_packed(path: str | Path) -> dict[str, Any]:
    """A .qpk file as plain JSON types.

    Returns:
        file, bytes, format ("qpk"), version, features, inputs, outputs, operators (kind -> count), metadata (qexport's
        keys, decoded), layers (shape, coding, bytes, bits per weight and their entropy, accumulator), sections (part
        of the file -> bytes), arena (bytes, most bytes alive at once, tensors with their place and their time) and
        bounds (tensor -> proven [min, max]).

    Raises:
        ArtifactError: the file cannot be read or breaks a rule of the format.
    """
    model = read_packed(path)
    sections = model.sections
    inputs, outputs = range(sections.inputs), sections.outputs.tolist()
    return {
        "file": str(path),
        "bytes": len(sections.data),
        "format": "qpk",
        "version": f"{sections.header['major']}.{sections.header['minor']}",
        "features": [bit.name for bit in Feature if bit & int(sections.header["features"]) and bit.name],
        "inputs": [_value(model, t, "uint8") for t in inputs],
        "outputs": [_value(model, t, "int32") for t in outputs],
        "operators": dict(Counter(Opcode(code).name.lower() for code in sections.ops["opcode"]).most_common()),
        "metadata": decode_metadata(model.metadata, path),
        "layers": _layers(model),
        "sections": _section_bytes(model),
        "arena": _arena(model),
        "bounds": {n: [int(c.lo.min()), int(c.hi.max())] for n, c in zip(model.names, model.claims, strict=True)},
    }


def _value(model: PackedModel, t: int, element: str) -> dict[str, Any]:
    return {"name": model.names[t], "type": element, "shape": ["N", *model.claims[t].shape]}


def _layers(model: PackedModel) -> list[dict[str, Any]]:
    """Convolutions and linear layers in the order of the file."""
    rows = []
    for k, op in enumerate(model.ops):
        if not isinstance(op, Conv2d | Linear):
            continue
        t, record, weights = model.sections.inputs + k, model.sections.ops[k], op.weight.array
        stored, claim = int(record["constant_size"]), model.claims[t]
        rows.append(
            {
                "name": model.names[t],
                "kind": op.kind,
                "shape": list(weights.shape),
                "weights": int(weights.size),
                "coding": _coding(record),
                "stored_bytes": stored,
                "bits_per_weight": 8 * stored / weights.size,
                "entropy": _entropy(weights),
                "accumulator": [int(claim.lo.min()), int(claim.hi.max())],
                "macs": int(weights.size) * int(np.prod(claim.shape[1:], dtype=np.int64)),
            }
        )
    return rows


def _coding(record: np.void) -> str:
    if record["flags"] & f.CONV_BASE3:
        return "base 3"
    bits = int(record["parameter"])
    return f"{bits}-bit codes" if record["count"] else f"int{bits}"


def _entropy(weights: NDArray) -> float:
    """Bits per weight that the frequencies of the levels alone would allow: Shannon's entropy."""
    _, counts = np.unique(weights, return_counts=True)
    shares = counts / weights.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no -0.0


def _section_bytes(model: PackedModel) -> dict[str, int]:
    """Bytes by part of the file, padding with the part before it; they sum to the file's size."""
    sections = model.sections
    kinds = {Opcode.CONV2D: "weights", Opcode.THRESHOLD: "thresholds", Opcode.RESCALE: "fixed point"}
    found = {"records": int(sections.header["constants_offset"]), "weights": 0, "thresholds": 0, "fixed point": 0}
    found |= {"other constants": 0, "ranges": 0}
    for record in sections.ops:
        kind = kinds.get(Opcode(record["opcode"]), "other constants")
        found[kind] += f.aligned(int(record["constant_size"]))
    metadata = len(sections.metadata)
    found["ranges"] = len(sections.data) - metadata - sum(found.values())
    return {**found, "metadata": metadata}


def _arena(model: PackedModel) -> dict[str, Any]:
    """Every stored tensor with its place and the operators while it is alive."""
    sections, ops = model.sections, len(model.ops)
    joins = sections.ops["flags"] & f.JOINS != 0
    heads = np.maximum.accumulate(np.where(joins, 0, np.arange(ops)))  # first operator of each operator's group
    ends = np.append(np.searchsorted(heads, heads, side="right") - 1, ops - 1)  # last one; for index P the very last
    tensors = []
    for t, record in enumerate(sections.tensors):
        storage = Storage(int(record["storage_slot"]) & 15)
        if storage is Storage.VIRTUAL:
            continue
        tensors.append(
            {
                "name": model.names[t],
                "type": storage.name.lower(),
                "range": [int(record["lo"]), int(record["hi"])],
                "offset": int(record["arena_offset"]),
                "bytes": int(np.prod(record["extent"].astype(np.int64))) * storage.bytes,
                "first": 0 if t < sections.inputs else int(heads[t - sections.inputs]),
                "last": int(ends[record["last_use"]]),
            }
        )
    return {
        "bytes": int(sections.header["arena_size"]),
        "largest_live_set": max(_live_bytes(tensors, int(k)) for k in np.unique(heads)),
        "virtual": len(sections.tensors) - len(tensors),
        "tensors": tensors,
    }


def _live_bytes(tensors: list[dict[str, Any]], operator: int) -> int:
    """Bytes that tensors alive during an operator take, each aligned; those in place of another are counted once."""
    alive = sorted((t["offset"], f.aligned(t["bytes"])) for t in tensors if t["first"] <= operator <= t["last"])
    total = end = 0
    for offset, size in alive:
        total += max(0, offset + size - max(end, offset))
        end = max(end, offset + size)
    return total
