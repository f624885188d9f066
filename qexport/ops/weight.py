"""Weights of convolutions and linear layers, real or quantized."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qexport.ops.base import rounded


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight tensor [O, I/groups, ...].

    Attributes:
        array: float64 real weights, or int32 levels.
        scale: for levels in a real graph: exact scale per output channel, length O. None for float
            weights and in integer graphs, where the scale has moved into thresholds and multipliers.
        input_unit: the real value one integer step of each input channel stands for, length I, where the levels
            were fitted to integer inputs (float layers); None where all channels of the input share one unit.
        level_set: the levels the training scheme allows, ascending; None where any integer of the
            width may occur (float layers quantized by qexport).
        edge_bits: width that was asked for when qexport quantized a float layer, 0 for trained low-bit weights.
    """

    array: NDArray
    scale: tuple[Fraction, ...] | None = None
    input_unit: tuple[Fraction, ...] | None = None
    level_set: tuple[int, ...] | None = None
    edge_bits: int = 0

    @property
    def is_quantized(self) -> bool:
        return self.array.dtype.kind == "i"

    @property
    def bits(self) -> int:
        """Bits one stored weight needs: of a code for a known level set, else of the widest level."""
        if not self.is_quantized:
            return 64
        if self.level_set is not None:
            return max(1, (len(self.level_set) - 1).bit_length())
        peak = int(np.abs(self.array).max(initial=0))
        return 1 + max(1, peak.bit_length())

    def real(self) -> NDArray[np.float64]:
        """The real value of every weight, [O, I/groups, ...]."""
        if not self.is_quantized:
            return self.array
        if self.scale is None:
            return self.array.astype(np.float64)
        trailing = (1,) * (self.array.ndim - 1)
        values = self.array * self._scales.reshape(-1, *trailing)
        return values if self.input_unit is None else values / spread_over_groups(self._units, self.array)

    @cached_property
    def bounds(self) -> dict[Hashable, tuple[NDArray, NDArray]]:
        """Bounds of the products with inputs of some range, kept by qexport.ops.conv2d.channel_bounds."""
        return {}

    @cached_property
    def _scales(self) -> NDArray[np.float64]:
        # Scales are kept, not their product with the levels: that is fast to make and takes 8 bytes a weight.
        return rounded(self.scale or ())

    @cached_property
    def _units(self) -> NDArray[np.float64]:
        return rounded(self.input_unit or ())

    def __str__(self) -> str:
        shape = "x".join(map(str, self.array.shape))
        return f"{f'int{self.bits}' if self.is_quantized else 'float'}[{shape}]"


def spread_over_groups(per_input: NDArray, weight: NDArray) -> NDArray:
    """A quantity per input channel [I] laid out beside grouped weights [O, I/groups, ...]: [O, I/groups, 1, ...]."""
    o, per_group = weight.shape[:2]
    table = per_input.reshape(-1, per_group)  # [groups, I/groups]
    return np.repeat(table, o // len(table), axis=0).reshape(o, per_group, *(1,) * (weight.ndim - 2))
