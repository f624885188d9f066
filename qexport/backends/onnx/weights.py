"""Weight levels as packed initializers, and the nodes that turn them back into integers.

ONNX Runtime folds these nodes when it loads the model; the file stays packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qexport.backends.onnx.emitter import INT8, INT32, INT64, UINT8, Emitter, fits
from qexport.backends.onnx.packing import NATIVE, field_widths, pack_field, split_fields


@dataclass(frozen=True, eq=False)
class Levels:
    """Integer weights and the values any of them may take.

    Attributes:
        array: integer weights, any shape.
        allowed: ascending values that may occur, or None: every integer between the smallest and the largest.
        codes: int32 value, already emitted, of codes that select from `values`; "" where there is none.
        values: int64 [n], what each of those codes stands for.
    """

    array: NDArray[np.int64]
    allowed: tuple[int, ...] | None = None
    codes: str = ""
    values: NDArray[np.int64] | None = None

    @property
    def lo(self) -> int:
        return self.allowed[0] if self.allowed else int(self.array.min())

    @property
    def hi(self) -> int:
        return self.allowed[-1] if self.allowed else int(self.array.max())

    def plus(self, offset: int) -> Levels:
        """The same weights, every value moved by `offset`."""
        allowed = None if self.allowed is None else tuple(level + offset for level in self.allowed)
        values = None if self.values is None else self.values + offset
        return Levels(self.array + offset, allowed, self.codes, values)


@dataclass(frozen=True, eq=False)
class Coding:
    """Codes of b bits and what a code stands for: gap * code + base, or table[code].

    Attributes:
        codes: int64, shape of the weights, 0 .. 2**bits - 1.
        bits: width of a code.
        gap, base: affine map; unused where there is a table.
        table: int64 values of all codes, or None.
    """

    codes: NDArray[np.int64]
    bits: int
    gap: int = 1
    base: int = 0
    table: NDArray[np.int64] | None = None


def code_levels(levels: Levels) -> Coding:
    """The cheapest coding whose width is that of the level set.

    Codes are offsets from the smallest level where that needs no wider storage (so [-4,-2,-1,0,1,2,4] needs no
    table in its 4-bit field), else positions in the level set.
    """
    span = levels.hi - levels.lo
    offset_bits = max(1, span.bit_length())
    if levels.allowed is None:
        return Coding(levels.array - levels.lo, offset_bits, base=levels.lo)
    bits = max(1, (len(levels.allowed) - 1).bit_length())
    if offset_bits <= sum(field_widths(bits)):
        return Coding(levels.array - levels.lo, offset_bits, base=levels.lo)
    values = np.array(levels.allowed, np.int64)
    codes = np.searchsorted(values, levels.array)
    gaps = np.diff(values)
    if np.all(gaps == gaps[0]):
        return Coding(codes, bits, gap=int(gaps[0]), base=levels.lo)
    return Coding(codes, bits, table=values)


def emit_levels(e: Emitter, levels: Levels, dtype: DTypeLike, role: str = "weight") -> str:
    """Packed initializers and the nodes that decode them to `levels` in `dtype` (int8, uint8 or int32).

    Initializers are named <IR node>/<role>..., which is how their bytes are counted.
    """
    dtype = np.dtype(dtype)
    if levels.values is not None:
        return _lookup(e, levels.values, levels.codes, dtype, role)
    coding = code_levels(levels)
    widths = field_widths(coding.bits)
    if widths == (8,) and coding.table is None:
        stored = next(d for d in (INT8, UINT8) if fits(levels.lo, levels.hi, d)) if dtype == INT32 else dtype
        return e.cast(e.initializer(role, levels.array.astype(stored)), dtype, "levels")
    # gap * code can leave the target although the level fits it, as for [-127, 127] in int8.
    direct = coding.table is None and fits(0, coding.gap * ((1 << coding.bits) - 1), dtype)
    value = _emit_codes(e, coding, dtype if direct else INT32, role)
    if coding.table is not None:
        return _lookup(e, coding.table, value, dtype, role)
    if coding.gap != 1:
        value = e.node("Mul", [value, e.constant(np.array(coding.gap, e.dtype(value)))], "levels")
    if coding.base:
        value = e.node("Add", [value, e.constant(np.array(coding.base, e.dtype(value)))], "levels")
    return e.cast(value, dtype, "levels")


def emit_set_codes(e: Emitter, levels: Levels, role: str = "weight") -> str:
    """Positions of the weights in their level set, packed, decoded to int32 for table look-ups."""
    values = np.array(levels.allowed, np.int64)
    bits = max(1, (values.size - 1).bit_length())
    return _emit_codes(e, Coding(np.searchsorted(values, levels.array), bits), INT32, role)


def _lookup(e: Emitter, table: NDArray[np.int64], codes: str, dtype: np.dtype, role: str) -> str:
    """table[codes] in `dtype`; the codes are int32, because Gather takes no narrower index."""
    return e.node("Gather", [e.initializer(f"{role}.table", table.astype(dtype)), codes], "levels", dtype)


def _emit_codes(e: Emitter, coding: Coding, dtype: np.dtype, role: str) -> str:
    """Decode all fields of the codes and put them together: sum of field << position."""
    total, shift = "", 0
    for i, (width, values) in enumerate(split_fields(coding.codes, coding.bits)):
        part = e.cast(_emit_field(e, values, width, f"{role}.{i}" if i else role), dtype, "field")
        if shift:
            part = e.node("Mul", [part, e.constant(np.array(1 << shift, dtype))], "shifted")
            part = e.node("Add", [total, part], "codes")
        total, shift = part, shift + width
    return total


def _emit_field(e: Emitter, values: NDArray[np.uint8], width: int, role: str) -> str:
    """One packed initializer and its unpacking to uint8."""
    if width == 8:
        return e.initializer(role, values)
    data = pack_field(values, width)
    element, first_opset = NATIVE.get(width, (0, 1000))
    if e.opset >= first_opset:
        return e.cast(e.packed_initializer(role, element, values.shape, data), UINT8, "field")
    per_byte = 8 // width
    stored = e.initializer(role, np.frombuffer(data, np.uint8).reshape(-1, 1))
    shifts = e.constant(np.arange(per_byte, dtype=np.uint8) * np.uint8(width))
    spread = e.node("BitShift", [stored, shifts], "spread", direction="RIGHT")  # [K, per_byte]
    field = e.node("BitwiseAnd", [spread, e.constant(np.array((1 << width) - 1, np.uint8))], "field")
    if values.size % per_byte:
        flat = e.node("Reshape", [field, e.constant(np.array([-1], INT64))], "flat")
        ends = [e.constant(np.array([i], INT64)) for i in (0, values.size)]
        field = e.node("Slice", [flat, *ends], "used")
    return e.node("Reshape", [field, e.constant(np.array(values.shape, INT64))], "field")


def balanced_digits(array: NDArray[np.int64], radix: int) -> list[NDArray[np.int64]]:
    """Digits d_0, d_1, ... in [-radix/2, radix/2 - 1] with array == sum_k d_k * radix**k; radix even, at least 4."""
    digits: list[NDArray[np.int64]] = []
    half = radix // 2
    while array.any() or not digits:
        digit = (array + half) % radix - half
        digits.append(digit)
        array = (array - digit) // radix
    return digits


def truncated_digits(array: NDArray[np.int64], radix: int) -> list[NDArray[np.int64]]:
    """Digits of the magnitude, each with the sign of the number, in [1 - radix, radix - 1].

    Leading parts of a number never exceed it, so sums over them stay inside the proven range of the whole sum
    (for inputs whose range contains zero).
    """
    digits: list[NDArray[np.int64]] = []
    sign, rest = np.sign(array), np.abs(array)
    while rest.any() or not digits:
        digits.append(sign * (rest % radix))
        rest = rest // radix
    return digits
