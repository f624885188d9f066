"""Lowering: the quantized real graph becomes the integer graph (docs/arithmetic.md, section 5).

Requires: output of `quantize_layers`. Ensures: an integer graph that passes `verify(require_integer=True)`, in which
every Step has become a threshold (or a saturating rescale) of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qexport.ir import Graph, Node, integer, prune, verify
from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Step,
)
from qexport.passes.fixed import Carrier, FixedPoint
from qexport.passes.folding import Fold
from qexport.passes.lower_layers import lower_border, lower_layer
from qexport.passes.lower_pool import lower_avg_pool, lower_max_pool
from qexport.passes.lower_step import lower_step
from qexport.passes.pending import Pending, map_chain, rationals
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


def _move(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Slice or reshape: integers move, what is owed moves with them."""
    (x,) = sources
    name = carrier.out.add(node.name, node.op, x.tensor, source=node.source)
    moved = node.op.map_channels
    return Pending(name, moved(x.gain), moved(x.bias), map_chain(x.chain, node.op), x.error)


def _pad(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Zero padding is exact on integers whose zero is the real zero."""
    assert isinstance(node.op, Pad)
    x = carrier.integers(node.inputs[0])
    if not x.is_exact_integer or (any(node.op.pads[0]) and x.uniform_gain is None):
        x = carrier.fixed(node.inputs[0], carrier.own_step(node.inputs[0]))
    name = carrier.out.add(node.name, node.op, x.tensor, source=node.source)
    gain = rationals([x.gain[0]], carrier.real.types[node.name].channels) if any(node.op.pads[0]) else x.gain
    return Pending(name, gain, gain * 0, (), x.error)


def _concat(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Per-channel affines concatenate; different chains are settled first, on one step."""
    if any(s.chain for s in sources):
        sources = [carrier.integers(t) for t in node.inputs]
    if any(not _same_chain(s.chain, sources[0].chain) for s in sources[1:]):
        step = max(carrier.own_step(t) for t in node.inputs)
        sources = [carrier.fixed(t, step) for t in node.inputs]
    name = carrier.out.add(node.name, Concat(), *(s.tensor for s in sources), source=node.source)
    gain = np.concatenate([s.gain for s in sources])
    bias = np.concatenate([s.bias for s in sources])
    return Pending(name, gain, bias, sources[0].chain, max(s.error for s in sources))


def _same_chain(a: tuple[Op, ...], b: tuple[Op, ...]) -> bool:
    """Whether two chains are the same clips; per-channel functions never count as the same."""
    return len(a) == len(b) and all(
        isinstance(x, Clip) and isinstance(y, Clip) and (x.lo, x.hi) == (y.lo, y.hi) for x, y in zip(a, b, strict=True)
    )


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
    Slice: _move,
    Reshape: _move,
    Pad: _pad,
    Concat: _concat,
}
