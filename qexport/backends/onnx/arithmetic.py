"""Elementwise integer arithmetic: Rescale, Add, Clip, BorderBias."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import INT32, INT64, Emitter, fits
from qexport.errors import AccumulatorError
from qexport.ir import TensorType
from qexport.ops import Add, BorderBias, Clip, Rescale


def lower_rescale(e: Emitter, op: Rescale, name: str) -> str:
    """clip((x * m + r) >> s, lo, hi), in 32 bits where product and sum are proven to fit, else in 64.

    ONNX shifts only unsigned integers, so a multiple of 2**s that makes every sum non-negative is added before the
    shift and its quotient is taken off after it: floor((v + k * 2**s) / 2**s) - k == floor(v / 2**s).
    """
    x = e.graph.types[name]
    lows, highs = op.exact_sums(x)
    lo, hi = min(lows), max(highs)
    bias = -(lo >> op.shift) if op.shift and lo < 0 else 0
    addend = op.addend.astype(object) + (bias << op.shift)
    wide = not _fits_int32(op, x, addend, hi + (bias << op.shift))
    if max(hi + (bias << op.shift), *(abs(int(r)) for r in addend)) > np.iinfo(INT64).max:
        raise AccumulatorError(
            "a rescale leaves 64 bits once made non-negative", where=e.scope, got=f"sums in [{lo}, {hi}]"
        )
    signed, unsigned = (INT64, np.uint64) if wide else (INT32, np.uint32)
    value = _scaled(e, op, e.cast(name, signed), addend, len(x.shape), signed)
    if not op.shift:
        return _saturated(e, op, value, lo, hi)
    value = e.cast(value, unsigned, "unsigned")
    value = e.node("BitShift", [value, e.constant(np.array(op.shift, unsigned))], "shifted", direction="RIGHT")
    top = (hi >> op.shift) + bias
    value = e.cast(value, INT32 if fits(-bias, top, INT32) else INT64, "signed")
    if bias:
        value = e.node("Sub", [value, e.constant(np.array(bias, e.dtype(value)))], "floor")
    return _saturated(e, op, value, lo >> op.shift, hi >> op.shift)


def _fits_int32(op: Rescale, x: TensorType, addend: NDArray[np.object_], top: int) -> bool:
    """Whether product, addend and sum all fit int32; the sum is non-negative where there is a shift."""
    multiplier = np.broadcast_to(op.multiplier, (x.channels,)).astype(object)
    products = np.concatenate([x.lo.astype(object) * multiplier, x.hi.astype(object) * multiplier])
    parts = [*products.tolist(), *addend.tolist(), top]
    return fits(min(parts), max(parts), INT32)


def _scaled(e: Emitter, op: Rescale, value: str, addend: NDArray[np.object_], rank: int, dtype: np.dtype) -> str:
    if np.any(op.multiplier != 1):
        value = e.node("Mul", [value, e.per_channel(op.multiplier, rank, dtype)], "product")
    if np.any(addend != 0):
        value = e.node("Add", [value, e.per_channel(addend.astype(np.int64), rank, dtype)], "total")
    return value


def _saturated(e: Emitter, op: Rescale, value: str, lo: int, hi: int) -> str:
    """Clip to the saturation bounds, left out where the proven range [lo, hi] cannot reach them."""
    if op.lo <= lo and hi <= op.hi:
        return value
    if e.dtype(value) == INT64:
        return _clip_int64(e, value, op.lo, op.hi)
    return _clip(e, value, op.lo, op.hi)


def _clip(e: Emitter, value: str, lo: int, hi: int) -> str:
    """Clip in the element type of the value; bounds beyond that type are drawn in to it."""
    dtype = e.dtype(value)
    info = np.iinfo(dtype)
    ends = [e.constant(np.array(min(max(bound, info.min), info.max), dtype)) for bound in (lo, hi)]
    return e.node("Clip", [value, *ends], "clipped")


def _clip_int64(e: Emitter, value: str, lo: int, hi: int) -> str:
    """Clip by comparison and choice: Clip, Min and Max of ONNX Runtime compare only the low 32 bits of an int64.

    onnxruntime issues 25280 and 32475; Greater, Less and Where are right.
    """
    for compare, bound in (("Greater", hi), ("Less", lo)):
        end = e.constant(np.array(bound, INT64))
        beyond = e.node(compare, [value, end], "beyond", bool)
        value = e.node("Where", [beyond, end, value], "clipped", INT64)
    return value


def lower_clip(e: Emitter, op: Clip, name: str) -> str:
    """min(max(x, lo), hi); sides that the proven range cannot reach are left out.

    Bounds may lie outside the container of x: the result is then constant, which Clip gives once the wider
    element type is used.
    """
    x = e.graph.types[name]
    lo, hi = int(x.lo.min()), int(x.hi.max())
    low = lo if op.lo is None else int(op.lo)
    high = hi if op.hi is None else int(op.hi)
    if low <= lo and hi <= high:
        return name
    inside = fits(low, high, e.dtype(name))
    return _clip(e, name if inside else e.cast(name, INT32), low, high)


def lower_add(e: Emitter, op: Add, a: str, b: str) -> str:
    """a + b, in the result's element type where both operands fit it, else in int32."""
    dtype = e.carrier(e.scope)
    operands = [e.graph.types[tensor] for tensor in (a, b)]
    if not all(fits(int(t.lo.min()), int(t.hi.max()), dtype) for t in operands):
        dtype = INT32
    return e.node("Add", [e.cast(a, dtype), e.cast(b, dtype)], "sum")


def lower_border_bias(e: Emitter, op: BorderBias, name: str) -> str:
    """x + values[:, rows][:, :, cols]; the table stays small in the file and is expanded when the model is loaded.

    Raises:
        AccumulatorError: a correction itself leaves int32.
    """
    if not fits(int(op.values.min()), int(op.values.max()), INT32):
        raise AccumulatorError("a border correction leaves int32", where=e.scope, got=int(np.abs(op.values).max()))
    bias = e.initializer("border", op.values.astype(np.int32))
    for axis, classes in ((1, op.rows), (2, op.cols)):
        bias = e.node("Gather", [bias, e.constant(classes.astype(np.int32))], "border_bias", axis=axis)
    return e.node("Add", [e.cast(name, INT32), bias], "sum")
