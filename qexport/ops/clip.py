"""Clamping: ReLU, ReLU6, hardtanh, in either domain."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, register


@register
@dataclass(frozen=True, eq=False)
class Clip(Op):
    """y = min(max(x, lo), hi); None leaves a side open. ReLU is Clip(0, None).

    Attributes:
        lo, hi: exact bounds; integers in the integer domain.
    """

    kind: ClassVar[str] = "clip"
    lo: Fraction | int | None = None
    hi: Fraction | int | None = None

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.is_integer and any(v is not None and v != int(v) for v in (self.lo, self.hi)):
            raise GraphError("an integer clip needs integer bounds", got=(self.lo, self.hi))
        lo, hi = self.evaluate(x.lo), self.evaluate(x.hi)
        return integer(x.shape, lo, hi) if x.is_integer else real(x.shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        cast = float if x.dtype.kind == "f" else int
        if self.lo is not None:
            x = np.maximum(x, cast(self.lo))
        if self.hi is not None:
            x = np.minimum(x, cast(self.hi))
        return x

    def __str__(self) -> str:
        return f"clip<{self.lo}, {self.hi}>"
