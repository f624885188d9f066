"""Lowering: the quantized real graph becomes the integer graph (docs/arithmetic.md, section 5).

Requires: output of `quantize_layers`. Ensures: an integer graph that passes `verify(require_integer=True)`, in which
every Step has become a threshold (or a saturating rescale) of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from qexport.ir import Graph, Node, integer, prune, verify
from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Step,
    Transpose,
)
from qexport.passes.fixed import Carrier, FixedPoint
from qexport.passes.folding import Fold
from qexport.passes.lower_layers import lower_border, lower_layer
from qexport.passes.lower_move import lower_concat, lower_move, lower_pad
from qexport.passes.lower_norm import lower_l2_norm
from qexport.passes.lower_pool import lower_avg_pool, lower_max_pool
from qexport.passes.lower_step import lower_step
from qexport.passes.pending import Pending, rationals
from qexport.passes.streams import choose_streams


@dataclass(frozen=True)
class OutputUnit:
    """What one integer of a graph output stands for: value = integer * scale."""

    tensor: str
    scale: Fraction
    error: float


@dataclass(frozen=True)
class Lowered:
    """Result of lowering.

    Attributes:
        graph: integer graph.
        real: the quantized real graph it came from.
        folds: one per Step, by name.
        fixed_points: tensors carried as fixed point, by the real tensor they stand for.
        outputs: unit of every graph output, in order.
    """

    graph: Graph
    real: Graph
    folds: dict[str, Fold]
    fixed_points: dict[str, FixedPoint]
    outputs: tuple[OutputUnit, ...]


Handler = Callable[["Carrier", Node, list[Pending]], Pending]


def lower(real: Graph, ranges: dict[str, tuple[float, float]] | None = None) -> Lowered:
    """Lower a quantized real graph.

    Args:
        real: see `quantize_layers`.
        ranges: calibrated ranges of real tensors, used to narrow residual streams.

    Raises:
        AccumulatorError: a bound leaves int32.
        UnsupportedOperatorError: a combination with no integer form.
    """
    carrier = Carrier(real, Graph(), choose_streams(real, ranges or {}))
    for name, tensor_type in real.inputs.items():
        carrier.out.add_input(name, integer(tensor_type.shape, 0, 255))
        one = rationals([Fraction(1)], tensor_type.channels)
        carrier.states[name] = Pending(name, one, one * 0)
    for node in real.nodes:
        sources = [carrier.states[t] for t in node.inputs]
        carrier.states[node.name] = HANDLERS[type(node.op)](carrier, node, sources)
    outputs = tuple(_finish(carrier, name) for name in real.outputs)
    carrier.out.outputs = [unit.tensor for unit in outputs]
    graph = prune(carrier.out)
    verify(graph, require_integer=True)
    fixed = {name: f for name, f in carrier.fixed_points.items() if f.tensor in graph.types}
    return Lowered(graph, real, carrier.folds, fixed, outputs)


def _finish(carrier: Carrier, name: str) -> OutputUnit:
    """The output as integers of one scale, as they are or on a common power-of-two step."""
    state = carrier.states[name]
    gain = state.uniform_gain
    if gain is None or not state.is_exact_integer or gain < 0:
        state = carrier.fixed(name, carrier.own_step(name))
        gain = state.gain[0]
    return OutputUnit(state.tensor, gain, state.error)


def _affine(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    assert isinstance(node.op, Affine)
    return sources[0].then_affine(node.op)


def _monotone(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    return sources[0].then(node.op)


def _add(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Both operands on the stream's step, then an integer sum; 16-bit streams saturate."""
    stream = carrier.streams[node.name]
    left, right = (carrier.fixed(t, stream.step, stream.bits) for t in node.inputs)
    name = carrier.out.add(node.name, Add(), left.tensor, right.tensor, source=node.source)
    error = left.error + right.error
    if stream.bits < 32:
        name = carrier.out.add(f"{node.name}.saturated", Clip(*carrier.limits(stream.bits)), name)
    carrier.fixed_points[node.name] = FixedPoint(name, stream.step, error, stream.bits)
    return Pending(name, left.gain, left.bias, (), error)


HANDLERS: dict[type[Op], Handler] = {
    Affine: _affine,
    Clip: _monotone,
    PRelu: _monotone,
    Step: lower_step,
    Conv2d: lower_layer,
    Linear: lower_layer,
    BorderBias: lower_border,
    Add: _add,
    AvgPool: lower_avg_pool,
    MaxPool: lower_max_pool,
    L2Norm: lower_l2_norm,
    Slice: lower_move,
    Reshape: lower_move,
    Transpose: lower_move,
    Pad: lower_pad,
    Concat: lower_concat,
}
