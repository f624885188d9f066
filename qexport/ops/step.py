"""The frozen quantizer in the real domain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.ir.types import TensorType, real
from qexport.ops.base import Op, register, rounded
from qexport.stepfunction import StepFunction


@register
@dataclass(frozen=True, eq=False)
class Step(Op):
    """y = scale * levels[#{i : x >= t_i}] + offset, elementwise (docs/arithmetic.md, eq. 1).

    Attributes:
        function: thresholds, levels, scale.
        calibrated: True where qexport chose the quantizer for an activation that training left float.
    """

    kind: ClassVar[str] = "step"
    domain: ClassVar[str] = "real"
    function: StepFunction
    calibrated: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        values = self.values()
        # Only the steps the input can reach count, so that ranges stay tight.
        first = np.searchsorted(self.function.thresholds, x.lo, side="right")
        last = np.searchsorted(self.function.thresholds, x.hi, side="right")
        reach = [values[a : b + 1] for a, b in zip(first, last, strict=True)]
        return real(x.shape, np.array([r.min() for r in reach]), np.array([r.max() for r in reach]))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return self.values()[self.function.codes(x)]

    def values(self) -> NDArray[np.float64]:
        """Exact real values of all codes, rounded to float64 [n + 1]; read-only."""
        return self._values

    @cached_property
    def _values(self) -> NDArray[np.float64]:
        f = self.function
        return rounded(f.scale * int(level) + f.offset for level in f.levels)

    def __str__(self) -> str:
        return f"step<levels={self.function.levels.tolist()[:9]}, scale={float(self.function.scale):.6g}>"
