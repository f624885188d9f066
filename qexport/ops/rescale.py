"""Fixed-point requantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError, GraphError
from qexport.ir.types import INT32_MAX, INT32_MIN, TensorType, integer
from qexport.ops.base import Op, register


@register
@dataclass(frozen=True, eq=False)
class Rescale(Op):
    """y = clip((x * multiplier[c] + addend[c]) >> shift, lo, hi), floor shift (docs/arithmetic.md, eq. 6).

    The rounding constant 2**(shift - 1) is part of the addend. Products and sums are proven below 2**62, and
    below 2**31 where shift is 0.

    Attributes:
        multiplier, addend: int64 [C] (or [1], shared by all channels); the multiplier fits int32.
        shift: 0 .. 62.
        lo, hi: saturation, int32.
    """

    kind: ClassVar[str] = "rescale"
    domain: ClassVar[str] = "integer"
    multiplier: NDArray[np.int64]
    addend: NDArray[np.int64]
    shift: int
    lo: int = INT32_MIN
    hi: int = INT32_MAX

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if self.multiplier.shape not in ((1,), (x.channels,)) or self.addend.shape != self.multiplier.shape:
            raise GraphError("rescale parameters do not fit", got=self.multiplier.shape, expected=(x.channels,))
        lo, hi = self.exact_sums(x)
        limit = INT32_MAX if self.shift == 0 else 2**62
        worst = max(abs(v) for v in (*lo, *hi))
        if worst > limit or np.abs(self.multiplier).max() > INT32_MAX:
            raise AccumulatorError(
                "rescale could overflow", got=f"|x * multiplier + addend| up to {worst}", expected=f"at most {limit}"
            )
        ends = [[min(max(v >> self.shift, self.lo), self.hi) for v in side] for side in (lo, hi)]
        return integer(x.shape, np.array(ends[0], np.int64), np.array(ends[1], np.int64))

    def exact_sums(self, x: TensorType) -> tuple[list[int], list[int]]:
        """Smallest and largest x * multiplier + addend per channel, in Python integers that cannot wrap."""
        m = np.broadcast_to(self.multiplier, (x.channels,)).tolist()
        r = np.broadcast_to(self.addend, (x.channels,)).tolist()
        pairs = [sorted((int(a) * mc + rc, int(b) * mc + rc)) for a, b, mc, rc in zip(x.lo, x.hi, m, r, strict=True)]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        trailing = (1,) * (x.ndim - 2)
        total = x * self.multiplier.reshape(-1, *trailing) + self.addend.reshape(-1, *trailing)
        return np.clip(total >> self.shift, self.lo, self.hi)
