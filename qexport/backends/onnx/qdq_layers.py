"""Convolutions and linear layers in the QDQ flavour.

Where a layer's sums go through affines and clips into a step function and nowhere else, all of it becomes
DequantizeLinear -> Conv -> QuantizeLinear, which ONNX Runtime fuses to QLinearConv: the affine lives in the weight
scales and an int32 bias chosen so that codes are those of the exact thresholds; thresholds that are not evenly spaced
are compared with the byte that comes out (requantize.py). Elsewhere the layer gives floats, with a directly following
affine folded into weight scales and bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import FLOAT, INT8, INT16, UINT8, fits
from qexport.backends.onnx.qdq_state import Coded, Encoding, State
from qexport.backends.onnx.qdq_steps import compared_bytes, saturated
from qexport.backends.onnx.requantize import Requantization, Window, requantization, window
from qexport.backends.onnx.weights import Levels, emit_levels
from qexport.errors import AccumulatorError
from qexport.ir import Node, TensorType, integer
from qexport.ops import Affine, Clip, Conv2d, Linear, Step, Weight
from qexport.passes.pending import Pending, Rationals, rationals

INT16_OPSET = 21
"""First opset whose DequantizeLinear takes int16."""


@dataclass(frozen=True)
class Tail:
    """What follows a layer and becomes part of it.

    Attributes:
        nodes: affines and clips in order, each the only reader of what comes before, then the step.
        step: the quantizer at the end.
    """

    nodes: tuple[Node, ...]
    step: Step


def emit_layer(s: State, node: Node, op: Conv2d | Linear) -> None:
    """One layer, with what can be folded into it."""
    if _emit_fused(s, node, op):
        return
    scale, bias, last = _layer_scale(op.weight), None, node
    after = s.sole_reader(node.name)
    if after is not None and isinstance(after.op, Affine) and scale is not None and all(after.op.gain):
        gain, bias, last = rationals(after.op.gain), after.op.bias, after
        scale = scale * gain
        s.absorbed.add(after.name)
    weight = _float_weight(s, node, op, scale)
    s.finish_float(last.name, _product(s, op, node.inputs[0], weight, _float_bias(s, bias)))


def _emit_fused(s: State, node: Node, op: Conv2d | Linear) -> bool:
    """Layer, tail and step as one quantized layer; False where no such form applies."""
    x, tail, scale = s.coded.get(node.inputs[0]), _tail(s, node), _layer_scale(op.weight)
    if x is None or tail is None or scale is None or not _is_int8(op.weight):
        return False
    encoding, acc = Encoding.of(tail.step.function), _accumulator_type(s, node, op, x)
    if encoding is None or acc is None:
        return False
    pending, name = _pending(tail, scale * x.scale), tail.nodes[-1].name
    found = _requantized(tail, pending, acc, encoding)
    if found is not None:
        if found.moved:
            s.notes.append(f"{name}: thresholds moved by {found.moved} accumulator steps in all")
        value = _quantized_product(s, node, op, x, found)
        codes = saturated(s, value, found.low, found.top)
    else:
        targets = encoding.targets(tail.step.function)
        whole = window(pending, tail.step.function, acc)
        if whole is None or np.any(np.diff(targets) < 0):
            return False
        s.notes.append(f"{name}: {tail.step.function.n_steps} thresholds kept as byte comparisons in the QDQ file")
        value = saturated(s, _quantized_product(s, node, op, x, whole), 0, whole.top)
        codes = compared_bytes(s, value, whole.bars, targets, len(acc.shape))
    s.absorbed.update(follower.name for follower in tail.nodes)
    s.finish_coded(name, Coded(codes, encoding.scale, encoding.zero_point, encoding.top))
    return True


def _quantized_product(s: State, node: Node, op: Conv2d | Linear, x: Coded, parameters: Requantization | Window) -> str:
    """The layer as DequantizeLinear, Conv, QuantizeLinear: clip(round(multiplier * (acc + bias)), 0, 255)."""
    multiplier = parameters.multiplier
    weight = _dequantized_weight(s, op.weight, multiplier / float(x.scale))
    bias = s.e.node(
        "DequantizeLinear",
        [s.e.initializer("bias", parameters.bias.astype(np.int32)), s.e.initializer("bias_scale", _float(multiplier))],
        "bias",
        FLOAT,
        axis=0,
    )
    value = _product(s, op, node.inputs[0], weight, bias)
    ends = [s.e.constant(np.array(1, FLOAT)), s.e.constant(np.array(0, UINT8))]
    return s.e.node("QuantizeLinear", [value, *ends], "codes", UINT8)


def _tail(s: State, node: Node) -> Tail | None:
    """Affines and clips up to a step, if nothing else reads any tensor on the way."""
    nodes: list[Node] = []
    follower = s.sole_reader(node.name)
    while follower is not None and isinstance(follower.op, Affine | Clip):
        nodes.append(follower)
        follower = s.sole_reader(follower.name)
    if follower is None or not isinstance(follower.op, Step):
        return None
    return Tail((*nodes, follower), follower.op)


def _pending(tail: Tail, gain: Rationals) -> Pending:
    """The chain from the accumulator to the step."""
    pending = Pending("", gain, gain * 0)
    for node in tail.nodes[:-1]:
        pending = pending.then_affine(node.op) if isinstance(node.op, Affine) else pending.then(node.op)
    return pending


def _requantized(tail: Tail, pending: Pending, acc: TensorType, encoding: Encoding) -> Requantization | None:
    """Bias and multiplier that give the bytes of the step at the end of the tail; None where none do.

    Thresholds that are not evenly spaced are accepted if every code comes out exact all the same. Only a single
    step can be more than one byte high.
    """
    function = tail.step.function
    if not encoding.gap or (encoding.gap > 1 and function.n_steps > 1):
        return None
    found = requantization(pending, function, acc, encoding.gap)
    return found if found is not None and (function.is_uniform or not found.moved) else None


def _accumulator_type(s: State, node: Node, op: Conv2d | Linear, x: Coded) -> TensorType | None:
    """Proven range of the integer sums over bytes less their zero point; None where they leave int32."""
    codes = integer(s.graph.types[node.inputs[0]].shape, -x.zero_point, x.top - x.zero_point)
    try:
        return replace(op, weight=Weight(op.weight.array)).infer(codes)
    except AccumulatorError:
        return None


def _is_int8(weight: Weight) -> bool:
    return fits(int(weight.array.min()), int(weight.array.max()), INT8)


def _layer_scale(weight: Weight) -> Rationals | None:
    """Real value of one weight level per output channel [O]; None where input channels differ in unit."""
    scale = rationals(weight.scale or ())
    if weight.input_unit is None:
        return scale
    unit = weight.input_unit[0]
    return scale / unit if all(u == unit for u in weight.input_unit) else None


def _float_weight(s: State, node: Node, op: Conv2d | Linear, scale: Rationals | None) -> str:
    """Real weights: DequantizeLinear of packed levels where ONNX Runtime takes their width, else float32."""
    weight = op.weight
    if scale is not None and _is_int8(weight):
        return _dequantized_weight(s, weight, np.array([float(v) for v in scale]))
    lo, hi = int(weight.array.min()), int(weight.array.max())
    if scale is not None and fits(lo, hi, INT16) and s.e.opset >= INT16_OPSET:
        s.notes.append(f"{node.name}: {weight.bits}-bit weights as int16 in the QDQ file")
        levels = s.e.initializer("weight", weight.array.astype(INT16))
        return _scaled(s, levels, np.array([float(v) for v in scale]))
    s.notes.append(f"{node.name}: {weight.bits}-bit weights as float32 in the QDQ file")
    return s.e.initializer("weight", _float(_real_weight(weight, scale)))


def _real_weight(weight: Weight, scale: Rationals | None) -> NDArray[np.floating]:
    """float64 weights, with the scale of a folded affine where one was folded."""
    if scale is None:
        return weight.real()
    return weight.array * np.array([float(v) for v in scale]).reshape(-1, *(1,) * (weight.array.ndim - 1))


def _dequantized_weight(s: State, weight: Weight, scale: NDArray[np.floating]) -> str:
    """Packed levels -> int8 -> DequantizeLinear per output channel; a negative scale turns the channel round."""
    return _scaled(s, emit_levels(s.e, Levels(weight.array.astype(np.int64), weight.level_set), INT8), scale)


def _scaled(s: State, levels: str, scale: NDArray[np.floating]) -> str:
    """DequantizeLinear per output channel.

    The zero point is spelled out because Gemm is not fused without it. Each layer has its own: ONNX Runtime makes a
    uint8 copy of it under its name where it turns int8 weights into uint8, and fails on the second (session.py).
    """
    zero_point = s.e.initializer("zero_point", np.zeros(scale.size, s.e.dtype(levels)))
    inputs = [levels, s.e.initializer("scale", _float(scale)), zero_point]
    return s.e.node("DequantizeLinear", inputs, "weight_real", FLOAT, axis=0)


def _float(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _float_bias(s: State, bias: tuple[Fraction, ...] | None) -> str:
    return "" if bias is None else s.e.initializer("bias", _float(np.array([float(b) for b in bias])))


def _product(s: State, op: Conv2d | Linear, x: str, weight: str, bias: str) -> str:
    """Conv or Gemm on real values."""
    e = s.e
    inputs = [s.real(x), weight, *([bias] if bias else [])]
    if isinstance(op, Conv2d):
        pads = [before for before, _ in op.pads] + [after for _, after in op.pads]
        settings = {"kernel_shape": op.weight.array.shape[2:], "strides": op.stride, "dilations": op.dilation}
        return e.node("Conv", inputs, "product", FLOAT, pads=pads, group=op.groups, **settings)
    return e.node("Gemm", inputs, "product", FLOAT, transB=1)
