"""The QDQ flavour: float ONNX with QuantizeLinear and DequantizeLinear, for runtimes that fuse them.

Not integer-only and not bit-exact: requantization inside fused kernels is float32. What is not plain QDQ is said
in the notes (metadata_props entry QDQ_NOTES_KEY).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

from qexport.backends.onnx.emitter import FLOAT, INT32, INT64, UINT8, Emitter
from qexport.backends.onnx.integer import FORMAT_KEY, MAX_OPSET, assemble, check_opset
from qexport.backends.onnx.movement import emit_slice, lower_reshape, lower_transpose
from qexport.backends.onnx.qdq_layers import emit_layer
from qexport.backends.onnx.qdq_state import BYTE_MAX, Coded, State
from qexport.backends.onnx.qdq_steps import emit_step, max_pooled, saturated
from qexport.backends.onnx.qdq_sums import byte_sums
from qexport.errors import UnsupportedOperatorError
from qexport.ir import Graph, Node
from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    BorderBias,
    Clip,
    Concat,
    L2Norm,
    MaxPool,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Transpose,
)

QDQ_NOTES_KEY = "qexport.qdq_notes"
"""metadata_props key of the notes, one a line; present also where there are none."""


def to_qdq(
    real_graph: Graph,
    *,
    metadata: Mapping[str, str],
    opset: int = MAX_OPSET,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    fuse_all: bool = False,
) -> onnx.ModelProto:
    """Write a quantized real graph as a QDQ model.

    The input is the uint8 image, the outputs are float32 of the graph's names. Real tensors that a value of the
    model carries have that value's name; those folded into a neighbour have none.

    Args:
        real_graph: what `quantize_layers` returns.
        metadata: strings for metadata_props; the keys of the backends are added.
        opset: version of the default operator set, 18 to 25.
        ranges: (lo, hi) of real tensors that residual sums and their operands hardly ever leave; what is missing counts
            as the whole proven range.
        fuse_all: round residual sums to bytes, and what stands around the image to whole pixels, so that ONNX Runtime
            fuses every convolution of a network of few bits: the format "onnx-qdq8". Without it both are exact, or
            float (qdq_sums.py).

    Raises:
        OptionError: the opset is not supported.
        UnsupportedOperatorError: an op of the graph has no QDQ form.
    """
    check_opset(opset)
    sums = byte_sums(real_graph, ranges or {}, rounded=fuse_all)
    s = State(Emitter(real_graph, opset), real_graph.consumers(), dict(sums.rounded), sums.choices, fuse_all)
    for name in real_graph.inputs:
        s.e.declare(name, UINT8)
        s.coded[name] = Coded(name, Fraction(1), 0, BYTE_MAX)
    for node in real_graph.nodes:
        if node.name in s.absorbed:
            continue
        s.e.enter(node.name)
        if node.op.kind not in EMITTERS:
            raise UnsupportedOperatorError("no QDQ form", where=node.name, got=node.op.kind)
        EMITTERS[node.op.kind](s, node, node.op)
    notes = {FORMAT_KEY: "onnx-qdq8" if fuse_all else "onnx-qdq", QDQ_NOTES_KEY: "\n".join(s.notes)}
    return assemble(s.e, {**metadata, **notes}, s.carried)


def qdq_notes(model: onnx.ModelProto) -> list[str]:
    """What of a model written by `to_qdq` is not plain QDQ."""
    return [line for p in model.metadata_props if p.key == QDQ_NOTES_KEY for line in p.value.splitlines()]


def _emit_affine(s: State, node: Node, op: Affine) -> None:
    """gain * x + bias per channel, without what changes nothing."""
    value, rank = s.real(node.inputs[0]), len(s.graph.types[node.name].shape)
    if any(gain != 1 for gain in op.gain):
        value = s.e.node("Mul", [value, s.float_constant([float(g) for g in op.gain], rank)], "scaled")
    if any(op.bias):
        value = s.e.node("Add", [value, s.float_constant([float(b) for b in op.bias], rank)], "shifted")
    s.finish_float(node.name, value)


def _emit_clip(s: State, node: Node, op: Clip) -> None:
    """On bytes where its bounds are bytes; what cuts nothing off leaves no trace."""
    coded = s.coded.get(node.inputs[0])
    if coded is not None:
        low, top = (_byte(coded, bound, end) for bound, end in ((op.lo, 0), (op.hi, coded.top)))
        if (low, top) == (0, coded.top) and node.name not in s.graph.outputs:
            s.coded[node.name] = coded
            return
        if low is not None and top is not None:
            s.finish_coded(node.name, replace(coded, value=saturated(s, coded.value, low, top), top=top))
            return
    value = s.real(node.inputs[0])
    if op.hi is None and op.lo == 0:
        value = s.e.node("Relu", [value], "relu")
    elif op.lo is not None or op.hi is not None:
        ends = ["" if bound is None else s.e.constant(np.array(float(bound), FLOAT)) for bound in (op.lo, op.hi)]
        value = s.e.node("Clip", [value, *ends], "clipped")
    s.finish_float(node.name, value)


def _byte(coded: Coded, bound: Fraction | int | None, end: int) -> int | None:
    """The byte of a bound, `end` where there is no bound among the bytes, None where it lies between two."""
    if bound is None:
        return end
    byte = Fraction(bound) / coded.scale + coded.zero_point
    if not 0 <= byte <= coded.top:
        return end if (byte < 0) == (end == 0) else None
    return int(byte) if byte.denominator == 1 else None


def _emit_prelu(s: State, node: Node, op: PRelu) -> None:
    rank = len(s.graph.types[node.name].shape)
    slope = s.float_constant([float(v) for v in op.slope], rank)
    s.finish_float(node.name, s.e.node("PRelu", [s.real(node.inputs[0]), slope], "prelu"))


def _emit_add(s: State, node: Node, op: Add) -> None:
    total, chosen = s.e.node("Add", [s.real(tensor) for tensor in node.inputs], "sum"), s.formats.get(node.name)
    if chosen is None:
        s.finish_float(node.name, total)
        return
    coded = chosen.holding(total)
    s.finish_coded(node.name, replace(coded, value=s.quantized(total, coded)))


def _emit_border_bias(s: State, node: Node, op: BorderBias) -> None:
    """The table stays small in the file and is expanded when the model is loaded."""
    bias = s.e.initializer("border", op.values.astype(FLOAT))
    for axis, classes in ((1, op.rows), (2, op.cols)):
        bias = s.e.node("Gather", [bias, s.e.constant(classes.astype(INT32))], "border_bias", axis=axis)
    s.finish_float(node.name, s.e.node("Add", [s.real(node.inputs[0]), bias], "sum"))


def _emit_avg_pool(s: State, node: Node, op: AvgPool) -> None:
    """The mean over all of a window; where it counts fewer pixels, times area / pixels by rows and columns.

    Bytes whose sum is a byte stay bytes, in units of 1 / area.
    """
    pads = [before for before, _ in op.pads] + [after for _, after in op.pads]
    settings: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride, "pads": pads, "count_include_pad": 1}
    value = s.e.node("AveragePool", [s.real(node.inputs[0])], "mean", **settings)
    for axis, divisors in enumerate(op.divisors or ()):
        share = (op.kernel[axis] / np.array(divisors)).astype(FLOAT)
        if np.any(share != 1):
            value = s.e.node("Mul", [value, s.e.constant(share.reshape(-1, 1) if axis == 0 else share)], "mean")
    coded, area = s.coded.get(node.inputs[0]), op.kernel[0] * op.kernel[1]
    if coded is None or op.divisors is not None or area * coded.top > BYTE_MAX:
        s.finish_float(node.name, value)
        return
    total = Coded(value, coded.scale / area, coded.zero_point * area, coded.top * area)
    s.finish_coded(node.name, replace(total, value=s.quantized(value, total)))


def _emit_max_pool(s: State, node: Node, op: MaxPool) -> None:
    _finish_moved(s, node, lambda value: max_pooled(s.e, op, value))


def _emit_l2_norm(s: State, node: Node, op: L2Norm) -> None:
    x, e = s.real(node.inputs[0]), s.e
    norm = e.node("ReduceL2", [x, e.constant(np.array([1], INT64))], "norm", keepdims=1)
    smallest = max(float(op.floor), float(np.finfo(FLOAT).tiny))  # 0 / 0 where all channels are zero
    norm = e.node("Max", [norm, e.constant(np.array(smallest, FLOAT))], "norm")
    if op.added:
        norm = e.node("Add", [norm, e.constant(np.array(float(op.added), FLOAT))], "norm")
    s.finish_float(node.name, e.node("Div", [x, norm], "normalised"))


def _emit_slice(s: State, node: Node, op: Slice) -> None:
    shape = s.graph.types[node.inputs[0]].shape
    _finish_moved(s, node, lambda value: emit_slice(s.e, op.ranges, value, shape))


def _emit_reshape(s: State, node: Node, op: Reshape) -> None:
    _finish_moved(s, node, lambda value: lower_reshape(s.e, op, value))


def _emit_transpose(s: State, node: Node, op: Transpose) -> None:
    _finish_moved(s, node, lambda value: lower_transpose(s.e, op, value))


def _emit_pad(s: State, node: Node, op: Pad) -> None:
    pads = s.e.constant(np.array([0, *(b for b, _ in op.pads), 0, *(a for _, a in op.pads)], INT64))
    coded = s.coded.get(node.inputs[0])
    zero = s.e.constant(np.array(0, FLOAT) if coded is None else np.array(coded.zero_point, UINT8))
    _finish_moved(s, node, lambda value: s.e.node("Pad", [value, pads, zero], "padded"))


def _emit_concat(s: State, node: Node, op: Concat) -> None:
    """On bytes where all operands share scale and zero point."""
    coded = [s.coded.get(tensor) for tensor in node.inputs]
    first = coded[0]
    if first is not None and all(
        c is not None and (c.scale, c.zero_point) == (first.scale, first.zero_point) for c in coded
    ):
        joined = s.e.node("Concat", [c.value for c in coded if c is not None], "joined", axis=1 + op.axis)
        top = max(c.top for c in coded if c is not None)
        s.finish_coded(node.name, replace(first, value=joined, top=top))
    else:
        s.finish_float(node.name, s.e.node("Concat", [s.real(t) for t in node.inputs], "joined", axis=1 + op.axis))


def _finish_moved(s: State, node: Node, move: Callable[[str], str]) -> None:
    """Move bytes where the input is bytes, else floats."""
    coded = s.coded.get(node.inputs[0])
    if coded is None:
        s.finish_float(node.name, move(s.real(node.inputs[0])))
    else:
        s.finish_coded(node.name, replace(coded, value=move(coded.value)))


EMITTERS: dict[str, Callable[..., None]] = {
    "add": _emit_add,
    "affine": _emit_affine,
    "avg_pool": _emit_avg_pool,
    "border_bias": _emit_border_bias,
    "clip": _emit_clip,
    "concat": _emit_concat,
    "conv2d": emit_layer,
    "l2_norm": _emit_l2_norm,
    "linear": emit_layer,
    "max_pool": _emit_max_pool,
    "pad": _emit_pad,
    "prelu": _emit_prelu,
    "reshape": _emit_reshape,
    "slice": _emit_slice,
    "step": emit_step,
    "transpose": _emit_transpose,
}
"""Op kind -> function (state, node, op) that emits nodes and finishes the node's tensor."""
