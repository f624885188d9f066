"""Elementwise sum of two tensors with one unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, register, require_int32


@register
@dataclass(frozen=True, eq=False)
class Add(Op):
    """y = a + b; shapes are equal. In the integer domain the sum is proven to fit int32."""

    kind: ClassVar[str] = "add"

    def infer(self, *inputs: TensorType) -> TensorType:
        a, b = inputs
        if a.shape != b.shape or a.is_integer != b.is_integer:
            raise GraphError("operands of an addition differ", got=str(a), expected=str(b))
        lo, hi = a.lo + b.lo, a.hi + b.hi
        if not a.is_integer:
            return real(a.shape, lo, hi)
        require_int32("add", lo, hi)
        return integer(a.shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        a, b = inputs
        return a + b
