"""A convolution over few positions as MatMulInteger on the windows of its input.

ONNX Runtime packs the weights of a ConvInteger for every image, which costs as much as multiplying where there are only
few positions to multiply them with; those of a MatMulInteger it packs once. The windows of a small image are cheap to
lay out side by side (docs/decisions/008-unit-scale-convolutions.md).
"""

from __future__ import annotations

import numpy as np

from qexport.backends.onnx.emitter import INT8, INT32, INT64, UINT8, Emitter
from qexport.backends.onnx.products import Operand, emit_byte, lower_conv2d, range_with_zero, signed_weight_limit
from qexport.backends.onnx.weights import Levels, emit_levels
from qexport.ir import TensorType
from qexport.ops import Conv2d

FEW_POSITIONS = 64
"""Output positions up to which any convolution is unfolded."""

SMALL_IMAGE = 256
"""Output positions up to which one is whose windows hold more than one pixel."""


def is_unfolded(op: Conv2d, x: TensorType, out: TensorType) -> bool:
    """Whether a convolution takes this form: few positions, one group, and weights that need no digits."""
    kernel, positions = op.weight.array.shape[2:], out.shape[1] * out.shape[2]
    if op.groups != 1 or positions > (FEW_POSITIONS if kernel == (1, 1) else SMALL_IMAGE):
        return False
    lo, hi = range_with_zero(x)
    return int(np.abs(op.weight.array).max()) <= signed_weight_limit(hi - lo)


def lower_convolution(e: Emitter, op: Conv2d, name: str) -> str:
    """Exact int32 accumulator of a convolution, unfolded where that pays."""
    if is_unfolded(op, e.graph.types[name], e.graph.types[e.scope]):
        return _lower_unfolded(e, op, name)
    return lower_conv2d(e, op, name)


def _lower_unfolded(e: Emitter, op: Conv2d, name: str) -> str:
    """uint8 windows times int8 weights, kept so small that no kernel saturates."""
    lo, _ = range_with_zero(e.graph.types[name])
    x = emit_byte(e, name, lo, UINT8)
    inputs = [_windows(e, op, x), _weight(e, op)]
    if x.zero_point:
        inputs.append(e.constant(np.array(x.zero_point, UINT8)))
    acc = e.node("MatMulInteger", inputs, "acc", INT32)
    return e.node("Transpose", [acc], "acc", perm=[0, 3, 1, 2])


def _weight(e: Emitter, op: Conv2d) -> str:
    """[O, I, kh, kw] -> [kh * kw * I, O], folded when the model is loaded."""
    value = emit_levels(e, Levels(op.weight.array.astype(np.int64), op.weight.level_set), INT8)
    value = e.node("Transpose", [value], "weight_io", perm=[2, 3, 1, 0])
    return e.node("Reshape", [value, e.constant(np.array([-1, len(op.weight.array)], INT64))], "weight_io")


def _windows(e: Emitter, op: Conv2d, x: Operand) -> str:
    """[N, I, H, W] -> [N, out rows, out columns, kh * kw * I], the pixels of a window in the order of its taps."""
    value = e.node("Transpose", [x.value], "pixels", perm=[0, 2, 3, 1])
    (top, bottom), (left, right) = op.pads
    if any((top, bottom, left, right)):
        pads = e.constant(np.array([0, top, left, 0, 0, bottom, right, 0], INT64))
        value = e.node("Pad", [value, pads, e.constant(np.array(x.zero_point, UINT8))], "padded")
    kernel, out = op.weight.array.shape[2:], e.graph.types[e.scope].shape[1:]
    axes, steps = e.constant(np.array([1, 2], INT64)), e.constant(np.array(op.stride, INT64))
    taps = []
    for place in np.ndindex(kernel):
        first = np.array(place, INT64) * op.dilation
        last = first + (np.array(out) - 1) * op.stride + 1
        taps.append(e.node("Slice", [value, e.constant(first), e.constant(last), axes, steps], "tap"))
    return e.node("Concat", taps, "windows", axis=3) if len(taps) > 1 else taps[0]
