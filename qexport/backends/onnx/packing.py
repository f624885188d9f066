"""Low-bit codes as bytes: which fields a code is cut into, and how fields are packed.

A code of b bits is stored as one or more fields of 1, 2, 4 or 8 bits (docs/decisions/002-onnx-integer-forms.md).
Fields of 2 and 4 bits are the ONNX types UINT2 (opset 25) and UINT4 (opset 21); before those opsets, and for
1 bit always, fields are packed in uint8 and unpacked by BitShift and BitwiseAnd. Both use the same byte layout:
element i of the flattened tensor is in byte i // (8 / b), lowest bits first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

_REMAINDER = {0: (), 1: (1,), 2: (2,), 3: (4,), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (8,)}

NATIVE = {2: (TensorProto.UINT2, 25), 4: (TensorProto.UINT4, 21)}
"""Field width -> (packed ONNX element type, first opset that has it)."""


def field_widths(bits: int) -> tuple[int, ...]:
    """Field widths a code of `bits` bits is cut into, lowest bits first.

    Stored bits never exceed 4/3 of `bits`: 3 -> 4 and 7 -> 8 are the only widths that are rounded up.
    """
    return (8,) * (bits // 8) + _REMAINDER[bits % 8]


def split_fields(codes: NDArray[np.int64], bits: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """Cut non-negative codes below 2**bits into (width, field values), lowest bits first."""
    fields, shift = [], 0
    for width in field_widths(bits):
        fields.append((width, ((codes >> shift) & ((1 << width) - 1)).astype(np.uint8)))
        shift += width
    return fields


def pack_field(values: NDArray[np.uint8], width: int) -> bytes:
    """Pack field values of 1, 2, 4 or 8 bits, row-major, lowest bits first; the last byte is filled with zeros."""
    per_byte = 8 // width
    flat = np.pad(values.reshape(-1), (0, -values.size % per_byte)).reshape(-1, per_byte)  # [K, per_byte]
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(flat << shifts, axis=1)
    return packed.astype(np.uint8).tobytes()


def unpack_field(data: bytes, width: int, count: int) -> NDArray[np.uint8]:
    """Inverse of `pack_field`: the first `count` values, flat."""
    per_byte = 8 // width
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    fields = (np.frombuffer(data, np.uint8)[:, None] >> shifts) & np.uint8((1 << width) - 1)
    return fields.reshape(-1)[:count]
