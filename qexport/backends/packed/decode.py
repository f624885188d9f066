"""Operator records and constants as ops of the IR (docs/packed-format.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed import format as f
from qexport.backends.packed.format import Opcode
from qexport.backends.packed.sections import Blob, refused
from qexport.backends.packed.weights import Coding, decode_rows
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import (
    Add,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    Rescale,
    Reshape,
    Slice,
    SumPool,
    Threshold,
    Transpose,
    Weight,
)

Shape = tuple[int, ...]

_WINDOW = ("window", "stride", "dilation", "padding")
_NUMBERS = ("first", "second")

USES: dict[Opcode, tuple[int, tuple[str, ...]]] = {
    Opcode.CONV2D: (f.CONV_BASE3, (*_WINDOW, "parameter", "groups", "count")),
    Opcode.BORDER_BIAS: (0, _NUMBERS),
    Opcode.THRESHOLD: (f.PER_CHANNEL | f.SIGNS | f.LEVEL_TABLE, ("count", *_NUMBERS)),
    Opcode.RESCALE: (f.PER_CHANNEL, ("parameter", *_NUMBERS)),
    Opcode.ADD: (0, ()),
    Opcode.CLIP: (0, _NUMBERS),
    Opcode.MAX_POOL: (0, _WINDOW),
    Opcode.SUM_POOL: (f.FACTORS, _WINDOW),
    Opcode.PAD: (0, ()),
    Opcode.SLICE: (0, ()),
    Opcode.CONCAT: (0, ("count", "first")),
    Opcode.RESHAPE: (0, ()),
    Opcode.TRANSPOSE: (0, ("parameter",)),
    Opcode.L2_NORM: (0, ()),
}
"""Flags and fields each opcode uses; the others are zero."""

_OPTIONAL = (*_WINDOW, *_NUMBERS, "parameter", "groups", "count")


def check_record(record: np.void, where: str) -> None:
    """Opcode, version, unused fields and input slots of a record.

    Raises:
        ArtifactError: naming the field.
    """
    if record["opcode"] not in list(Opcode) or record["version"] != f.OPCODE_VERSION:
        raise refused("an unknown operator", where=where, got=f"{record['opcode']}, version {record['version']}")
    flags, fields = USES[Opcode(record["opcode"])]
    if int(record["flags"]) & ~(flags | f.JOINS):
        raise refused("unknown flags", where=where, got=bin(record["flags"]), expected=bin(flags | f.JOINS))
    for name in _OPTIONAL:
        if name not in fields and np.any(record[name]):
            raise refused(
                "a field that the operator does not use is not zero", where=where, got=f"{name} {record[name]}"
            )
    if "window" in fields and min(record["window"].min(), record["stride"].min(), record["dilation"].min()) < 1:
        raise refused("window, stride and dilation are at least 1", where=where, got=record)
    used = {Opcode.CONCAT: 0, Opcode.ADD: 2}.get(Opcode(record["opcode"]), 1)
    if np.any(record["input"][used:] != f.NONE16):
        raise refused("more inputs than the operator has", where=where, got=record["input"], expected=used)


def decode(record: np.void, blob: Blob, inputs: list[Shape], extents: Shape) -> Op:
    """The op of a record whose fields `check_record` has checked.

    Args:
        record: `format.OPERATOR`.
        blob: its constants, for a concat without the list of inputs.
        inputs: shapes of the inputs.
        extents: claimed shape of the result.

    Raises:
        ArtifactError: constants of the wrong size or out of range.
    """
    op = _DECODERS[Opcode(record["opcode"])](record, blob, inputs[0], extents)
    blob.finish()
    return op


def _window(record: np.void) -> dict[str, Any]:
    top, bottom, left, right = record["padding"].tolist()
    return {"stride": tuple(record["stride"].tolist()), "pads": ((top, bottom), (left, right))}


def _conv2d(record: np.void, blob: Blob, shape: Shape, extents: Shape) -> Op:
    coding = _coding(record, blob)
    groups, (kh, kw) = int(record["groups"]), record["window"].tolist()
    if groups < 1 or shape[0] % groups or extents[0] % groups:
        raise refused(
            "groups do not divide the channels", where=blob.where, got=groups, expected=(shape[0], extents[0])
        )
    taps, o = kh * kw * (shape[0] // groups), extents[0]
    rows = decode_rows(blob.take("u1", o, coding.row_bytes(taps)), (o, taps), coding, blob.where)
    levels = {"level_set": coding.codebook} if coding.codebook else {"edge_bits": coding.bits}
    if len(shape) == 1:
        if (kh, kw, groups) != (1, 1, 1) or np.any(record["padding"]):
            raise refused("a linear layer has a window of one pixel and one group", where=blob.where, got=record)
        return Linear(Weight(rows, **levels))
    array = np.ascontiguousarray(rows.reshape(o, kh, kw, -1).transpose(0, 3, 1, 2))
    weight = Weight(array, **levels)
    return Conv2d(weight, dilation=tuple(record["dilation"].tolist()), groups=groups, **_window(record))


def _coding(record: np.void, blob: Blob) -> Coding:
    bits, entries = int(record["parameter"]), int(record["count"])
    base3 = bool(record["flags"] & f.CONV_BASE3)
    if base3:
        valid = (bits, entries) == (2, 3)
    else:
        valid = 1 <= bits <= 8 and entries <= 1 << bits if entries else 2 <= bits <= 32
    if not valid:
        raise refused("weights of an unknown coding", where=blob.where, got=f"{bits} bits, {entries} levels")
    codebook = blob.take("<i4", entries).astype(np.int64)
    if np.any(np.diff(codebook) <= 0) or np.any(np.abs(codebook) > f.MAX_WEIGHT):
        raise refused("a codebook ascends within the range of weights", where=blob.where, got=codebook)
    return Coding(bits, tuple(codebook.tolist()), base3)


def _border_bias(record: np.void, blob: Blob, shape: Shape, _extents: Shape) -> Op:
    classes = int(record["first"]), int(record["second"])
    if len(shape) != 3 or not all(1 <= n <= f.MAX_CLASSES for n in classes):
        raise refused(
            "border classes are out of range", where=blob.where, got=classes, expected=f"1 to {f.MAX_CLASSES}"
        )
    values = blob.take("<i4", *classes, shape[0]).transpose(2, 0, 1).astype(np.int64)
    rows, columns = (blob.take("u1", n).astype(np.int64) for n in shape[1:])
    if rows.max() >= classes[0] or columns.max() >= classes[1]:
        raise refused(
            "a border class has no values", where=blob.where, got=(rows.max(), columns.max()), expected=classes
        )
    return BorderBias(values, rows, columns)


def _threshold(record: np.void, blob: Blob, shape: Shape, _extents: Shape) -> Op:
    steps, flags = int(record["count"]), int(record["flags"])
    rows = shape[0] if flags & f.PER_CHANNEL else 1
    if steps > f.MAX_STEPS:
        raise refused("too many steps", where=blob.where, got=steps, expected=f.MAX_STEPS)
    thresholds = blob.take("<i4", steps, rows).T.astype(np.int64)
    first, step = int(record["first"]), int(record["second"])
    if flags & f.LEVEL_TABLE:
        levels = blob.take("<i4", steps + 1).astype(np.int64)
    else:
        levels = first + step * np.arange(steps + 1)
    if np.any(np.diff(thresholds, axis=1) < 0) or (flags & f.LEVEL_TABLE and (first or step)):
        raise refused("thresholds must ascend, and levels stand in one place", where=blob.where)
    if levels.min() < INT32_MIN or levels.max() > INT32_MAX:
        raise refused("a level leaves 32 bits", where=blob.where, got=levels[np.abs(levels).argmax()])
    sign = np.ones(rows, np.int8)
    if flags & f.SIGNS:
        bits = np.unpackbits(blob.take("u1", -(-rows // 8)), bitorder="little")
        if bits[rows:].any():
            raise refused("bits behind the last sign are not zero", where=blob.where)
        sign[bits[:rows] == 1] = -1
    return Threshold(thresholds, sign, levels.astype(np.int32))


def _rescale(record: np.void, blob: Blob, shape: Shape, _extents: Shape) -> Op:
    rows = shape[0] if record["flags"] & f.PER_CHANNEL else 1
    addend, multiplier = blob.take("<i8", rows).astype(np.int64), blob.take("<i4", rows).astype(np.int64)
    shift, lo, hi = int(record["parameter"]), int(record["first"]), int(record["second"])
    if shift > f.MAX_SHIFT or lo > hi or multiplier.min() == INT32_MIN or not _within(addend, f.MAX_ADDEND):
        raise refused("parameters of a rescale are out of range", where=blob.where, got=f"shift {shift}, [{lo}, {hi}]")
    return Rescale(multiplier, addend, shift, lo, hi)


def _within(values: NDArray[np.int64], limit: int) -> bool:
    return bool(values.min() >= -limit and values.max() <= limit)


def _clip(record: np.void, blob: Blob, _shape: Shape, _extents: Shape) -> Op:
    lo, hi = int(record["first"]), int(record["second"])
    if lo > hi:
        raise refused("the bounds of a clip are in the wrong order", where=blob.where, got=(lo, hi))
    return Clip(None if lo == INT32_MIN else lo, None if hi == INT32_MAX else hi)


def _max_pool(record: np.void, _blob: Blob, _shape: Shape, _extents: Shape) -> Op:
    dilation = tuple(record["dilation"].tolist())
    return MaxPool(tuple(record["window"].tolist()), dilation=dilation, **_window(record))


def _sum_pool(record: np.void, blob: Blob, _shape: Shape, extents: Shape) -> Op:
    if np.any(record["dilation"] != 1):
        raise refused("a sum over a window has no dilation", where=blob.where, got=record["dilation"])
    factors = None
    if record["flags"] & f.FACTORS:
        rows, columns = (blob.take("<i4", n).tolist() for n in (*extents, 1, 1)[1:3])
        factors = tuple(rows), tuple(columns)
    return SumPool(tuple(record["window"].tolist()), factors=factors, **_window(record))


def _pad(_record: np.void, blob: Blob, shape: Shape, extents: Shape) -> Op:
    before, after = blob.take("<u4", 2, 3).tolist()
    _none_beyond(shape, blob, before, after)
    padded = tuple(n + b + a for n, b, a in zip(shape, before, after, strict=False))
    if padded != extents:  # before anything of the padded size is made
        raise refused("a result has other extents than claimed", where=blob.where, got=extents, expected=padded)
    return Pad(tuple(zip(before, after, strict=True))[: len(shape)])


def _slice(_record: np.void, blob: Blob, shape: Shape, extents: Shape) -> Op:
    start, step = blob.take("<u4", 2, 3).tolist()
    _none_beyond(shape, blob, start, [n - 1 for n in step])
    if min(step) < 1:
        raise refused("a slice steps by at least 1", where=blob.where, got=step)
    stops = [first + (n - 1) * by + 1 for first, n, by in zip(start, extents, step, strict=False)]
    return Slice(tuple(zip(start, stops, step, strict=False)))


def _none_beyond(shape: Shape, blob: Blob, *values: list[int]) -> None:
    if any(any(v[len(shape) :]) for v in values):
        raise refused("an axis that the tensor does not have is moved", where=blob.where, got=values, expected=shape)


def _transpose(record: np.void, blob: Blob, shape: Shape, _extents: Shape) -> Op:
    axes = tuple(int(record["parameter"]) >> 2 * i & 3 for i in range(4))
    if axes[3] or axes[len(shape) : 3] != tuple(range(len(shape), 3)):
        raise refused("an axis that the tensor does not have is moved", where=blob.where, got=axes, expected=shape)
    return Transpose(shape, axes[: len(shape)])


_DECODERS: dict[Opcode, Callable[[np.void, Blob, Shape, Shape], Op]] = {
    Opcode.CONV2D: _conv2d,
    Opcode.BORDER_BIAS: _border_bias,
    Opcode.THRESHOLD: _threshold,
    Opcode.RESCALE: _rescale,
    Opcode.ADD: lambda record, blob, shape, extents: Add(),
    Opcode.CLIP: _clip,
    Opcode.MAX_POOL: _max_pool,
    Opcode.SUM_POOL: _sum_pool,
    Opcode.PAD: _pad,
    Opcode.SLICE: _slice,
    Opcode.CONCAT: lambda record, blob, shape, extents: Concat(int(record["first"])),
    Opcode.RESHAPE: lambda record, blob, shape, extents: Reshape(shape, extents),
    Opcode.TRANSPOSE: _transpose,
    Opcode.L2_NORM: lambda record, blob, shape, extents: L2Norm(),
}
"""Opcode -> function (record, constants, shape of the first input, shape of the result) that gives its op."""
