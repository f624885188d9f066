"""Weights as rows of bits (docs/packed-format.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed.format import MAX_WEIGHT
from qexport.backends.packed.sections import refused
from qexport.errors import GraphError
from qexport.ops import Weight

MAX_CODE_BITS = 8
TRITS = 5
"""Ternary codes in a byte: 3**5 = 243 <= 256."""

_POWERS_OF_3 = 3 ** np.arange(TRITS)


@dataclass(frozen=True)
class Coding:
    """How the weights of one layer are written.

    Attributes:
        bits: of a two's complement number (no codebook, 2 .. 32) or of a code (1 .. 8).
        codebook: ascending weight of each code; () for two's complement.
        base3: five codes to a byte; the codebook then has three entries and `bits` is 2.
    """

    bits: int
    codebook: tuple[int, ...] = ()
    base3: bool = False

    @property
    def is_wide(self) -> bool:
        return not self.codebook and self.bits > 8

    def row_bytes(self, weights: int) -> int:
        """Bytes of a row of so many weights."""
        return -(-weights // TRITS) if self.base3 else -(-weights * self.bits // 8)


def choose_coding(weight: Weight) -> Coding:
    """The smallest coding: codes of a trained level set, base 3 where it has three levels, else exact two's complement.

    Raises:
        GraphError: a weight is no level of its set, or outside -2**30 .. 2**30.
    """
    array = weight.array
    lo, hi = int(array.min()), int(array.max())
    if lo < -MAX_WEIGHT or hi > MAX_WEIGHT:
        raise GraphError("weights are too large for the packed format", got=(lo, hi), expected=f"up to {MAX_WEIGHT}")
    levels = weight.level_set
    if levels is None or len(levels) > 1 << MAX_CODE_BITS:
        return Coding(1 + max(1, (-lo - 1 if lo < 0 else 0).bit_length(), (hi if hi > 0 else 0).bit_length()))
    if not np.isin(array, levels).all():
        raise GraphError("a weight is no level of its layer", got=np.setdiff1d(array, levels), expected=levels)
    plain = Coding(max(1, (len(levels) - 1).bit_length()), levels)
    row = int(np.prod(array.shape[1:]))
    packed = Coding(2, levels, base3=True)
    return packed if len(levels) == 3 and packed.row_bytes(row) < plain.row_bytes(row) else plain


def encode_rows(rows: NDArray[np.integer], coding: Coding) -> bytes:
    """Weights [O, K] as O rows of `coding.row_bytes(K)` bytes."""
    codes = np.searchsorted(coding.codebook, rows) if coding.codebook else rows
    if not coding.base3:
        bits = np.empty((*codes.shape, coding.bits), np.uint8)
        for i in range(coding.bits):
            bits[:, :, i] = (codes >> i) & 1
        return np.packbits(bits.reshape(len(rows), -1), axis=1, bitorder="little").tobytes()
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % TRITS))).reshape(len(rows), -1, TRITS)
    return (padded @ _POWERS_OF_3).astype(np.uint8).tobytes()


def decode_rows(data: NDArray[np.uint8], shape: tuple[int, int], coding: Coding, where: str = "") -> NDArray[np.int32]:
    """Inverse of `encode_rows` for `shape` [O, K]; `where` names the layer in messages.

    Raises:
        ArtifactError: a code that stands for nothing, unused bits or codes that are not zero, a weight out of range.
    """
    rows = data.reshape(shape[0], coding.row_bytes(shape[1]))
    if coding.base3 and rows.max(initial=0) >= 3**TRITS:
        raise refused("a byte is no five ternary codes", where=where, got=int(rows.max()), expected=f"< {3**TRITS}")
    codes, rest = _trits(rows, shape[1]) if coding.base3 else _fields(rows, shape[1], coding.bits)
    if rest.any():
        raise refused("bits behind the last weight of a row are not zero", where=where)
    if not coding.codebook:
        signed = codes - ((codes >> (coding.bits - 1)) << coding.bits)
        if signed.size and max(-int(signed.min()), int(signed.max())) > MAX_WEIGHT:
            raise refused("a weight is out of range", where=where, got=int(signed.flat[np.abs(signed).argmax()]))
        return signed.astype(np.int32)
    if codes.size and codes.max() >= len(coding.codebook):
        raise refused("a weight's code has no level", where=where, got=int(codes.max()))
    return np.array(coding.codebook, np.int32)[codes]


def _fields(rows: NDArray[np.uint8], count: int, bits: int) -> tuple[NDArray[np.int64], NDArray]:
    """(codes [O, count], the bits behind them)."""
    unpacked = np.unpackbits(rows, axis=1, bitorder="little")
    used = unpacked[:, : count * bits].reshape(len(rows), count, bits)
    codes = np.zeros((len(rows), count), np.int64)
    for i in range(bits):
        codes |= used[:, :, i].astype(np.int64) << i
    return codes, unpacked[:, count * bits :]


def _trits(rows: NDArray[np.uint8], count: int) -> tuple[NDArray[np.int64], NDArray]:
    """(codes [O, count], the codes behind them)."""
    digits = (rows[:, :, None].astype(np.int64) // _POWERS_OF_3 % 3).reshape(len(rows), -1)
    return digits[:, :count], digits[:, count:]
