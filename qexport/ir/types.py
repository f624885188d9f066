"""Tensor types of the IR: shape, number type and proven range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)


@dataclass(frozen=True)
class IntType:
    """An integer number type of 1 to 64 bits."""

    bits: int
    signed: bool

    @property
    def min(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    @property
    def name(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"

    @property
    def storage(self) -> np.dtype:
        """The narrowest numpy dtype that holds the type."""
        for width in (8, 16, 32, 64):
            if self.bits <= width:
                return np.dtype(f"{'int' if self.signed else 'uint'}{width}")
        raise ValueError(f"no numpy dtype holds {self.name}")

    @classmethod
    def holding(cls, lo: int, hi: int) -> IntType:
        """The narrowest type that holds every integer of [lo, hi]."""
        if lo >= 0:
            return cls(max(1, int(hi).bit_length()), False)
        return cls(1 + max(int(-lo - 1).bit_length(), int(hi).bit_length() if hi > 0 else 0), True)


UINT8 = IntType(8, False)
INT8 = IntType(8, True)
INT16 = IntType(16, True)
INT32 = IntType(32, True)


@dataclass(frozen=True, eq=False)
class TensorType:
    """Type of one tensor, without its batch axis.

    Attributes:
        shape: per-sample shape, (C, H, W) or (F,); axis 0 is the channel axis.
        lo, hi: proven smallest and largest value per channel, shape [shape[0]]; int64 for integer
            tensors, float64 for real ones.
        number: IntType of an integer tensor, None for a real tensor.
    """

    shape: tuple[int, ...]
    lo: NDArray
    hi: NDArray
    number: IntType | None = None

    @property
    def is_integer(self) -> bool:
        return self.number is not None

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def max_abs(self) -> float:
        """Largest magnitude any value of the tensor can have."""
        return float(max(abs(self.lo.min()), abs(self.hi.max()))) if self.lo.size else 0.0

    def same_as(self, other: TensorType) -> bool:
        return (
            self.shape == other.shape
            and self.number == other.number
            and np.array_equal(self.lo, other.lo)
            and np.array_equal(self.hi, other.hi)
        )

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        if self.number is None:
            return f"real[{shape}]"
        return f"{self.number.name}[{shape}] in [{int(self.lo.min())}, {int(self.hi.max())}]"


def integer(shape: tuple[int, ...], lo: NDArray | int, hi: NDArray | int) -> TensorType:
    """Integer tensor type with per-channel (or scalar) proven range; the number type is the narrowest that fits."""
    lo = np.broadcast_to(np.asarray(lo, np.int64), (shape[0],)).copy()
    hi = np.broadcast_to(np.asarray(hi, np.int64), (shape[0],)).copy()
    return TensorType(shape, lo, hi, IntType.holding(int(lo.min()), int(hi.max())))


def real(shape: tuple[int, ...], lo: NDArray | float, hi: NDArray | float) -> TensorType:
    """Real tensor type with per-channel (or scalar) range."""
    lo = np.broadcast_to(np.asarray(lo, np.float64), (shape[0],)).copy()
    hi = np.broadcast_to(np.asarray(hi, np.float64), (shape[0],)).copy()
    return TensorType(shape, lo, hi, None)
