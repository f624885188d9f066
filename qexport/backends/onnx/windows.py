"""A convolution and the threshold behind it as one QLinearConv of scale 1, and comparisons of the bytes it gives.

QLinearConv computes saturate(round((acc + bias) * scale)) to a byte. With every scale 1 nothing is rounded:

    byte = min(max(sign * acc + 1 - first, 0), 255),    first = the lowest threshold of the channel             (1)

is a window of the accumulator in which each threshold T of the channel stands at a byte of its own, T - first + 1 in
1 .. 255. So byte >= T - first + 1 exactly where sign * acc >= T, on any runtime: integers below 2**24 survive float32,
and 1 times a number is that number however it is rounded (docs/decisions/008-unit-scale-convolutions.md).

ONNX Runtime packs the weights of a QLinearConv once, those of a ConvInteger at every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import FLOAT, INT8, UINT8, Emitter
from qexport.backends.onnx.products import emit_byte, range_with_zero, signed_weight_limit
from qexport.backends.onnx.threshold import SEARCH_FROM, Comparisons, comparison_sum
from qexport.backends.onnx.weights import Levels, emit_levels
from qexport.ir import Graph, Node, TensorType
from qexport.ops import Conv2d, Threshold

BYTE_MAX = 255

BIAS = "/bias"
"""The int32 bias of the QLinearConv behind quantizer X is the initializer X/bias."""

EXACT_FLOAT = 2**24
"""Integers up to this magnitude are float32 numbers."""


@dataclass(frozen=True, eq=False)
class Window:
    """A convolution, the threshold behind it, and how the second reads the bytes of the first.

    Attributes:
        conv, threshold: the two nodes.
        bias: int64 [C], 1 - first of equation (1).
        steps: comparisons of the byte; a step that a channel never takes, or always takes, has the bar 256, which no
            byte reaches; the increments of those always taken are part of `base`.
    """

    conv: Node
    threshold: Node
    bias: NDArray[np.int64]
    steps: Comparisons


def find_windows(graph: Graph) -> dict[str, Window]:
    """Convolutions whose only reader is a threshold that allows the form, by the threshold's name."""
    readers = graph.consumers()
    found = {}
    for node in graph.find(Conv2d):
        following = readers[node.name]
        if node.name in graph.outputs or len(following) != 1 or not isinstance(following[0].op, Threshold):
            continue
        window = _window(graph, node, following[0])
        if window is not None:
            found[following[0].name] = window
    return found


def lower_window(e: Emitter, window: Window) -> str:
    """QLinearConv and the comparisons of its bytes; returns the value of the codes."""
    conv = window.conv.op
    assert isinstance(conv, Conv2d)
    name = window.conv.inputs[0]
    x = emit_byte(e, name, range_with_zero(e.graph.types[name])[0], UINT8)
    one = e.constant(np.array(1, FLOAT))
    # ONNX Runtime may make a uint8 copy of a layer's weights and of their zero point, under its name (session.py).
    zero = e.initializer("zero_point", np.array(0, INT8))
    bias = e.initializer(BIAS[1:], window.bias.astype(np.int32))
    inputs = [x.value, one, e.constant(np.array(x.zero_point, UINT8)), _weight(e, window), one, zero]
    inputs += [one, e.constant(np.array(0, UINT8)), bias]
    pads = [before for before, _ in conv.pads] + [after for _, after in conv.pads]
    settings = {"kernel_shape": conv.weight.array.shape[2:], "strides": conv.stride, "dilations": conv.dilation}
    value = e.node("QLinearConv", inputs, "window", UINT8, pads=pads, group=conv.groups, **settings)
    rank = len(e.graph.types[name].shape)

    def reached(i: int) -> str:
        bar = e.per_channel(window.steps.bars[:, i] - 1, rank, UINT8)
        return e.node("Greater", [value, bar], "reached", bool)

    return comparison_sum(e, window.steps, value, reached, rank)


def _weight(e: Emitter, window: Window) -> str:
    """int8 weights, packed, times the sign of each channel; the product is folded when the model is loaded."""
    conv, threshold = window.conv.op, window.threshold.op
    assert isinstance(conv, Conv2d) and isinstance(threshold, Threshold)
    scope, e.scope = e.scope, window.conv.name  # bytes of a layer's weights are counted under its name
    value = emit_levels(e, Levels(conv.weight.array.astype(np.int64), conv.weight.level_set), INT8)
    e.scope = scope
    if np.all(threshold.sign > 0):
        return value
    return e.node("Mul", [value, e.constant(threshold.sign.astype(INT8).reshape(-1, 1, 1, 1))], "turned")


def _window(graph: Graph, conv: Node, threshold: Node) -> Window | None:
    """The window form of two nodes; None where it does not hold or does not pay."""
    op, steps = conv.op, threshold.op
    assert isinstance(op, Conv2d) and isinstance(steps, Threshold)
    x, acc = graph.types[conv.inputs[0]], graph.types[conv.name]
    lo, hi = range_with_zero(x)
    if int(np.abs(op.weight.array).max()) > signed_weight_limit(hi - lo):
        return None
    if op.groups not in (1, acc.channels) or steps.levels.size > SEARCH_FROM:
        return None
    found = place_steps(steps, acc)
    return None if found is None else Window(conv, threshold, *found)


def window_thresholds(bars: NDArray[np.uint8], bias: NDArray[np.int32]) -> NDArray[np.int64]:
    """Thresholds of sign * accumulator that the bars of one comparison stand for, of the channels that can reach it."""
    places, moved = np.broadcast_arrays(bars.astype(np.int64).reshape(-1) + 1, bias.astype(np.int64))
    return (places - moved)[places <= BYTE_MAX]


def place_steps(op: Threshold, acc: TensorType) -> tuple[NDArray[np.int64], Comparisons] | None:
    """Bias of each channel and the comparisons of the byte; None where a channel's thresholds lie too far apart.

    Args:
        op: the threshold.
        acc: type of the accumulator it reads.
    """
    sign = np.broadcast_to(op.sign.astype(np.int64), acc.channels)
    lo, hi = np.minimum(sign * acc.lo, sign * acc.hi), np.maximum(sign * acc.lo, sign * acc.hi)
    bars = np.broadcast_to(op.thresholds, (acc.channels, op.thresholds.shape[1]))
    always = bars <= lo[:, None]
    inside = ~always & (bars <= hi[:, None])
    first = np.where(inside, bars, hi[:, None] + 1).min(axis=1, initial=int(hi.max()) + 1)
    first = np.minimum(first, hi + 1)
    places = np.where(inside, bars - first[:, None] + 1, BYTE_MAX + 1)
    bias = 1 - first
    ends = np.abs(np.concatenate([lo + bias, hi + bias]))
    if np.any(places[inside] > BYTE_MAX) or max(ends.max(), np.abs(bias).max()) >= EXACT_FLOAT:
        return None
    levels = op.levels.astype(np.int64)
    gaps, base = np.diff(levels), levels[0] + (always * np.diff(levels)).sum(axis=1)
    taken = inside.any(axis=0)
    return bias, Comparisons(places[:, taken], gaps[taken], base, np.ones(acc.channels, np.int64))
