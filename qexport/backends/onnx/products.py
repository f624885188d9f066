"""Conv2d and Linear on integers: which operand types, and how wide operands are cut into bytes.

What ONNX Runtime multiplies fast are int8 activations with uint8 weights (ConvInteger) and uint8 activations with
int8 weights (MatMulInteger). On x86 processors without VNNI its kernels for that pair add two neighbouring products
in a *saturating* int16, so operands are kept so small that 2 * |unsigned| * |signed| stays below 2**15; wider
weights are cut into digits that do, and the partial sums are combined by Horner's rule. Two unsigned bytes are
multiplied exactly everywhere, so convolutions take that pair where it needs fewer products
(docs/decisions/002-onnx-integer-forms.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import INT8, INT32, INT64, UINT8, Emitter, fits
from qexport.backends.onnx.weights import Levels, balanced_digits, emit_levels, emit_set_codes, truncated_digits
from qexport.ir import TensorType, integer
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Conv2d, Linear, Weight
from qexport.ops.conv2d import channel_bounds

PAIR_LIMIT = 2**15 - 1
"""Largest sum of two neighbouring products that the kernels without VNNI keep."""

BYTE = 256
"""Number of values of a byte: the largest digit base."""

MERGED_CHANNELS = 16
"""Narrow groups are merged into block-diagonal ones of at most this many input channels: twice as fast."""


@dataclass(frozen=True)
class Operand:
    """A byte operand of a product: what it stands for is value - zero_point."""

    value: str
    zero_point: int


def signed_weight_limit(peak: int) -> int:
    """Largest magnitude of int8 weights on uint8 activations up to `peak`; below 0 where those are no bytes."""
    return min(PAIR_LIMIT // (2 * max(peak, 1)), BYTE // 2 - 1) if peak < BYTE else -1


class Kernel(Protocol):
    """One integer product operator of ONNX with the settings of one layer.

    Attributes:
        radix: largest power of two whose balanced digits are safe weights for the layer's activations.
    """

    radix: int

    def accepts(self, levels: Levels) -> bool:
        """Whether weights of this range are safe without being cut into digits."""
        ...

    def weight(self, levels: Levels, role: str) -> Operand:
        """Emit weights as the operand the operator wants."""
        ...

    def multiply(self, x: Operand, weight: Operand) -> str:
        """Emit the product, int32."""
        ...

    def fits_int32(self, array: NDArray[np.int64]) -> bool:
        """Whether the sums of these weights with the input, and with every leading part of it, fit int32."""
        ...


class ConvKernel:
    """ConvInteger on int8 activations of magnitude `peak`, or on uint8 activations (peak 0), and uint8 weights.

    `ranges` are the types whose sums must fit int32: of the input, or of what its digits add up to.
    """

    def __init__(self, e: Emitter, op: Conv2d, ranges: list[TensorType], peak: int) -> None:
        self._e, self._op, self._ranges = e, op, ranges
        self._span = min(PAIR_LIMIT // (2 * peak), BYTE - 1) if peak else BYTE - 1
        self._activation = INT8 if peak else UINT8
        self.radix = _power_of_two(self._span + 1)

    def accepts(self, levels: Levels) -> bool:
        return max(levels.hi, 0) - min(levels.lo, 0) <= self._span

    def weight(self, levels: Levels, role: str) -> Operand:
        offset = max(0, -levels.lo)
        return Operand(emit_levels(self._e, levels.plus(offset), UINT8, role), offset)

    def multiply(self, x: Operand, weight: Operand) -> str:
        op, e = self._op, self._e
        value, groups = self._merge_groups(weight)
        inputs = [x.value, value]
        if x.zero_point or weight.zero_point:
            inputs.append(e.constant(np.array(x.zero_point, self._activation)) if x.zero_point else "")
        if weight.zero_point:
            inputs.append(e.constant(np.array(weight.zero_point, UINT8)))
        pads = [before for before, _ in op.pads] + [after for _, after in op.pads]
        settings = {"kernel_shape": op.weight.array.shape[2:], "strides": op.stride, "dilations": op.dilation}
        return e.node("ConvInteger", inputs, "acc", INT32, pads=pads, group=groups, **settings)

    def fits_int32(self, array: NDArray[np.int64]) -> bool:
        padded = any(map(any, self._op.pads))
        return all(_in_int32(*channel_bounds(Weight(array), x, self._op.groups, padded)) for x in self._ranges)

    def _merge_groups(self, weight: Operand) -> tuple[str, int]:
        """Block-diagonal weights of b groups each, and the number of groups that remain.

        [O, i, kh, kw] -> [O, b * i, kh, kw], zero outside the own group. The nodes are folded at load, so the
        file keeps the narrow weights.
        """
        groups, (o, i, kh, kw) = self._op.groups, self._op.weight.array.shape
        merged = max(b for b in range(1, groups + 1) if groups % b == 0 and (b == 1 or b * i <= MERGED_CHANNELS))
        if merged == 1:
            return weight.value, groups
        e = self._e
        split = e.constant(np.array([groups // merged, merged, o // groups, 1, i, kh * kw], INT64))
        own = e.constant(np.eye(merged, dtype=bool).reshape(1, merged, 1, merged, 1, 1))
        zero = e.constant(np.array(weight.zero_point, UINT8))
        blocks = e.node("Reshape", [weight.value, split], "groups")
        blocks = e.node("Where", [own, blocks, zero], "blocks", UINT8)
        whole = e.constant(np.array([o, merged * i, kh, kw], INT64))
        return e.node("Reshape", [blocks, whole], "blocks"), groups // merged


class LinearKernel:
    """MatMulInteger on uint8 activations up to `peak` and int8 weights."""

    def __init__(self, e: Emitter, x: TensorType, peak: int) -> None:
        self._e, self._x = e, x
        self._magnitude = signed_weight_limit(peak)
        self.radix = _power_of_two(2 * self._magnitude + 1)

    def accepts(self, levels: Levels) -> bool:
        return max(levels.hi, -levels.lo) <= self._magnitude

    def weight(self, levels: Levels, role: str) -> Operand:
        value = emit_levels(self._e, levels, INT8, role)
        return Operand(self._e.node("Transpose", [value], "weight_io", perm=[1, 0]), 0)

    def multiply(self, x: Operand, weight: Operand) -> str:
        e = self._e
        inputs = [x.value, weight.value]
        if x.zero_point:
            inputs.append(e.constant(np.array(x.zero_point, UINT8)))
        return e.node("MatMulInteger", inputs, "acc", INT32)

    def fits_int32(self, array: NDArray[np.int64]) -> bool:
        return _in_int32(*channel_bounds(Weight(array), self._x, 1, False))


def lower_conv2d(e: Emitter, op: Conv2d, name: str) -> str:
    """Exact int32 accumulator of a convolution, for activations and weights of any width."""
    x = e.graph.types[name]
    lo, hi = range_with_zero(x)
    if hi - lo >= BYTE:
        digits = _activation_digits(e, name, lo, hi)
        # Leading digits alone are x less its lower digits, rounded down; lower digits alone are bytes.
        leading = integer(x.shape, x.lo - BYTE ** (len(digits) - 1) + 1, x.hi)
        kernel = ConvKernel(e, op, [leading, integer(x.shape, 0, BYTE - 1)], BYTE // 2)
        return _product(e, kernel, digits, op.weight)
    info = np.iinfo(INT8)
    offset = max(hi - info.max, 0) + min(lo - info.min, 0)
    kernel = ConvKernel(e, op, [x], max(hi - offset, offset - lo, 1))
    unsigned, whole = ConvKernel(e, op, [x], 0), Levels(op.weight.array.astype(np.int64), op.weight.level_set)
    if _digit_count(unsigned, whole) < _digit_count(kernel, whole):
        return _product(e, unsigned, [emit_byte(e, name, lo, UINT8)], op.weight)
    return _product(e, kernel, [emit_byte(e, name, offset, INT8)], op.weight)


def lower_linear(e: Emitter, op: Linear, name: str) -> str:
    """Exact int32 accumulator of a fully connected layer; a plain int32 MatMul for activations beyond a byte."""
    x = e.graph.types[name]
    lo, hi = range_with_zero(x)
    if hi - lo < BYTE:
        return _product(e, LinearKernel(e, x, max(hi - lo, 1)), [emit_byte(e, name, lo, UINT8)], op.weight)
    levels = emit_levels(e, Levels(op.weight.array.astype(np.int64), op.weight.level_set), INT32)
    weight = e.node("Transpose", [levels], "weight_io", perm=[1, 0])  # [O, I] -> [I, O]
    return e.node("MatMul", [e.cast(name, INT32), weight], "acc")


def _power_of_two(limit: int) -> int:
    """The largest power of two that is at most `limit`."""
    return 1 << (limit.bit_length() - 1)


def _in_int32(lo: NDArray, hi: NDArray) -> bool:
    return bool(lo.min() >= INT32_MIN and hi.max() <= INT32_MAX)


def range_with_zero(x: TensorType) -> tuple[int, int]:
    """Proven range of a tensor, with zero: the zero point of a byte operand must be a byte itself."""
    return min(0, int(x.lo.min())), max(0, int(x.hi.max()))


def emit_byte(e: Emitter, name: str, offset: int, dtype: np.dtype) -> Operand:
    """tensor - offset as a byte; emitted once for all readers of the tensor."""
    key = (name, offset, dtype)
    if key not in e.memo:
        value = name
        if offset:
            value = e.node("Sub", [e.cast(name, INT32), e.constant(np.array(offset, INT32))], "moved")
        e.memo[key] = e.cast(value, dtype, "byte")
    return Operand(e.memo[key], -offset)


def _activation_digits(e: Emitter, name: str, lo: int, hi: int) -> list[Operand]:
    """Base-256 digits of a wide tensor, lowest first, as int8 bytes.

    x = sum_k byte_k * 256**k - turns * 256**(count - 1): the bytes of x made non-negative, of which the top one
    carries the sign. Every byte is stored less 128, so its zero point is the stored form of what padding stands for.
    """
    count = 1
    while hi - (lo // BYTE ** (count - 1)) * BYTE ** (count - 1) >= BYTE**count:
        count += 1
    turns = -(lo // BYTE ** (count - 1))
    offset = turns * BYTE ** (count - 1)
    signed, unsigned = (INT32, np.uint32) if fits(0, hi + offset, INT32) else (INT64, np.uint64)
    shifted = e.node("Add", [e.cast(name, signed), e.constant(np.array(offset, signed))], "offset")
    source = e.cast(shifted, unsigned, "offset")
    digits = []
    for k in range(count):
        value = source
        if k:
            value = e.node("BitShift", [value, e.constant(np.array(8 * k, unsigned))], "upper", direction="RIGHT")
        value = e.node("BitwiseAnd", [value, e.constant(np.array(BYTE - 1, unsigned))], "byte")
        value = e.node("Sub", [e.cast(value, INT32), e.constant(np.array(BYTE // 2, INT32))], "digit")
        digits.append(Operand(e.cast(value, INT8), (turns if k == count - 1 else 0) - BYTE // 2))
    return digits


def _product(e: Emitter, kernel: Kernel, activations: list[Operand], weight: Weight) -> str:
    """Sum over all pairs of activation digits and weight digits, int32.

    The combination (d_2 * r + d_1) * r + d_0 is done in int32 where every intermediate is proven to fit, first for
    balanced digits of the weights, then for truncated ones; else in int64.
    """
    whole = Levels(weight.array.astype(np.int64), weight.level_set)
    if kernel.accepts(whole):
        digits, radix, proven = [whole], 1, _horner_fits(kernel, [whole.array], 1)
    else:
        digits, radix, proven = _weight_digits(e, kernel, whole)
    dtype = INT32 if proven else INT64
    sums = []
    for k, digit in enumerate(digits):
        operand = kernel.weight(digit, f"weight.d{k}" if k else "weight")
        sums.append(_horner(e, [kernel.multiply(x, operand) for x in activations], BYTE, dtype))
    return e.cast(_horner(e, sums, radix, dtype), INT32, "sum")


def _weight_digits(e: Emitter, kernel: Kernel, whole: Levels) -> tuple[list[Levels], int, bool]:
    """Digits, their base, and whether their Horner combination is proven to fit int32.

    Weights from a level set keep one packed copy of their codes, from which each digit is looked up.
    """
    cut, radix, proven = _weight_cut(kernel, whole)
    digits = cut(whole.array, radix)
    if whole.allowed is None:
        return [Levels(digit) for digit in digits], radix, proven
    codes = emit_set_codes(e, whole)
    tables = cut(np.array(whole.allowed, np.int64), radix)[: len(digits)]
    return [Levels(d, None, codes, t) for d, t in zip(digits, tables, strict=True)], radix, proven


def _weight_cut(kernel: Kernel, whole: Levels) -> tuple[Callable[..., list[NDArray[np.int64]]], int, bool]:
    """How to cut the weights, the base, and whether the Horner combination of the digits is proven to fit int32."""
    choices = [(balanced_digits, kernel.radix), (truncated_digits, kernel.radix // 2)]
    proven = [_horner_fits(kernel, cut(whole.array, radix), radix) for cut, radix in choices]
    return *choices[proven.index(True) if any(proven) else 0], any(proven)


def _digit_count(kernel: Kernel, whole: Levels) -> int:
    """How many products the weights take."""
    if kernel.accepts(whole):
        return 1
    cut, radix, _ = _weight_cut(kernel, whole)
    return len(cut(whole.array, radix))


def _horner_fits(kernel: Kernel, digits: list[NDArray[np.int64]], radix: int) -> bool:
    """Whether every intermediate of the Horner combination is proven to fit int32."""
    leading = np.zeros_like(digits[0])
    for digit in reversed(digits):
        if not all(kernel.fits_int32(array) for array in (leading * radix, digit, leading * radix + digit)):
            return False
        leading = leading * radix + digit
    return True


def _horner(e: Emitter, parts: list[str], radix: int, dtype: np.dtype) -> str:
    """sum_k parts[k] * radix**k, from the leading part down."""
    total = e.cast(parts[-1], dtype, "wide")
    for part in reversed(parts[:-1]):
        total = e.node("Mul", [total, e.constant(np.array(radix, dtype))], "scaled")
        total = e.node("Add", [total, e.cast(part, dtype, "wide")], "sum")
    return total
