"""The products of the QDQ flavour: Conv or Gemm on dequantized weights, quantized to bytes or left float."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import FLOAT, INT8, INT16, UINT8, fits
from qexport.backends.onnx.qdq_state import Coded, State
from qexport.backends.onnx.weights import Levels, emit_levels
from qexport.ir import Node
from qexport.ops import Conv2d, Linear, Weight
from qexport.passes.pending import Rationals, rationals

INT16_OPSET = 21
"""First opset whose DequantizeLinear takes int16."""

PAIR_MAX = 2**15 - 1
"""Kernels for uint8 x int8 on x86 processors without VNNI add two products in a saturating int16."""

UINT8_ZERO = 128
"""Zero point of weights stored as uint8, which no kernel saturates."""


def layer_scale(weight: Weight) -> Rationals | None:
    """Real value of one weight level per output channel [O]; None where input channels differ in unit."""
    scale = rationals(weight.scale or ())
    if weight.input_unit is None:
        return scale
    unit = weight.input_unit[0]
    return scale / unit if all(u == unit for u in weight.input_unit) else None


def is_int8(weight: Weight) -> bool:
    """Whether every level is an int8."""
    return fits(int(weight.array.min()), int(weight.array.max()), INT8)


def quantized_product(
    s: State, op: Conv2d | Linear, x: Coded, bias: NDArray[np.int64], multiplier: NDArray[np.floating], finer: int
) -> str:
    """DequantizeLinear, Conv, QuantizeLinear: bytes clip(round(multiplier * (finer * acc + bias)), 0, 255).

    Args:
        op: layer with int8 weights.
        x: its input.
        bias, multiplier: [O].
        finer: what the weights are multiplied by, within int8.
    """
    real_weight = _dequantized_weight(s, op.weight, multiplier / float(x.scale), x, finer)
    inputs = [s.e.initializer("bias", bias.astype(np.int32)), s.e.initializer("bias_scale", _float(multiplier))]
    real_bias = s.e.node("DequantizeLinear", inputs, "bias", FLOAT, axis=0)
    value = _product(s, op, s.dequantized(x), real_weight, real_bias)
    ends = [s.e.constant(np.array(1, FLOAT)), s.e.constant(np.array(0, UINT8))]
    return s.e.node("QuantizeLinear", [value, *ends], "codes", UINT8)


def float_product(s: State, node: Node, scale: Rationals | None, bias: Rationals | None) -> str:
    """The layer with a float result.

    Args:
        node: Conv2d or Linear.
        scale: real value of one level per output channel, with what was folded into it; None for float weights.
        bias: [O], added to the result.
    """
    op = node.op
    assert isinstance(op, Conv2d | Linear)
    weight = _float_weight(s, node, op, scale)
    coded = s.coded.get(node.inputs[0])
    x = s.real(node.inputs[0]) if coded is None else s.dequantized(coded)
    folded = "" if bias is None else s.e.initializer("bias", _float(np.array([float(b) for b in bias])))
    if isinstance(op, Linear) and folded:  # a bias that is no multiple of the accumulator's step keeps Gemm from QGemm
        return s.e.node("Add", [_product(s, op, x, weight, ""), folded], "shifted")
    return _product(s, op, x, weight, folded)


def _float_weight(s: State, node: Node, op: Conv2d | Linear, scale: Rationals | None) -> str:
    """Real weights: DequantizeLinear of packed levels where ONNX Runtime takes their width, else float32."""
    weight = op.weight
    if scale is not None and is_int8(weight):
        return _dequantized_weight(s, weight, np.array([float(v) for v in scale]), s.coded.get(node.inputs[0]))
    lo, hi = int(weight.array.min()), int(weight.array.max())
    if scale is not None and fits(lo, hi, INT16) and s.e.opset >= INT16_OPSET:
        s.note(node.name, f"{weight.bits}-bit weights as int16")
        levels = s.e.initializer("weight", weight.array.astype(INT16))
        return _scaled(s, levels, np.array([float(v) for v in scale]))
    s.note(node.name, f"{weight.bits}-bit weights as float32")
    return s.e.initializer("weight", _float(_real_weight(weight, scale)))


def _real_weight(weight: Weight, scale: Rationals | None) -> NDArray[np.floating]:
    """float64 weights, with the scale of a folded affine where one was folded."""
    if scale is None:
        return weight.real()
    return weight.array * np.array([float(v) for v in scale]).reshape(-1, *(1,) * (weight.array.ndim - 1))


def _dequantized_weight(s: State, weight: Weight, scale: NDArray[np.floating], x: Coded | None, finer: int = 1) -> str:
    """Packed levels -> int8 -> DequantizeLinear per output channel; a negative scale turns the channel round.

    Levels whose products with two bytes may leave int16 are stored as uint8, so that the file is exact on every
    processor.
    """
    levels = Levels(weight.array.astype(np.int64), weight.level_set)
    if x is not None and 2 * x.top * max(abs(levels.lo), abs(levels.hi)) > PAIR_MAX:
        return _scaled(s, emit_levels(s.e, levels.plus(UINT8_ZERO), UINT8), scale, UINT8_ZERO)
    value = emit_levels(s.e, levels, INT8)
    if finer > 1:
        value = s.e.node("Mul", [value, s.e.constant(np.array(finer, INT8))], "finer")
    return _scaled(s, value, scale)


def _scaled(s: State, levels: str, scale: NDArray[np.floating], zero: int = 0) -> str:
    """DequantizeLinear per output channel.

    The zero point is spelled out because Gemm is not fused without it. Each layer has its own: under the session option
    x64quantprecision ONNX Runtime makes a uint8 copy of it under its name, and fails on the second.
    """
    zero_point = s.e.initializer("zero_point", np.full(scale.size, zero, s.e.dtype(levels)))
    inputs = [levels, s.e.initializer("scale", _float(scale)), zero_point]
    return s.e.node("DequantizeLinear", inputs, "weight_real", FLOAT, axis=0)


def _float(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _product(s: State, op: Conv2d | Linear, x: str, weight: str, bias: str) -> str:
    """Conv or Gemm on real values."""
    inputs = [x, weight, *([bias] if bias else [])]
    if isinstance(op, Conv2d):
        pads = [before for before, _ in op.pads] + [after for _, after in op.pads]
        settings = {"kernel_shape": op.weight.array.shape[2:], "strides": op.stride, "dilations": op.dilation}
        return s.e.node("Conv", inputs, "product", FLOAT, pads=pads, group=op.groups, **settings)
    return s.e.node("Gemm", inputs, "product", FLOAT, transB=1)
