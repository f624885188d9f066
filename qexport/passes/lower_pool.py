"""Lowering of pooling."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from qexport.ir import Node
from qexport.ir.types import INT32_MAX
from qexport.ops import AvgPool, MaxPool, Rescale, SumPool
from qexport.passes.fixed import Carrier
from qexport.passes.pending import Pending, map_chain, rationals


def lower_max_pool(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """The maximum of the integers is the integer of the maximum wherever the real value rises with them."""
    assert isinstance(node.op, MaxPool)
    x = _rising(carrier, node, sources[0])
    name = carrier.out.add(node.name, node.op, x.tensor, source=node.source)
    return replace(x, tensor=name, chain=map_chain(x.chain, node.op))


def _rising(carrier: Carrier, node: Node, x: Pending) -> Pending:
    """Negate the channels whose real value falls as the integer grows; exact."""
    sign = np.array([-1 if x.direction(c) < 0 else 1 for c in range(len(x.gain))], np.int64)
    if np.all(sign > 0):
        return x
    op = Rescale(sign, sign * 0, 0)
    name = carrier.out.add(carrier.out.unique(f"{node.name}.rising"), op, x.tensor, source=node.source)
    return replace(x, tensor=name, gain=x.gain * rationals(sign.tolist()))


def lower_avg_pool(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Integer sum, times a factor where windows count different numbers of pixels; the rest joins the pending affine.

    docs/arithmetic.md, eq. 9.
    """
    op = node.op
    assert isinstance(op, AvgPool)
    x = carrier.integers(node.inputs[0])
    common, factors = op.integer_form()
    least, most = op.weights_inside(carrier.out.types[x.tensor], factors)
    # A bias is averaged to itself only where every window counts no more and no fewer pixels than it holds.
    biased = any(x.bias) and not least == most == common
    if x.chain or biased or carrier.out.types[x.tensor].max_abs * most > INT32_MAX:
        x = carrier.fixed(node.inputs[0], carrier.own_step(node.inputs[0], (most - 1).bit_length()))
    pool = SumPool(op.kernel, op.stride, op.pads, factors)
    name = carrier.out.add(node.name, pool, x.tensor, source=node.source)
    # factor * sum = common * mean of (gain x + bias), so the affine of the mean is gain / common and the same bias.
    return Pending(name, x.gain / Fraction(common), x.bias, (), x.error)
