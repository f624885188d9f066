"""The integer form of an activation quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import INT32_MAX, INT32_MIN, TensorType, integer
from qexport.ops.base import Op, register


@register
@dataclass(frozen=True, eq=False)
class Threshold(Op):
    """code = #{i : sign[c] * x >= thresholds[c, i]};  y = levels[code] (docs/arithmetic.md, eq. 5).

    Canonical form: thresholds[c] ascending and within [min, max + 1] of sign[c] * x, so unreachable steps
    are kept and n is the same for every channel.

    Attributes:
        thresholds: int64 [C, n], or [1, n] where all channels share them; values fit int32.
        sign: int8 [C] or [1], +1 or -1 (-1: the real gain of the channel is negative).
        levels: int32 [n + 1], the integer each code stands for.
    """

    kind: ClassVar[str] = "threshold"
    domain: ClassVar[str] = "integer"
    thresholds: NDArray[np.int64]
    sign: NDArray[np.int8]
    levels: NDArray[np.int32]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        rows, n_steps = self.thresholds.shape
        if rows not in (1, x.channels) or self.sign.shape != (rows,) or self.levels.shape != (n_steps + 1,):
            raise GraphError("threshold parameters do not fit", got=(rows, n_steps), expected=x.channels)
        if np.any(self.thresholds[:, 1:] < self.thresholds[:, :-1]):
            raise GraphError("thresholds must ascend")
        if self.thresholds.size and (self.thresholds.min() < INT32_MIN or self.thresholds.max() > INT32_MAX):
            raise GraphError("thresholds must fit int32", got=(self.thresholds.min(), self.thresholds.max()))
        sign = self.sign.astype(np.int64)
        first = np.minimum(sign * x.lo, sign * x.hi)
        last = np.maximum(sign * x.lo, sign * x.hi)
        low = (first[:, None] >= self.thresholds).sum(1)
        high = (last[:, None] >= self.thresholds).sum(1)
        reach = [self.levels[a : b + 1] for a, b in zip(low, high, strict=True)]
        return integer(x.shape, np.array([r.min() for r in reach]), np.array([r.max() for r in reach]))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        trailing = (1,) * (x.ndim - 2)
        signed = x * self.sign.astype(np.int64).reshape(-1, *trailing)
        code = np.zeros(x.shape, np.int64)
        for i in range(self.thresholds.shape[1]):  # one pass per step keeps memory at one tensor
            code += signed >= self.thresholds[:, i].reshape(-1, *trailing)
        return self.levels.astype(np.int64)[code]
