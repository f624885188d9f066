"""Records, opcodes and flags of the packed format (docs/packed-format.md, sections 2 to 4 and 8).

The same is stated in C by runtime/src/format.h; a test compares the two.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

MAGIC = b"\x89QPK\r\n\x1a\n"
MAJOR, MINOR = 1, 0
HEADER_SIZE = 64
MAX_TENSORS = 8191
MAX_FILE_SIZE = 2**31 - 1
ALIGN = 16
SLOTS = 4
NONE16 = 0xFFFF
NONE32 = 0xFFFFFFFF
MAX_WEIGHT = 1 << 30
MAX_STEPS = 65534
MAX_ELEMENTS = 1 << 29
MAX_EFFORT = 1 << 25
MAX_CLASSES = 256
MAX_SHIFT = 62
MAX_ADDEND = 1 << 62
OPCODE_VERSION = 1

HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("major", "<u2"),
        ("minor", "<u2"),
        ("header_size", "<u4"),
        ("file_size", "<u4"),
        ("crc", "<u4"),
        ("features", "<u4"),
        ("tensor_count", "<u4"),
        ("op_count", "<u4"),
        ("input_count", "<u2"),
        ("output_count", "<u2"),
        ("tensors_offset", "<u4"),
        ("ops_offset", "<u4"),
        ("outputs_offset", "<u4"),
        ("constants_offset", "<u4"),
        ("metadata_offset", "<u4"),
        ("arena_size", "<u4"),
    ]
)
"""Section 2."""

TENSOR = np.dtype(
    [
        ("storage_slot", "u1"),
        ("rank_flags", "u1"),
        ("last_use", "<u2"),
        ("extent", "<u4", (3,)),
        ("lo", "<i4"),
        ("hi", "<i4"),
        ("arena_offset", "<u4"),
        ("range_offset", "<u4"),
    ]
)
"""Section 3."""

OPERATOR = np.dtype(
    [
        ("opcode", "u1"),
        ("version", "u1"),
        ("flags", "u1"),
        ("parameter", "u1"),
        ("input", "<u2", (2,)),
        ("constant_offset", "<u4"),
        ("constant_size", "<u4"),
        ("window", "<u2", (2,)),
        ("stride", "<u2", (2,)),
        ("dilation", "<u2", (2,)),
        ("padding", "<u2", (4,)),
        ("groups", "<u2"),
        ("count", "<u2"),
        ("first", "<i4"),
        ("second", "<i4"),
    ]
)
"""Section 4; padding is (top, bottom, left, right)."""

CRC_OFFSET = 20
TENSOR_EXACT, TENSOR_STEPS = 0x40, 0x80
"""Bits of rank_flags: how the ranges of the channels are stated in the constants, where they are."""

RANGE_STEPS = 255
"""Steps into which a tensor's range is divided to state those of its channels."""


class Storage(IntEnum):
    """How elements of a tensor lie in the arena."""

    VIRTUAL = 0
    U8 = 1
    I16 = 2
    I32 = 3

    @property
    def bytes(self) -> int:
        """Of one element."""
        return 0 if self is Storage.VIRTUAL else 1 << (self - 1)

    @classmethod
    def holding(cls, lo: int, hi: int) -> Storage:
        """The narrowest storage of values in [lo, hi]."""
        if hi - min(lo, 0) <= 255:
            return cls.U8
        return cls.I16 if lo >= -(1 << 15) and hi < 1 << 15 else cls.I32


class Opcode(IntEnum):
    """Section 4."""

    CONV2D = 1
    BORDER_BIAS = 2
    THRESHOLD = 3
    RESCALE = 4
    ADD = 5
    CLIP = 6
    MAX_POOL = 7
    SUM_POOL = 8
    PAD = 9
    SLICE = 10
    CONCAT = 11
    RESHAPE = 12
    TRANSPOSE = 13
    L2_NORM = 14


ELEMENTWISE = frozenset({Opcode.BORDER_BIAS, Opcode.THRESHOLD, Opcode.RESCALE, Opcode.ADD, Opcode.CLIP})
"""Opcodes that read only the pixel they write, so that they may join a group (section 6)."""

WINDOWED = frozenset({Opcode.CONV2D, Opcode.MAX_POOL, Opcode.SUM_POOL})

# Bits of an operator's flags; bits 1 to 3 by opcode.
JOINS = 1
CONV_BASE3 = 2
PER_CHANNEL = 2
FACTORS = 2
SIGNS = 4
LEVEL_TABLE = 8


class Feature(IntFlag):
    """Section 8."""

    BASE3 = 1
    WIDE = 2
    LEVEL_TABLE = 4


ALL_FEATURES = Feature.BASE3 | Feature.WIDE | Feature.LEVEL_TABLE


def aligned(size: int) -> int:
    """`size` rounded up to the alignment of every section, constant and arena tensor."""
    return -(-size // ALIGN) * ALIGN
