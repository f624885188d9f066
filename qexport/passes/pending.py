"""The pending affine: what a lowered tensor still owes before its integers are the real values they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qexport.ops import Affine, Clip, Op, PRelu
from qexport.ops.base import rounded

Rationals = NDArray[np.object_]
"""Object array [C] of Fractions."""


def rationals(values: Sequence[Fraction] | NDArray, count: int | None = None) -> Rationals:
    """Object array of Fractions; one value is repeated `count` times."""
    out = np.empty(len(values) if count is None else count, dtype=object)
    out[:] = [Fraction(v) for v in values] if count is None else [Fraction(values[0])] * count
    return out


@dataclass(frozen=True, eq=False)
class Pending:
    """real value = chain(gain[c] * tensor + bias[c]), per channel (docs/arithmetic.md, eq. 2).

    Attributes:
        tensor: integer tensor in the lowered graph.
        gain, bias: exact rationals, [C].
        chain: monotone per-channel functions (Clip, PRelu, Affine) applied after the affine, in order.
        error: proven bound, before the chain, on |exact real value - (gain * tensor + bias)|, for equal codes
            upstream; 0 where the integers are exact.
    """

    tensor: str
    gain: Rationals
    bias: Rationals
    chain: tuple[Op, ...] = ()
    error: float = 0.0

    @property
    def uniform_gain(self) -> Fraction | None:
        """The common gain of all channels, or None."""
        first = self.gain[0]
        return first if all(g == first for g in self.gain) else None

    @property
    def is_exact_integer(self) -> bool:
        """Whether value = gain * tensor with nothing else owed."""
        return not self.chain and not any(self.bias)

    def then_affine(self, op: Affine) -> Pending:
        """Compose with a following affine: into gain and bias, or onto a chain that is already there."""
        if self.chain:
            return replace(self, chain=(*self.chain, op))
        gain, bias = rationals(op.gain), rationals(op.bias)
        error = self.error * max((abs(float(g)) for g in gain), default=0.0)
        return replace(self, gain=self.gain * gain, bias=self.bias * gain + bias, error=error)

    def then(self, op: Op) -> Pending:
        """Compose with a monotone function that stays pending."""
        return replace(self, chain=(*self.chain, op))

    def value(self, channel: int, integer: int) -> Fraction:
        """The exact real value one integer of one channel stands for."""
        v = self.gain[channel] * integer + self.bias[channel]
        for op in self.chain:
            v = apply_exact(op, channel, v)
        return v

    @cached_property
    def _floats(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gain and bias [C], rounded once: they are asked for at every step of a bisection."""
        return rounded(self.gain), rounded(self.bias)

    def float_values(self, integers: NDArray, channels: slice = slice(None)) -> NDArray[np.float64]:
        """float64 approximation of `value` for integers [C, ...] of the given channels."""
        trailing = (1,) * (integers.ndim - 1)

        def column(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return values[channels].reshape(-1, *trailing)

        gain, bias = self._floats
        v = integers * column(gain) + column(bias)
        for op in self.chain:
            if isinstance(op, Affine):
                v = v * column(rounded(op.gain)) + column(rounded(op.bias))
            elif isinstance(op, PRelu):
                v = np.where(v >= 0, v, v * column(rounded(op.slope)))
            else:
                v = op.evaluate(v)
        return v

    def direction(self, channel: int) -> int:
        """+1, -1 or 0: how the real value moves when the integer grows."""
        product = _sign(self.gain[channel])
        for op in self.chain:
            if isinstance(op, Affine):
                product *= _sign(op.gain[channel])
        return product


def apply_exact(op: Op, channel: int, v: Fraction) -> Fraction:
    """One chain function on an exact value."""
    if isinstance(op, Clip):
        if op.lo is not None:
            v = max(v, Fraction(op.lo))
        return v if op.hi is None else min(v, Fraction(op.hi))
    if isinstance(op, PRelu):
        return v if v >= 0 else op.slope[channel] * v
    if isinstance(op, Affine):
        return op.gain[channel] * v + op.bias[channel]
    raise TypeError(f"{op.kind} cannot stand in a chain")


def map_chain(chain: tuple[Op, ...], move: Op) -> tuple[Op, ...]:
    """Carry a chain over an op that moves channels (slice, reshape, pooling)."""

    def moved(values: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
        return tuple(move.map_channels(rationals(values)))

    out: list[Op] = []
    for op in chain:
        if isinstance(op, Affine):
            out.append(Affine(moved(op.gain), moved(op.bias)))
        elif isinstance(op, PRelu):
            out.append(PRelu(moved(op.slope)))
        else:
            out.append(op)
    return tuple(out)


def _sign(value: Fraction) -> int:
    return (value > 0) - (value < 0)
