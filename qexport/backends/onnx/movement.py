"""Ops that move or gather values: pooling, strided slice, padding, concatenation, reshape, transpose."""

from __future__ import annotations

import numpy as np

from qexport.backends.onnx.emitter import INT32, INT64, Emitter
from qexport.ops import Concat, MaxPool, Pad, Reshape, Slice, SumPool, Transpose
from qexport.ops.pool import Pool


def lower_max_pool(e: Emitter, op: MaxPool, name: str) -> str:
    """Maximum over shifted slices, rows first, in any element type.

    ONNX MaxPool knows no int32 and is nine times slower on bytes in ONNX Runtime.
    """
    value = _padded(e, op, name, int(np.iinfo(e.dtype(name)).min))
    for axis in (0, 1):
        value = _window_maximum(e, op, value, axis)
    return value


def lower_sum_pool(e: Emitter, op: SumPool, name: str) -> str:
    """Sum over shifted slices, rows first, in int32; one ReduceSum where the window is the whole image.

    Factors of rows and columns are multiplied separately, so that the file holds no map of them.
    """
    value = e.cast(name, INT32)
    shape = e.graph.types[name].shape
    if op.kernel == shape[1:] and not any(map(any, op.pads)):
        axes = e.constant(np.array([2, 3], INT64))
        value = e.node("ReduceSum", [value, axes], "sum", keepdims=1)
    else:
        value = _padded(e, op, value, 0)
        for axis in (0, 1):
            value = _folded(e, "Add", [_strip(e, value, axis, *strip) for strip in _strips(e, op, axis)])
    for axis, factors in enumerate(op.factors or ()):
        if set(factors) != {1}:
            column = np.array(factors, INT32).reshape(-1, 1) if axis == 0 else np.array(factors, INT32)
            value = e.node("Mul", [value, e.constant(column)], "weighted")
    return value


def _strips(e: Emitter, op: Pool, axis: int) -> list[tuple[int, int, int]]:
    """(start, stop, step) along a spatial axis of the elements that each tap of the window sees."""
    stride, reach = op.stride[axis], op.stride[axis] * (_out(e, axis) - 1) + 1
    starts = [u * op.spacing[axis] for u in range(op.kernel[axis])]
    return [(start, start + reach, stride) for start in starts]


def _window_maximum(e: Emitter, op: Pool, value: str, axis: int) -> str:
    """Maximum of windows along one spatial axis.

    Columns avoid strided slices, which copy element by element: with windows of k >= s, the running maximum of
    k - s + 1 neighbours at stride 1 is followed by the maximum of groups of s.
    """
    kernel, stride, extent = op.kernel[axis], op.stride[axis], _out(e, axis)
    if axis == 0 or stride == 1 or kernel < stride or op.spacing[axis] > 1:
        return _folded(e, "Max", [_strip(e, value, axis, *strip) for strip in _strips(e, op, axis)])
    shifted = [_strip(e, value, axis, u, u + stride * extent, 1) for u in range(kernel - stride + 1)]
    value = _folded(e, "Max", shifted)
    channels, rows, _ = e.graph.types[e.scope].shape
    grouped = e.constant(np.array([0, channels, rows, extent, stride], INT64))
    value = e.node("Reshape", [value, grouped], "groups")
    return e.node("ReduceMax", [value, e.constant(np.array([4], INT64))], "maximum", keepdims=0)


def _out(e: Emitter, axis: int) -> int:
    """Output extent of the current node along a spatial axis."""
    return e.graph.types[e.scope].shape[1 + axis]


def _padded(e: Emitter, op: Pool, value: str, fill: int) -> str:
    if not any(map(any, op.pads)):
        return value
    pads = [0, 0, *(before for before, _ in op.pads), 0, 0, *(after for _, after in op.pads)]
    inputs = [value, e.constant(np.array(pads, INT64)), e.constant(np.array(fill, e.dtype(value)))]
    return e.node("Pad", inputs, "padded")


def _strip(e: Emitter, value: str, axis: int, start: int, stop: int, step: int) -> str:
    """Slice of one spatial axis."""
    bounds = [np.array([v], INT64) for v in (start, stop, 2 + axis, step)]
    return e.node("Slice", [value, *map(e.constant, bounds)], "strip")


def _folded(e: Emitter, op_type: str, parts: list[str]) -> str:
    """Left fold of a binary operator: the variadic form of ONNX Runtime is slower."""
    total = parts[0]
    for part in parts[1:]:
        total = e.node(op_type, [total, part], "window")
    return total


def lower_slice(e: Emitter, op: Slice, name: str) -> str:
    """Slice of the axes that change."""
    return emit_slice(e, op.ranges, name, e.graph.types[name].shape)


def emit_slice(e: Emitter, ranges: tuple[tuple[int, int, int], ...], value: str, shape: tuple[int, ...]) -> str:
    """Slice per-sample axes of a value of any element type, leaving out axes that stay whole."""
    cut = [(i + 1, r) for i, (r, extent) in enumerate(zip(ranges, shape, strict=True)) if r != (0, extent, 1)]
    if not cut:
        return value
    columns = [[r[0] for _, r in cut], [r[1] for _, r in cut], [axis for axis, _ in cut], [r[2] for _, r in cut]]
    return e.node("Slice", [value, *(e.constant(np.array(column, INT64)) for column in columns)], "slice")


def lower_pad(e: Emitter, op: Pad, name: str) -> str:
    """Padding with the integer 0."""
    pads = np.array([0, *(before for before, _ in op.pads), 0, *(after for _, after in op.pads)], INT64)
    return e.node("Pad", [name, e.constant(pads)], "padded")


def lower_concat(e: Emitter, op: Concat, *names: str) -> str:
    """Concatenation in the element type of the result."""
    dtype = e.carrier(e.scope)
    return e.node("Concat", [e.cast(name, dtype) for name in names], "joined", axis=1 + op.axis)


def lower_reshape(e: Emitter, op: Reshape, name: str) -> str:
    """Reshape that copies the batch axis, so it stays dynamic."""
    return e.node("Reshape", [name, e.constant(np.array([0, *op.shape], INT64))], "reshaped")


def lower_transpose(e: Emitter, op: Transpose, name: str) -> str:
    """Transpose behind the batch axis."""
    return e.node("Transpose", [name], "transposed", perm=[0, *(1 + axis for axis in op.axes)])
