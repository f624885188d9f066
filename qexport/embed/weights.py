"""Forms of weights in the generated program."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.ops import Conv2d, Linear

MOST_PRODUCTS = 6
"""Planes of the weights times planes of the codes up to which counting ones is faster than multiplying."""

PLANE_WORDS = 3
"""The counting kernel takes as many words at once."""


@dataclass(frozen=True)
class PlaneForm:
    """weight = offset + step * code, codes of `planes` bits.

    Attributes:
        words: 32-bit words of one plane of a row.
    """

    offset: int
    step: int
    planes: int
    words: int


def rows_of(op: Conv2d | Linear) -> NDArray[np.int64]:
    """Weights [O, K] in the order [window row][window column][input channel of the group]."""
    array = op.weight.array.astype(np.int64)
    return (array.transpose(0, 2, 3, 1) if array.ndim == 4 else array).reshape(len(array), -1)


def plane_form(op: Conv2d, input_planes: int) -> PlaneForm | None:
    """How the weights are written as planes of bits, or None where multiplying is better."""
    taps = op.weight.array[0].size
    words = -(-taps // (32 * PLANE_WORDS)) * PLANE_WORDS
    values = np.unique(op.weight.array).astype(np.int64)
    step = math.gcd(*np.diff(values).tolist()) or 1
    planes = max(1, (int(values[-1] - values[0]) // step).bit_length())
    if op.weight.array.shape[1] % 8 or planes * input_planes > MOST_PRODUCTS or planes > 4 or 32 * words > 2 * taps:
        return None
    return PlaneForm(int(values[0]), step, planes, words)


def pack_planes(rows: NDArray[np.int64], form: PlaneForm) -> NDArray[np.uint8]:
    """Rows [O, K] as bytes [O, planes, 4 words], the first weight in the lowest bit of the first byte."""
    codes = (rows - form.offset) // form.step
    planes = codes[:, None, :] >> np.arange(form.planes)[:, None] & 1
    padded = np.pad(planes, ((0, 0), (0, 0), (0, 32 * form.words - rows.shape[1])))
    return np.packbits(padded.astype(np.uint8), axis=2, bitorder="little")


@dataclass(frozen=True)
class PackedForm:
    """Codes of 1, 2 or 4 bits into a table of levels.

    Attributes:
        levels: int8, one for every code.
        words: 32-bit words of a row.
    """

    bits: int
    levels: tuple[int, ...]
    words: int


def packed_form(rows: NDArray[np.int64]) -> PackedForm | None:
    """The narrowest codes for weights [O, K] of at most 16 levels of 8 bits, or None."""
    values = np.unique(rows)
    if len(values) > 16 or values[0] < -128 or values[-1] > 127:
        return None
    bits = next(b for b in (1, 2, 4) if len(values) <= 1 << b)
    levels = np.pad(values, (0, (1 << bits) - len(values)))
    return PackedForm(bits, tuple(levels.tolist()), -(-padded_length(rows.shape[1]) * bits // 32))


def pack_codes(rows: NDArray[np.int64], form: PackedForm) -> NDArray[np.uint32]:
    """Rows [O, K] as words [O, words], the first weight in the lowest bits of the first word."""
    codes = np.searchsorted(np.array(form.levels)[: len(np.unique(rows))], rows)
    per_word = 32 // form.bits
    padded = np.pad(codes, ((0, 0), (0, form.words * per_word - rows.shape[1])))
    shifted = (
        padded.reshape(len(rows), form.words, per_word).astype(np.uint64)
        << np.arange(per_word, dtype=np.uint64) * form.bits
    )
    return shifted.sum(2).astype(np.uint32)


def padded_length(taps: int) -> int:
    """The kernels take four weights at once."""
    return -(-taps // 4) * 4
