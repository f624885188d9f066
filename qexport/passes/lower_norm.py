"""Lowering of the L2 norm over channels."""

from __future__ import annotations

from fractions import Fraction

from qexport.errors import UnsupportedOperatorError
from qexport.ir import Node
from qexport.ops import L2Norm
from qexport.ops.l2_norm import ERROR, FRACTION_BITS, SQUARES_LIMIT
from qexport.passes.fixed import Carrier
from qexport.passes.pending import Pending, rationals

UNBOUNDED = 2.0
"""Largest distance of two values of unit vectors: all that is sure where the direction of a short vector is not."""


def lower_l2_norm(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Integers of one unit are normalised as they are: the unit cancels (docs/arithmetic.md, eq. 12 and 13)."""
    op = node.op
    assert isinstance(op, L2Norm)
    x = carrier.integers(node.inputs[0])
    channels = len(x.gain)
    reach = int(carrier.out.types[x.tensor].max_abs)
    if not x.is_exact_integer or x.uniform_gain in (None, 0) or channels * reach**2 >= SQUARES_LIMIT:
        x = carrier.fixed(node.inputs[0], carrier.own_step(node.inputs[0], (channels.bit_length() + 1) // 2))
    unit = x.gain[0]
    if x.error == 0 and op.floor > abs(unit):
        raise UnsupportedOperatorError(
            "the smallest norm lies above norms that occur",
            where=node.name,
            got=f"norms from {float(abs(unit)):.3g} on",
            expected=f"at least {float(op.floor):.3g}",
            remedy="normalise with a smaller eps",
        )
    name = carrier.out.add(node.name, L2Norm(), x.tensor, source=node.source)
    gain = rationals([Fraction(1 if unit > 0 else -1, 2**FRACTION_BITS)], channels)
    error = UNBOUNDED if x.error else float(ERROR + op.added / abs(unit))
    return Pending(name, gain, gain * 0, (), error)
