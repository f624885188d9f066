"""Integer levels of a quantized weight tensor, recovered from its float32 values alone. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.errors import FreezeError
from qexport.stepfunction import LEVEL_TOLERANCE, MAX_LEVEL, MIN_LEVEL, recover_levels

N_SAMPLE = 256
"""Values that must fit a scale before the whole tensor is compared with it: it keeps float tensors cheap to reject."""

MAX_CODEBOOK = 256
"""Most distinct values, per tensor or per channel, of a weight that is known to be quantized."""

MAX_UNKNOWN_CODEBOOK = 16
"""The same for a tensor that only looks quantized."""

EVIDENCE_DIGITS = 6.0
"""Only if random floats would fit integer levels with a probability below 10^-6 does a tensor count as quantized."""


@dataclass(frozen=True)
class QuantizedWeight:
    """values == scale * levels, up to `max_error`.

    Attributes:
        levels: int32, the shape of the weight, each in -128..127.
        scale: positive exact rational; or one per output channel (axis 0).
        level_set: the distinct levels of the whole tensor, ascending.
        values: float32, the shape of the weight, the exact outputs of the original quantizer.
        max_error: largest |values - scale * levels| over the largest |value| of its tensor or channel. At most
            LEVEL_TOLERANCE (float32 rounding) if the levels are the scheme's own, larger for a fitted int8 codebook.
    """

    levels: NDArray[np.int32]
    scale: Fraction | tuple[Fraction, ...]
    level_set: tuple[int, ...]
    values: NDArray[np.float32]
    max_error: float

    @property
    def bits(self) -> int:
        """Bits a code needs: ceil(log2(number of levels)), at least 1."""
        return max(1, (len(self.level_set) - 1).bit_length())

    @property
    def is_fitted(self) -> bool:
        """Whether the levels are an int8 codebook fitted to values that have no common step."""
        return self.max_error > LEVEL_TOLERANCE


@dataclass(frozen=True)
class _Row:
    """One tensor or channel: levels int32 [n] and their scale."""

    levels: NDArray[np.int32]
    scale: Fraction


N_CHANNELS_TRIED = 16
"""Channels looked at to see that scales of their own would save nothing; one usually settles it."""


def recover_weight(values: NDArray[np.float32], name: str, *, known_quantized: bool = False) -> QuantizedWeight | None:
    """Levels and scale of a weight tensor, with one scale or one per output channel, or a fitted codebook.

    Levels within -128..127 that reproduce every value up to float32 rounding are preferred; of one scale and many, the
    one that takes less storage (per-channel scales that are powers of two also have a common step, but a small one).
    Where there are none but the values are few, each is replaced by the nearest of scale * (-127..127), with the scale
    that makes the largest error smallest; `max_error` reports it.

    Args:
        values: float32, output channels first.
        name: of the weight, for messages.
        known_quantized: the values come from a quantizer, so that a tensor too small to prove it counts as quantized.

    Returns:
        None if the tensor is float: too many distinct values, or too few to tell.

    Raises:
        FreezeError: a value is NaN or infinite.
    """
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise FreezeError(
            "a weight is not finite",
            where=name,
            got=f"{np.count_nonzero(~np.isfinite(values))} NaN or infinite values of {values.size}",
            expected="finite float32 values",
            remedy="the checkpoint is damaged or its training diverged; use an earlier one",
        )
    whole = values.reshape(1, -1)
    channels = values.reshape(values.shape[0], -1) if values.ndim > 1 and values.size else whole
    exact = []
    for rows in (whole, channels):
        found = _integer_rows(rows)
        if found is not None and (known_quantized or _evidence_digits(found) >= EVIDENCE_DIGITS):
            exact.append(_assemble(values, _share_levels(found)))
            if _no_channel_saves_bits(exact[0], channels):
                break
    if exact:
        return min(exact, key=_stored_bits)
    limit = MAX_CODEBOOK if known_quantized else MAX_UNKNOWN_CODEBOOK
    for rows in (whole, channels):
        found = _codebook_rows(rows, limit)
        if found is not None:
            return _assemble(values, found)
    return None


def _integer_rows(rows: NDArray[np.float32]) -> list[_Row] | None:
    """Integer levels of every row, or None as soon as one has none; rows float32 [r, n]."""
    found = []
    for row in rows:
        fitted = _integer_row(row)
        if fitted is None:
            return None
        found.append(fitted)
    return found


def _integer_row(row: NDArray[np.float32]) -> _Row | None:
    peak = np.argmax(np.abs(row)) if row.size else 0
    sample = np.unique(np.append(row[:: max(1, row.size // N_SAMPLE)], row[peak : peak + 1]))
    fitted = _apply_scale(row, sample)
    if fitted is not None or sample.size == row.size:
        return fitted
    # The sample may have missed a rare level; with all distinct values there is no doubt left.
    distinct = np.unique(row)
    return _apply_scale(row, distinct) if distinct.size <= 4 * N_SAMPLE else None


def _apply_scale(row: NDArray[np.float32], sample: NDArray[np.float32]) -> _Row | None:
    """Levels of `row` with the scale that `sample` has, or None where one of the two does not fit."""
    found = recover_levels(sample, -MIN_LEVEL)
    if found is None:
        return None
    levels = np.rint(row.astype(np.float64) / float(found[1]))
    tolerance = LEVEL_TOLERANCE * np.max(np.abs(row), initial=0.0)
    if levels.max(initial=0) > MAX_LEVEL or np.any(np.abs(row - levels * float(found[1])) > tolerance):
        return None
    return _Row(levels.astype(np.int32), found[1])


def _evidence_digits(rows: Iterable[_Row]) -> float:
    """-log10 of the probability that random floats would fit these levels as well as they do.

    A row's largest value always fits. Every other non-zero one falls on the grid 1..L of relative width
    LEVEL_TOLERANCE with probability 2 * LEVEL_TOLERANCE * L, and L such grids were tried. A row of zeros says nothing,
    but a tensor of zeros needs no evidence.
    """
    digits, only_zeros = 0.0, True
    for row in rows:
        n_nonzero = int(np.count_nonzero(row.levels))
        if n_nonzero:
            only_zeros = False
            largest = int(np.abs(row.levels).max())
            digits += -(n_nonzero - 1) * math.log10(2 * LEVEL_TOLERANCE * largest) - math.log10(largest)
    return math.inf if only_zeros else digits


def _share_levels(rows: list[_Row]) -> list[_Row]:
    """Where a channel lacks levels, its own smallest integers may lie outside the others'; scale it up into them.

    With {0, 1, 2, 3, 4, 6, 8, 10} a channel that only has 6, 8 and 10 would come out as 3, 4 and 5.
    """
    magnitudes = [frozenset(np.unique(np.abs(row.levels[row.levels != 0])).tolist()) for row in rows]
    reference = max(magnitudes, key=lambda m: (len(m), -max(m, default=0)))
    shared = []
    for row, own in zip(rows, magnitudes, strict=True):
        factors = range(1, max(reference, default=0) // max(own, default=1) + 1)
        factor = next((k for k in factors if reference.issuperset(k * level for level in own)), 1)
        shared.append(_Row(row.levels * np.int32(factor), row.scale / factor))
    return shared


def _no_channel_saves_bits(weight: QuantizedWeight, channels: NDArray[np.float32]) -> bool:
    """Whether some channel alone has too many values for codes of fewer bits: then its own scale saves nothing."""
    if isinstance(weight.scale, tuple):
        return False
    fewer = 2 ** (weight.bits - 1)
    return any(np.unique(channel).size > fewer for channel in channels[:N_CHANNELS_TRIED])


def _stored_bits(weight: QuantizedWeight) -> int:
    """Codes and 32 bits a scale."""
    n_scales = len(weight.scale) if isinstance(weight.scale, tuple) else 1
    return weight.levels.size * weight.bits + 32 * n_scales


def _codebook_rows(rows: NDArray[np.float32], limit: int) -> list[_Row] | None:
    """The nearest int8 levels of every row, or None if a row has over `limit` or hardly any repeated values."""
    found = []
    for row in rows:
        if np.unique(row[: 4 * limit]).size > limit:  # spares a float tensor the sort of all its values
            return None
        distinct, inverse = np.unique(row, return_inverse=True)
        if distinct.size > limit or 2 * distinct.size > row.size:
            return None
        peak = float(np.max(np.abs(distinct)))
        if peak == 0.0:
            found.append(_Row(np.zeros(row.size, np.int32), Fraction(1)))
            continue
        largest = np.arange(1, MAX_LEVEL + 1)
        exact = distinct.astype(np.float64) * (largest[:, None] / peak)  # (127, n_distinct)
        best = int(np.argmin(np.max(np.abs(exact - np.rint(exact)), axis=1) / largest))
        levels = np.rint(exact[best]).astype(np.int32)[inverse]
        found.append(_Row(levels, Fraction(peak) / int(largest[best])))
    return found


def _assemble(values: NDArray[np.float32], rows: list[_Row]) -> QuantizedWeight:
    levels = np.concatenate([row.levels for row in rows]).reshape(values.shape)
    errors = [0.0]
    for row, exact in zip(rows, values.reshape(len(rows), -1), strict=True):
        error = np.max(np.abs(exact - row.levels * float(row.scale)), initial=0.0)
        errors.append(float(error) / (float(np.max(np.abs(exact), initial=0.0)) or 1.0))
    scale = rows[0].scale if len(rows) == 1 else tuple(row.scale for row in rows)
    return QuantizedWeight(levels, scale, tuple(np.unique(levels).tolist()), values, max(errors))
