"""Leaky and parametric ReLU in the real domain."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.ir.types import TensorType, real
from qexport.ops.base import Op, register, rounded


@register
@dataclass(frozen=True, eq=False)
class PRelu(Op):
    """y[:, c] = x if x >= 0 else slope[c] * x.

    Attributes:
        slope: Fractions >= 0 (monotone), length C.
    """

    kind: ClassVar[str] = "prelu"
    domain: ClassVar[str] = "real"
    slope: tuple[Fraction, ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        slope = self._slopes
        lo, hi = (np.where(v >= 0, v, slope * v) for v in (x.lo, x.hi))
        return real(x.shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        slope = self._slopes.reshape(-1, *(1,) * (x.ndim - 2))
        return np.where(x >= 0, x, slope * x)

    @cached_property
    def _slopes(self) -> NDArray[np.float64]:
        return rounded(self.slope)

    def __str__(self) -> str:
        return f"prelu<{len(self.slope)} channels>"
