"""Lowering of ops that move values: slice, padding, concatenation, reshape, transpose."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from qexport.errors import GraphError
from qexport.ir import Node
from qexport.ops import Clip, Concat, Op, Pad, Reshape, Transpose
from qexport.passes.fixed import Carrier
from qexport.passes.pending import Pending, map_chain, rationals


def lower_move(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Slice, reshape, transpose: integers move, what is owed moves with them.

    Where channels are joined that owe different things, they are settled on one step before.
    """
    (x,) = sources
    moved = _moved(x, node.op)
    if moved is None:
        x = carrier.fixed(node.inputs[0], joint_step(carrier, node.name))
        moved = _moved(x, node.op)
        assert moved is not None  # one step, nothing else owed
    gain, bias, chain = moved
    name = carrier.out.add(node.name, node.op, x.tensor, source=node.source)
    return Pending(name, gain, bias, chain, x.error)


def _moved(x: Pending, op: Op) -> tuple[np.ndarray, np.ndarray, tuple[Op, ...]] | None:
    """Gain, bias and chain carried over the op; None where they differ between channels it joins."""
    try:
        return op.map_channels(x.gain), op.map_channels(x.bias), map_chain(x.chain, op)
    except GraphError:
        return None


def joint_step(carrier: Carrier, name: str) -> Fraction:
    """Step for what is settled in front of `name`: that of the tensor it is rearranged and joined into.

    So the heads of a detector get one step, and their concatenation needs none of its own.
    """
    readers = carrier.real.consumers()
    while len(readers[name]) == 1 and isinstance(readers[name][0].op, Reshape | Transpose | Concat):
        name = readers[name][0].name
    return carrier.own_step(name)


def lower_pad(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Zero padding is exact on integers whose zero is the real zero."""
    assert isinstance(node.op, Pad)
    x = carrier.integers(node.inputs[0])
    if not x.is_exact_integer or (any(node.op.pads[0]) and x.uniform_gain is None):
        x = carrier.fixed(node.inputs[0], carrier.own_step(node.inputs[0]))
    name = carrier.out.add(node.name, node.op, x.tensor, source=node.source)
    gain = rationals([x.gain[0]], carrier.real.types[node.name].channels) if any(node.op.pads[0]) else x.gain
    return Pending(name, gain, gain * 0, (), x.error)


def lower_concat(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Per-channel affines concatenate; different chains, or different affines of joined channels, are settled first."""
    op = node.op
    assert isinstance(op, Concat)
    if any(s.chain for s in sources):
        sources = [carrier.integers(t) for t in node.inputs]
    if not all(_may_join(s, sources[0], op) for s in sources[1:]):
        step = joint_step(carrier, node.name)
        sources = [carrier.fixed(t, step) for t in node.inputs]
    name = carrier.out.add(node.name, op, *(s.tensor for s in sources), source=node.source)
    gain = op.map_channels(*(s.gain for s in sources))
    bias = op.map_channels(*(s.bias for s in sources))
    return Pending(name, gain, bias, sources[0].chain, max(s.error for s in sources))


def _may_join(x: Pending, first: Pending, op: Concat) -> bool:
    """Whether two operands owe the same clips and, where channels are joined, the same affine.

    Per-channel functions never count as the same.
    """
    same_chain = len(x.chain) == len(first.chain) and all(
        isinstance(a, Clip) and isinstance(b, Clip) and (a.lo, a.hi) == (b.lo, b.hi)
        for a, b in zip(x.chain, first.chain, strict=True)
    )
    if not same_chain or not op.mixes_channels:
        return same_chain
    return bool(np.all(x.gain == first.gain) and np.all(x.bias == first.bias))
