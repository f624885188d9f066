"""Fully connected layer, in either domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, register, require_int32
from qexport.ops.conv2d import channel_bounds
from qexport.ops.weight import Weight


@register
@dataclass(frozen=True, eq=False)
class Linear(Op):
    """acc[n,o] = sum_i weight[o,i] * in[n,i]; no bias. Integer results are exact and proven to fit int32.

    Attributes:
        weight: [O, I]; plain integer levels in the integer domain.
    """

    kind: ClassVar[str] = "linear"
    weight: Weight

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        o, features = self.weight.array.shape
        if x.shape != (features,):
            raise GraphError("input features do not fit the weight", got=x.shape, expected=(features,))
        lo, hi = channel_bounds(self.weight, x, 1, False)
        if not x.is_integer:
            return real((o,), lo, hi)
        if not self.weight.is_quantized or self.weight.scale is not None:
            raise GraphError("an integer linear layer needs plain integer weights", got=str(self.weight))
        require_int32("linear", lo, hi)
        return integer((o,), lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        if x.dtype.kind == "f":
            return x @ self.weight.real().T
        # Exact: infer() proved every sum below 2**31, far below the 2**53 of float64.
        return (x.astype(np.float64) @ self.weight.array.T.astype(np.float64)).astype(np.int64)
