"""Convolutions and linear layers in the QDQ flavour.

Where a layer's sums go through affines and clips into a step function and nowhere else, all of it becomes
DequantizeLinear -> Conv -> QuantizeLinear, which ONNX Runtime fuses to QLinearConv: the affine lives in the weight
scales and an int32 bias chosen so that codes are those of the exact thresholds; thresholds that are not evenly spaced
are compared with the byte that comes out (requantize.py). In front of a residual sum held as bytes the layer gives
bytes (qdq_sums.py). Elsewhere it gives floats, with directly following affines folded into weight scales and bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import INT64, UINT8
from qexport.backends.onnx.movement import emit_slice
from qexport.backends.onnx.qdq_products import PAIR_MAX, float_product, is_int8, layer_scale, quantized_product
from qexport.backends.onnx.qdq_state import BYTE_MAX, ByteFormat, Coded, Encoding, State
from qexport.backends.onnx.qdq_steps import byte_codes, max_pooled, saturated
from qexport.backends.onnx.requantize import (
    BIAS_LIMIT,
    AccumulatorBars,
    Requantization,
    accumulator_bars,
    placed_requantization,
    requantization,
    spread_requantization,
)
from qexport.errors import AccumulatorError
from qexport.ir import Node, TensorType, integer
from qexport.ir.types import INT32_MAX
from qexport.ops import Affine, BorderBias, Clip, Conv2d, Linear, MaxPool, Step, Weight
from qexport.passes.pending import Pending, Rationals, rationals
from qexport.stepfunction import StepFunction

INT8_MAX = 127

FORMATS_COMPARED = 2
"""Formats of a sum that are compared where none is exact."""

FEW_CHANNELS = 4
"""Up to so many channels are padded one by one, each with its own value."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that can be computed on bytes.

    Attributes:
        node: the convolution or linear layer.
        op: its op.
        x: its input.
        scale: real value of one accumulator step, [O].
        last: the layer, or the border correction behind it, which padding with bytes replaces.
        finer: what its weights can be multiplied by, see requantize.py.
        padding: byte of every input channel around the image; empty where zeros are right.
    """

    node: Node
    op: Conv2d | Linear
    x: Coded
    scale: Rationals
    last: Node
    finer: int
    padding: tuple[int, ...] = ()


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
    layer = _on_bytes(s, node, op)
    if layer is not None and (_emit_codes(s, layer) or _emit_bytes(s, layer)):
        return
    scale, affines = layer_scale(op.weight), affines_behind(s, node)
    if scale is None or not affines:
        s.finish_float(node.name, float_product(s, node, scale, None))
        return
    pending = _pending(affines, scale)
    s.absorbed.update(after.name for after in affines)
    s.finish_float(affines[-1].name, float_product(s, node, pending.gain, pending.bias))


def affines_behind(s: State, node: Node) -> list[Node]:
    """Affines without zero gains that directly follow, each the only reader of what comes before."""
    found: list[Node] = []
    after = s.sole_reader(node.name)
    while after is not None and isinstance(after.op, Affine) and all(after.op.gain):
        found.append(after)
        after = s.sole_reader(after.name)
    return found


def _on_bytes(s: State, node: Node, op: Conv2d | Linear) -> Layer | None:
    """The layer with a border correction behind it, if its input is bytes and its weights are int8."""
    x, scale = s.coded.get(node.inputs[0]), layer_scale(op.weight)
    if x is None or scale is None or not is_int8(op.weight):
        return None
    layer = Layer(node, op, x, scale * x.scale, node, finer_factor(op.weight, x))
    border = s.sole_reader(node.name)
    if border is None or not isinstance(border.op, BorderBias) or not border.op.padding:
        return layer
    if not s.rounds and any(v.denominator != 1 for v in border.op.padding):
        return layer
    padding = tuple(round(v) + x.zero_point for v in border.op.padding)
    if min(padding) < 0 or max(padding) > x.top or (len(set(padding)) > 1 and len(padding) > FEW_CHANNELS):
        return layer
    return replace(layer, last=border, padding=padding)


def finer_factor(weight: Weight, x: Coded) -> int:
    """What weights of few bits can be multiplied by: they stay int8, pairs of products int16, sums half of int32.

    The distances of levels stay int8, too: OpenVINO unpacks by factor * gap * code + factor * base, all in int8.
    """
    levels = weight.level_set or (int(weight.array.min()), int(weight.array.max()))
    peak = max(max(levels), -min(levels), max(levels) - min(levels), 1)
    reach = peak * x.top * weight.array[0].size
    return max(1, min(INT8_MAX // peak, PAIR_MAX // (2 * peak * x.top or 1), INT32_MAX // (2 * reach or 1)))


def _emit_codes(s: State, layer: Layer) -> bool:
    """Layer, tail and step as one quantized layer; False where no such form applies."""
    tail = _tail(s, layer.last)
    if tail is None:
        return False
    function, name = tail.step.function, tail.nodes[-1].name
    encoding, acc = Encoding.of(function), _accumulator_type(s, layer)
    if encoding is None or acc is None:
        return False
    pending, targets = _pending(tail.nodes[:-1], layer.scale), encoding.targets(function)
    found = _requantized(function, pending, acc, encoding, layer.finer)
    is_code = found is not None
    if found is None and np.all(np.diff(targets) > 0):
        found = spread_requantization(pending, function, acc, layer.finer)
    if found is None or (found.moved and not is_code and not s.rounds):
        return False
    if found.moved:
        s.note(name, f"thresholds moved by {found.moved} accumulator steps in all")
    value = saturated(s, _quantized(s, layer, found.bias, found.multiplier), found.low, found.top)
    s.absorbed.update(follower.name for follower in tail.nodes)
    if not is_code:
        s.note(name, f"{function.n_steps} thresholds kept as byte comparisons")
        pool = s.sole_reader(name)
        if pool is not None and isinstance(pool.op, MaxPool):  # fewer values to compare
            s.absorbed.add(pool.name)
            name, value = pool.name, max_pooled(s.e, pool.op, value)
        value = byte_codes(s, value, found.bars, targets)
    s.finish_coded(name, Coded(value, encoding.scale, encoding.zero_point, encoding.top))
    return True


def _emit_bytes(s: State, layer: Layer) -> bool:
    """Layer and affines as bytes for a residual sum; False where the sum is not held as bytes."""
    affines = affines_behind(s, layer.last)
    last = affines[-1] if affines else layer.last
    acc = _accumulator_type(s, layer)
    if acc is None:
        return False
    pending = _pending(affines, layer.scale)
    if last.name in s.choices:
        found = _chosen(s, last.name, pending, acc, layer.finer)
    elif last.name in s.formats:
        found = _rounded(pending, s.formats[last.name], layer.finer)
    else:
        return False
    if found is None:
        return False
    if found.moved:
        s.note(last.name, f"thresholds moved by {found.moved} accumulator steps in all")
    value = saturated(s, _quantized(s, layer, found.bias, found.multiplier), found.low, found.top)
    s.absorbed.update(after.name for after in affines)
    s.finish_coded(last.name, s.formats[last.name].holding(value))
    return True


def _chosen(s: State, tensor: str, pending: Pending, acc: TensorType, finer: int) -> Requantization | None:
    """Bytes in the first format that reaches its bars where the exact values do, or in the best if that may be."""
    choices = s.choices[tensor]
    known: dict[tuple[float, ...], AccumulatorBars] = {}
    for exact in (True, False) if s.rounds else (True,):
        best: Requantization | None = None
        for formats in choices if exact else choices[:FORMATS_COMPARED]:
            values, places = zip(*formats[tensor].bars, strict=True)
            thresholds = np.array(values)
            if values not in known:
                known[values] = accumulator_bars(pending, thresholds, acc)
            found = placed_requantization(
                pending, thresholds, np.array(places), acc, finer, known=known[values], exact=exact
            )
            if found is not None and (best is None or found.moved < best.moved):
                best = found
                s.formats |= formats
            if best is not None and not best.moved:
                break
        if best is not None:
            return best
    return None


def _rounded(pending: Pending, chosen: ByteFormat, finer: int) -> Requantization | None:
    """The nearest bytes of a format; None where no int32 bias gives them."""
    steps = pending.gain / (chosen.scale * finer)  # bytes per step of the sum
    bias = [round((b / chosen.scale + chosen.zero_point) / m) for b, m in zip(pending.bias, steps, strict=True)]
    if max(map(abs, bias)) > BIAS_LIMIT:
        return None
    return Requantization(np.array(bias, np.int64), np.array([float(m) for m in steps]), 0, BYTE_MAX, (), 0)


def _quantized(s: State, layer: Layer, bias: NDArray[np.int64], multiplier: NDArray[np.floating]) -> str:
    """The bytes of a layer, around whose input stands what its padding says."""
    op = layer.op
    if not layer.padding:
        return quantized_product(s, op, layer.x, bias, multiplier, layer.finer)
    assert isinstance(op, Conv2d)
    s.absorbed.add(layer.last.name)
    s.note(layer.node.name, f"padded with whole pixels {', '.join(map(str, layer.padding))}")
    x = replace(layer.x, value=_padded(s, op, layer))
    return quantized_product(s, replace(op, pads=((0, 0), (0, 0))), x, bias, multiplier, layer.finer)


def _padded(s: State, op: Conv2d, layer: Layer) -> str:
    """The bytes of the input with a border, of one value per channel."""
    e, (rows, cols) = s.e, op.pads
    pads = e.constant(np.array([0, 0, rows[0], cols[0], 0, 0, rows[1], cols[1]], INT64))

    def padded(value: str, byte: int) -> str:
        return e.node("Pad", [value, pads, e.constant(np.array(byte, UINT8))], "padded")

    if len(set(layer.padding)) == 1:
        return padded(layer.x.value, layer.padding[0])
    shape = s.graph.types[layer.node.inputs[0]].shape
    whole = tuple((0, n, 1) for n in shape[1:])
    channels = [emit_slice(e, ((c, c + 1, 1), *whole), layer.x.value, shape) for c in range(shape[0])]
    parts = [padded(channel, byte) for channel, byte in zip(channels, layer.padding, strict=True)]
    return e.node("Concat", parts, "padded", axis=1)


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


def _pending(followers: tuple[Node, ...] | list[Node], gain: Rationals) -> Pending:
    """The chain from the accumulator through affines and clips."""
    pending = Pending("", gain, rationals([Fraction(0)], len(gain)))
    for node in followers:
        pending = pending.then_affine(node.op) if isinstance(node.op, Affine) else pending.then(node.op)
    return pending


def _requantized(
    function: StepFunction, pending: Pending, acc: TensorType, encoding: Encoding, finer: int
) -> Requantization | None:
    """Bias and multiplier that give the bytes of a step function; None where none do.

    Thresholds that are not evenly spaced are accepted if every code comes out exact all the same. Only a single
    step can be more than one byte high.
    """
    if not encoding.gap or (encoding.gap > 1 and function.n_steps > 1):
        return None
    return requantization(pending, function, acc, encoding.gap, finer, exact=not function.is_uniform)


def _accumulator_type(s: State, layer: Layer) -> TensorType | None:
    """Proven range of the integer sums over bytes less their zero point; None where they leave int32."""
    x = layer.x
    codes = integer(s.graph.types[layer.node.inputs[0]].shape, -x.zero_point, x.top - x.zero_point)
    try:
        return replace(layer.op, weight=Weight(layer.op.weight.array)).infer(codes)
    except AccumulatorError:
        return None
