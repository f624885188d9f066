"""Per-channel affine map of the real domain: what batch norm, biases and scales are."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, real
from qexport.ops.base import Op, register, rounded


@register
@dataclass(frozen=True, eq=False)
class Affine(Op):
    """y[:, c] = gain[c] * x[:, c] + bias[c] with exact rational gain and bias.

    Attributes:
        gain, bias: Fractions, length C. A float parameter enters as the exact rational of its float value.
    """

    kind: ClassVar[str] = "affine"
    domain: ClassVar[str] = "real"
    gain: tuple[Fraction, ...]
    bias: tuple[Fraction, ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if len(self.gain) != x.channels or len(self.bias) != x.channels:
            raise GraphError("affine parameters do not fit the channels", got=len(self.gain), expected=x.channels)
        gain, bias = self.floats()
        ends = np.stack([gain * x.lo + bias, gain * x.hi + bias])
        return real(x.shape, ends.min(0), ends.max(0))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        gain, bias = self.floats()
        trailing = (1,) * (x.ndim - 2)
        return x * gain.reshape(-1, *trailing) + bias.reshape(-1, *trailing)

    def floats(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """gain and bias rounded to float64, shape [C] each; read-only."""
        return self._floats

    @cached_property
    def _floats(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return rounded(self.gain), rounded(self.bias)

    def __str__(self) -> str:
        return f"affine<{len(self.gain)} channels>"
