"""Ops of the IR as operator records and constants (docs/packed-format.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qexport.backends.packed.format import (
    CONV_BASE3,
    FACTORS,
    LEVEL_TABLE,
    MAX_ADDEND,
    MAX_CLASSES,
    MAX_STEPS,
    PER_CHANNEL,
    SIGNS,
    Feature,
    Opcode,
)
from qexport.backends.packed.weights import choose_coding, encode_rows
from qexport.errors import GraphError
from qexport.ir import Node
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import (
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    Linear,
    MaxPool,
    Pad,
    Rescale,
    Slice,
    SumPool,
    Threshold,
    Transpose,
    Weight,
)

NO_FEATURE = Feature(0)


@dataclass(frozen=True)
class Encoded:
    """What an operator becomes, without its inputs and offsets.

    Attributes:
        opcode: of the record.
        constants: bytes, without padding.
        features: required features that occur.
        fields: further fields of the record; the others are zero.
        listed: the inputs stand in the constants instead of the record.
    """

    opcode: Opcode
    constants: bytes = b""
    features: Feature = NO_FEATURE
    fields: dict[str, Any] = field(default_factory=dict)
    listed: bool = False


def encode(node: Node) -> Encoded:
    """The record and constants of a node.

    Raises:
        GraphError: the op, or a parameter of it, has no form in the packed format.
    """
    if node.op.kind not in _ENCODERS:
        raise _missing(node, node.op.kind)
    found = _ENCODERS[node.op.kind](node.op, node)
    for name, value in found.fields.items():
        largest = 255 if name in ("flags", "parameter") else INT32_MAX if name in ("first", "second") else 65535
        if np.max(value) > largest:
            raise GraphError("a parameter is too large for the packed format", where=node.name, got=f"{name} {value}")
    return found


def _missing(node: Node, what: str) -> GraphError:
    return GraphError(f"the packed format has no {what}", where=node.name, expected=", ".join(sorted(_ENCODERS)))


def _window(op: Conv2d | MaxPool | SumPool, kernel: tuple[int, ...]) -> dict[str, Any]:
    return {
        "window": kernel,
        "stride": op.stride,
        "dilation": getattr(op, "dilation", (1, 1)),
        "padding": (*op.pads[0], *op.pads[1]),
    }


def _conv2d(op: Conv2d, _node: Node) -> Encoded:
    rows = op.weight.array.transpose(0, 2, 3, 1).reshape(len(op.weight.array), -1)
    fields = {**_window(op, op.weight.array.shape[2:]), "groups": op.groups}
    return _layer(op.weight, rows, fields)


def _linear(op: Linear, _node: Node) -> Encoded:
    fields = {"window": (1, 1), "stride": (1, 1), "dilation": (1, 1), "groups": 1}
    return _layer(op.weight, op.weight.array, fields)


def _layer(weight: Weight, rows: NDArray, fields: dict[str, Any]) -> Encoded:
    coding = choose_coding(weight)
    features = (Feature.BASE3 if coding.base3 else NO_FEATURE) | (Feature.WIDE if coding.is_wide else NO_FEATURE)
    fields |= {"parameter": coding.bits, "count": len(coding.codebook), "flags": CONV_BASE3 if coding.base3 else 0}
    constants = _pack(np.array(coding.codebook), "<i4") + encode_rows(rows, coding)
    return Encoded(Opcode.CONV2D, constants, features, fields)


def _border_bias(op: BorderBias, node: Node) -> Encoded:
    _, rows, columns = op.values.shape
    if max(rows, columns) > MAX_CLASSES:
        raise _missing(node, f"border of more than {MAX_CLASSES} classes")
    constants = _pack(op.values.transpose(1, 2, 0), "<i4") + _pack(op.rows, "u1") + _pack(op.cols, "u1")
    return Encoded(Opcode.BORDER_BIAS, constants, fields={"first": rows, "second": columns})


def _threshold(op: Threshold, node: Node) -> Encoded:
    steps = op.thresholds.shape[1]
    if steps > MAX_STEPS:
        raise _missing(node, f"quantizer of more than {MAX_STEPS} steps")
    thresholds, sign = shared(op.thresholds, op.sign)
    flags = (PER_CHANNEL if len(sign) > 1 else 0) | (SIGNS if np.any(sign < 0) else 0)
    constants = _pack(thresholds.T, "<i4")
    gaps = np.diff(op.levels.astype(np.int64))
    first, second = int(op.levels[0]), int(gaps[0]) if steps else 0
    table = bool(np.any(gaps != second)) or not INT32_MIN <= second <= INT32_MAX
    if table:
        first, second, flags = 0, 0, flags | LEVEL_TABLE
        constants += _pack(op.levels, "<i4")
    if flags & SIGNS:
        constants += np.packbits(sign < 0, bitorder="little").tobytes()
    fields = {"count": steps, "first": first, "second": second, "flags": flags}
    return Encoded(Opcode.THRESHOLD, constants, Feature.LEVEL_TABLE if table else NO_FEATURE, fields)


def _rescale(op: Rescale, node: Node) -> Encoded:
    if max(abs(int(r)) for r in op.addend) > MAX_ADDEND:
        raise _missing(node, "rescale with an addend beyond 2^62")
    addend, multiplier = shared(op.addend, op.multiplier)
    fields = {
        "parameter": op.shift,
        "first": op.lo,
        "second": op.hi,
        "flags": PER_CHANNEL if len(addend) > 1 else 0,
    }
    return Encoded(Opcode.RESCALE, _pack(addend, "<i8") + _pack(multiplier, "<i4"), fields=fields)


def _clip(op: Clip, _node: Node) -> Encoded:
    lo, hi = (INT32_MIN if op.lo is None else op.lo), (INT32_MAX if op.hi is None else op.hi)
    bounds = [min(max(int(v), INT32_MIN), INT32_MAX) for v in (lo, hi)]
    return Encoded(Opcode.CLIP, fields={"first": bounds[0], "second": bounds[1]})


def _max_pool(op: MaxPool, _node: Node) -> Encoded:
    return Encoded(Opcode.MAX_POOL, fields=_window(op, op.kernel))


def _sum_pool(op: SumPool, _node: Node) -> Encoded:
    fields = _window(op, op.kernel)
    if op.factors is None:
        return Encoded(Opcode.SUM_POOL, fields=fields)
    constants = b"".join(_pack(np.array(factors), "<i4") for factors in op.factors)
    return Encoded(Opcode.SUM_POOL, constants, fields=fields | {"flags": FACTORS})


def _pad(op: Pad, _node: Node) -> Encoded:
    pads = [*op.pads, *((0, 0),) * (3 - len(op.pads))]
    return Encoded(Opcode.PAD, _pack(np.array(pads).T, "<u4"))


def _slice(op: Slice, _node: Node) -> Encoded:
    ranges = [*op.ranges, *((0, 1, 1),) * (3 - len(op.ranges))]
    return Encoded(Opcode.SLICE, _pack(np.array([(start, step) for start, _, step in ranges]).T, "<u4"))


def _concat(op: Concat, node: Node) -> Encoded:
    return Encoded(Opcode.CONCAT, fields={"count": len(node.inputs), "first": op.axis}, listed=True)


def _transpose(op: Transpose, _node: Node) -> Encoded:
    axes = (*op.axes, *range(len(op.axes), 3))
    return Encoded(Opcode.TRANSPOSE, fields={"parameter": sum(axis << 2 * i for i, axis in enumerate(axes))})


def shared(*parameters: NDArray) -> tuple[NDArray, ...]:
    """Per-channel parameters [C, ...] of one op, as [1, ...] where all channels have the same ones."""
    if all(np.all(p == p[:1]) for p in parameters):
        return tuple(p[:1] for p in parameters)
    return parameters


def _pack(array: NDArray, dtype: DTypeLike) -> bytes:
    """Row-major bytes; raises GraphError where the narrower type does not hold the values."""
    narrow = array.astype(dtype)
    if not np.array_equal(narrow, array):
        raise GraphError("a constant does not fit its type in the packed format", got=array.max(), expected=dtype)
    return narrow.tobytes()


_ENCODERS: dict[str, Callable[..., Encoded]] = {
    "add": lambda op, node: Encoded(Opcode.ADD),
    "border_bias": _border_bias,
    "clip": _clip,
    "concat": _concat,
    "conv2d": _conv2d,
    "l2_norm": lambda op, node: Encoded(Opcode.L2_NORM),
    "linear": _linear,
    "max_pool": _max_pool,
    "pad": _pad,
    "rescale": _rescale,
    "reshape": lambda op, node: Encoded(Opcode.RESHAPE),
    "slice": _slice,
    "sum_pool": _sum_pool,
    "threshold": _threshold,
    "transpose": _transpose,
}
"""Op kind -> function (op, node) that gives its record."""
