"""Lowering of pooling."""

from __future__ import annotations

import math
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
    """Integer sum; 1 / area joins the pending affine (docs/arithmetic.md, eq. 9)."""
    op = node.op
    assert isinstance(op, AvgPool)
    x = carrier.integers(node.inputs[0])
    padded = any(map(any, op.pads))
    bound = carrier.out.types[x.tensor].max_abs * op.area
    if x.chain or bound > INT32_MAX or (padded and any(x.bias)):
        x = carrier.fixed(node.inputs[0], carrier.own_step(node.inputs[0], math.ceil(math.log2(op.area))))
    name = carrier.out.add(node.name, SumPool(op.kernel, op.stride, op.pads), x.tensor, source=node.source)
    # sum = area * mean of (gain x + bias), so the affine of the mean is gain / area and the same bias.
    return Pending(name, x.gain / Fraction(op.area), x.bias, (), x.error)
