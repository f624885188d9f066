"""Packed files with one thing wrong each, and the status every reader in C refuses them with."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from packed_files import I16, I32, U8, PackedFile, every_operator, i32, pack_rows, patch

from qexport.backends.packed import format as f

WHOLE = -1
"""failed_at where the file as a whole is at fault."""


@dataclass(frozen=True)
class Hostile:
    """One file: the status without prefix, the tensor at fault, and its bytes."""

    status: str
    failed_at: int
    make: Callable[[], bytes]


HOSTILE: dict[str, Hostile] = {}


def edit(name: str, status: str, failed_at: int, change: Callable[[PackedFile], object]) -> None:
    """A file whose parts are changed before its offsets, sizes and checksum are filled in."""
    HOSTILE[name] = Hostile(status, failed_at, lambda: every_operator().changed(change))


def corrupt(name: str, status: str, failed_at: int, change: Callable[[bytes], bytes]) -> None:
    """A file whose bytes are changed."""
    HOSTILE[name] = Hostile(status, failed_at, lambda: change(every_operator().to_bytes()))


def tensor(index: int, **fields: object) -> Callable[[PackedFile], None]:
    return lambda p: _set(p.tensors[index], fields)


def op(index: int, **fields: object) -> Callable[[PackedFile], None]:
    return lambda p: _set(p.ops[index], fields)


def constants(index: int, at: int, data: bytes) -> Callable[[PackedFile], None]:
    def change(p: PackedFile) -> None:
        old = p.constants[index]
        p.constants[index] = old[:at] + data + old[at + len(data) :]

    return change


def exact(index: int, data: bytes) -> Callable[[PackedFile], None]:
    return lambda p: p.ranges.update({index: data})


def header(**fields: int) -> Callable[[PackedFile], None]:
    return lambda p: p.header.update(fields)


def both(*changes: Callable[[PackedFile], object]) -> Callable[[PackedFile], None]:
    return lambda p: [change(p) for change in changes] and None


def _set(record: np.ndarray, fields: dict[str, object]) -> None:
    for name, value in fields.items():
        record[name] = value


def op_field(data: bytes, index: int, name: str) -> int:
    """Where a field of an operator record stands in the file."""
    (start,) = struct.unpack_from("<I", data, 44)
    return start + index * f.OPERATOR.itemsize + f.OPERATOR.fields[name][1]


def orphan(data: bytes) -> bytes:
    """16 bytes more of constants than the operators have."""
    (end,) = struct.unpack_from("<I", data, 56)
    longer = data[:end] + bytes(16) + data[end:]
    return patch(patch(longer, 56, "I", end + 16), 16, "I", len(longer))


def after_constants(data: bytes, index: int) -> int:
    """The first padding byte behind the constants of an operator."""
    offset, size = struct.unpack_from("<II", data, op_field(data, index, "constant_offset"))
    return int(offset + size)


def narrow_weights(p: PackedFile) -> None:
    p.ops[18]["parameter"] = 8
    p.constants[18] = pack_rows(np.ones((5, 12), np.int64), 8)


def three_groups(p: PackedFile) -> None:
    """Of 4 channels; the rows have the size they would have for 3."""
    p.ops[8]["groups"] = 3
    p.constants[8] = p.constants[8][:20] + bytes(4)


def wide_weights(bits: int, row: list[int]) -> Callable[[PackedFile], None]:
    def change(p: PackedFile) -> None:
        codes = np.zeros((5, 12), np.int64)
        codes[2, : len(row)] = row
        p.ops[18]["parameter"] = bits
        p.constants[18] = pack_rows(codes, bits)

    return change


def shorter_metadata_offset(p: PackedFile) -> None:
    """The metadata begins 16 bytes earlier, inside the last constant."""
    p.header["metadata_offset"] = len(p.to_bytes()) - len(p.metadata) - 16


def at_offset_of(index: int, other: int) -> Callable[[PackedFile], None]:
    return lambda p: _set(p.tensors[index], {"arena_offset": p.tensors[other]["arena_offset"]})


def two_inputs_in_one_place() -> bytes:
    p = PackedFile()
    a, b = p.input((4,)), p.input((4,))
    p.tensors[b]["arena_offset"] = p.tensors[a]["arena_offset"]
    p.op(f.Opcode.ADD, [a, b])
    p.output(p.tensor((4,), 0, 510, I16))
    return p.to_bytes()


def sum_beyond_64_bits(per_channel: bool) -> bytes:
    """8 products of 2^61: a sum in 64 bits comes back to zero."""
    p = PackedFile(header={"features": 2})
    x = p.input((8,))
    p.op(f.Opcode.CLIP, [x], first=0, second=255)
    claimed = p.tensor((8,), -(1 << 31), (1 << 31) - 1, I32)
    if per_channel:
        p.give_ranges(claimed, [-(1 << 31)] * 8, [(1 << 31) - 1] * 8)
    p.op(f.Opcode.CONV2D, [claimed], pack_rows(np.full((1, 8), 1 << 30), 32), parameter=32, groups=1)
    p.output(p.tensor((1,), 0, 0, I32))
    return p.to_bytes()


def slice_beyond_rank() -> bytes:
    p = PackedFile()
    p.op(f.Opcode.SLICE, [p.input((4,))], np.array([0, 0, 0, 1, 2, 1], "<u4").tobytes())
    p.output(p.tensor((4,), 0, 255, U8))
    return p.to_bytes()


def many_channels() -> bytes:
    """A few hundred bytes that ask for 2^26 channels to be looked at."""
    p = PackedFile()
    x = p.input((1,))
    p.op(f.Opcode.PAD, [x], np.array([(1 << 26) - 1, 0, 0, 0, 0, 0], "<u4").tobytes())
    p.tensor((1 << 26,), 0, 255)
    p.output(x)
    return p.to_bytes()


# ---- header and sections ----
corrupt("empty", "TRUNCATED", WHOLE, lambda d: b"")
corrupt("shorter than its header", "TRUNCATED", WHOLE, lambda d: d[:63])
corrupt("cut in the metadata", "TRUNCATED", WHOLE, lambda d: d[:-1])
corrupt("text mode", "MAGIC", WHOLE, lambda d: d.replace(b"\r\n", b"\n", 1) + b"\0")
edit("version 2", "VERSION", WHOLE, header(major=2))
corrupt("one bit flipped", "CRC", WHOLE, lambda d: d[:-20] + bytes([d[-20] ^ 1]) + d[-19:])
edit("unknown feature", "FEATURE", WHOLE, header(features=15))
edit("feature that does not occur", "FEATURE", WHOLE, narrow_weights)
edit("feature not declared", "FEATURE", WHOLE, header(features=3))
corrupt("bytes behind the end", "HEADER", WHOLE, lambda d: d + b"\0")
edit("no operators", "HEADER", WHOLE, header(op_count=0, input_count=20))
edit("counts disagree", "HEADER", WHOLE, header(input_count=2))
edit("8192 tensors", "HEADER", WHOLE, header(tensor_count=8192, op_count=8191))
edit("counts that wrap", "HEADER", WHOLE, header(tensor_count=20, op_count=0xFFFFFFFF, input_count=21))
edit("odd arena", "HEADER", WHOLE, header(arena_size=1 << 20 | 1))
edit("operators elsewhere", "LAYOUT", WHOLE, header(ops_offset=f.HEADER_SIZE))
edit("more outputs than file", "LAYOUT", WHOLE, header(output_count=0xFFFF))
edit("tensors behind the file", "LAYOUT", WHOLE, header(tensor_count=8191, op_count=8190))
edit("metadata behind the file", "METADATA", WHOLE, header(metadata_offset=0x7FFFFFF0))
edit("metadata is no JSON", "METADATA", WHOLE, lambda p: setattr(p, "metadata", b"<xml/>"))
edit("metadata is cut zlib", "METADATA", WHOLE, lambda p: setattr(p, "metadata", b"\x78\xda"))
corrupt("constants nobody owns", "METADATA", WHOLE, orphan)

# ---- tensor records ----
edit("rank 0", "TENSOR", 4, tensor(4, rank_flags=0))
edit("extent 0", "TENSOR", 4, tensor(4, extent=(4, 0, 3)))
edit("extents that wrap 32 bits", "TENSOR", 4, tensor(4, extent=(1 << 16, 1 << 8, 1 << 8)))
edit("extents that wrap 64 bits", "TENSOR", 4, tensor(4, extent=(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)))
edit("extent beyond the rank", "TENSOR", 19, tensor(19, extent=(5, 2, 1)))
edit("unknown storage", "TENSOR", 4, tensor(4, storage_slot=4))
edit("range does not fit a byte", "TENSOR", 6, tensor(6, lo=-1, hi=255))
edit("range upside down", "TENSOR", 1, tensor(1, lo=1, hi=0))
edit("input narrower than a byte", "TENSOR", 0, tensor(0, hi=15))
edit("channel range upside down", "TENSOR", 7, lambda p: p.give_steps(7, [2, 3, 7, 4], [20, 15, 6, 7]))
edit("channel range above the tensor's", "TENSOR", 7, lambda p: p.give_steps(7, [2, 3, 21, 4], [20, 15, 255, 7]))
edit("exact channel range upside down", "TENSOR", 6, exact(6, i32(-1, 5, -1, -1, 5, 4, 5, 5)))
edit("exact channel range above the tensor's", "TENSOR", 6, exact(6, i32(-1, -1, -1, -1, 5, 6, 5, 5)))
edit("exact and in steps", "TENSOR", 6, tensor(6, rank_flags=3 | f.TENSOR_EXACT | f.TENSOR_STEPS))
edit("unknown flag of a tensor", "PADDING", 4, tensor(4, rank_flags=3 | 4))
corrupt("ranges elsewhere", "LAYOUT", 7, lambda d: patch(d, f.HEADER_SIZE + 7 * 32 + 28, "I", 64))
edit("outside the arena", "ARENA", 4, tensor(4, arena_offset=1 << 20))
edit("end outside the arena", "ARENA", 19, lambda p: _set(p.tensors[19], {"arena_offset": p.arena - 16}))
edit("not aligned", "ARENA", 4, tensor(4, arena_offset=8))
edit("over its input", "ARENA", 4, at_offset_of(4, 3))
edit("in place under a convolution", "ARENA", 6, at_offset_of(6, 4))
edit("in place under an output", "ARENA", 8, both(tensor(6, last_use=19), lambda p: p.outputs.append(6)))
edit("in place under a wider element", "ARENA", 8, tensor(8, storage_slot=I16))
HOSTILE["inputs overlap"] = Hostile("ARENA", 1, two_inputs_in_one_place)

# ---- operator records ----
edit("unknown operator", "OPCODE", 4, op(3, opcode=15))
edit("operator 0", "OPCODE", 4, op(3, opcode=0))
edit("unknown version of an operator", "OPCODE", 4, op(3, version=2))
edit("unknown flag of an operator", "PADDING", 10, op(9, flags=2))
edit("unused field", "PADDING", 10, op(9, groups=1))
edit("unused window", "PADDING", 10, op(9, padding=(0, 0, 0, 1)))
edit("window 0", "OPERATOR", 4, op(3, window=(0, 2)))
edit("stride 0", "OPERATOR", 4, op(3, stride=(2, 0)))
edit("groups 0", "OPERATOR", 9, op(8, groups=0))
edit("shift 63", "OPERATOR", 7, op(6, parameter=63))
edit("codebook larger than its codes", "OPERATOR", 9, op(8, parameter=2))
edit("1-bit two's complement", "OPERATOR", 1, op(0, parameter=1))
edit("second input of a unary operator", "OPERATOR", 10, op(9, input=(9, 9)))
edit("clip upside down", "OPERATOR", 10, op(9, first=701))
edit("step and level table", "OPERATOR", 6, op(5, second=1))
edit("window larger than 32 bits of weights", "LAYOUT", 1, op(0, window=(0xFFFF, 0xFFFF)))
edit("reads itself", "INPUT", 10, op(9, input=(10, f.NONE16)))
edit("reads no tensor", "INPUT", 8, op(7, input=(7, f.NONE16)))
edit("concat of a later tensor", "INPUT", 14, constants(13, 2, struct.pack("<H", 15)))
corrupt("constants elsewhere", "LAYOUT", 1, lambda d: patch(d, op_field(d, 0, "constant_offset"), "I", 64))
corrupt("constants of another size", "LAYOUT", 7, lambda d: patch(d, op_field(d, 6, "constant_size"), "I", 44))
edit("constants reach into the metadata", "LAYOUT", 19, shorter_metadata_offset)
corrupt("padding behind constants", "PADDING", 3, lambda d: patch(d, after_constants(d, 2), "B", 1))

# ---- shapes ----
edit("wrong height of a convolution", "SHAPE", 1, tensor(1, extent=(4, 5, 6)))
edit("window larger than its input", "SHAPE", 4, op(3, window=(8, 2)))
edit("window that touches no pixel", "SHAPE", 4, op(3, padding=(2, 0, 0, 0), window=(2, 2), stride=(3, 2)))
edit("channels not divisible by groups", "SHAPE", 9, three_groups)
edit("add of other extents", "SHAPE", 8, op(7, input=(7, 3)))
edit("slice beyond its input", "SHAPE", 12, constants(11, 12, struct.pack("<I", 3)))
edit("slice with step 0", "SHAPE", 12, constants(11, 12, struct.pack("<I", 0)))
edit("slice that wraps 32 bits", "SHAPE", 12, constants(11, 12, struct.pack("<I", 0x80000000)))
HOSTILE["slice beyond the rank"] = Hostile("SHAPE", 1, slice_beyond_rank)
edit("pad that wraps 32 bits", "SHAPE", 11, constants(10, 0, struct.pack("<6I", 0xFFFFFFFF, 1, 0, 3, 0, 2)))
edit("reshape of other size", "SHAPE", 18, tensor(18, extent=(11, 1, 1)))
edit("transpose that repeats an axis", "SHAPE", 13, op(12, parameter=0 | 2 << 2 | 2 << 4))

# ---- constants ----
edit("code beyond the codebook", "WEIGHTS", 9, constants(8, 20, b"\7"))
edit("codebook does not ascend", "WEIGHTS", 9, constants(8, 0, i32(-3)))
edit("codebook beyond 2^30", "WEIGHTS", 9, constants(8, 16, i32((1 << 30) + 1)))
edit("base-3 byte above 242", "WEIGHTS", 5, constants(4, 12, b"\xf3"))
edit("unused base-3 digit", "PADDING", 5, constants(4, 12, b"\x51"))
edit("unused bits of a row", "PADDING", 9, constants(8, 20, b"\x40"))
edit("32-bit weight beyond 2^30", "WEIGHTS", 19, wide_weights(32, [0x7FFFFFFF]))
edit("thresholds descend", "CONSTANTS", 3, constants(2, 0, i32(2001)))
edit("unused sign bit", "PADDING", 3, constants(2, 48, b"\x15"))
edit("level beyond 32 bits", "CONSTANTS", 3, op(2, first=0x7FFFFFFE))
edit("addend beyond 2^62", "CONSTANTS", 7, constants(6, 0, struct.pack("<q", (1 << 62) + 1)))
edit("multiplier -2^31", "CONSTANTS", 7, constants(6, 32, i32(-(1 << 31))))
edit("class of no row", "CONSTANTS", 2, constants(1, 144, b"\3"))
edit("class of no column", "CONSTANTS", 2, constants(1, 150, b"\3"))
edit("factor 0", "CONSTANTS", 15, constants(14, 12, i32(0)))

# ---- ranges and accumulators ----
edit("accumulator claimed too narrow", "RANGE", 1, tensor(1, hi=100))
edit("threshold claimed too narrow", "RANGE", 3, tensor(3, hi=2))
edit("one channel claimed too narrow", "RANGE", 7, lambda p: p.give_steps(7, [2, 3, 0, 4], [20, 15, 4, 7]))
edit("level table claimed by its ends", "RANGE", 6, constants(5, 8, i32(0, 90, 5)))
edit("padding without zero in the range", "RANGE", 11, both(op(9, first=5), tensor(10, lo=5), tensor(11, lo=5)))
edit("sum claimed too narrow", "RANGE", 15, tensor(15, hi=1000))
edit("convolution overflows", "ACCUMULATOR", 19, wide_weights(31, [1 << 29] * 3))
HOSTILE["convolution overflows 64 bits"] = Hostile("ACCUMULATOR", 2, lambda: sum_beyond_64_bits(False))
HOSTILE["channels overflow 64 bits"] = Hostile("ACCUMULATOR", 2, lambda: sum_beyond_64_bits(True))
edit("minus the smallest integer", "ACCUMULATOR", 3, tensor(2, lo=-(1 << 31)))
edit("norm overflows", "ACCUMULATOR", 16, tensor(15, lo=-(1 << 31)))

# ---- groups, lifetimes, outputs, limits ----
edit("first operator joins", "GROUP", 1, op(0, flags=f.JOINS))
edit("pool joins", "GROUP", 4, op(3, flags=f.JOINS))
edit("joins a group of other extents", "GROUP", 8, both(op(7, flags=f.JOINS), tensor(8, extent=(4, 3, 2))))
edit("slot overwritten", "GROUP", 8, both(op(6, flags=f.JOINS | f.PER_CHANNEL), tensor(6, storage_slot=U8 | 3 << 4)))
edit("virtual from another group", "LIFETIME", 2, op(1, flags=0))
edit("read after its last use", "LIFETIME", 8, tensor(6, last_use=6))
edit("last use too late", "LIFETIME", 4, tensor(4, last_use=7))
edit("last use behind the end", "LIFETIME", 4, tensor(4, last_use=20))
edit("kept to the end, but no output", "LIFETIME", 4, tensor(4, last_use=19))
edit("output not kept", "LIFETIME", WHOLE, lambda p: p.outputs.append(9))
edit("output is no tensor", "OUTPUT", WHOLE, lambda p: p.outputs.append(20))
edit("output is virtual", "OUTPUT", WHOLE, lambda p: p.outputs.append(1))
HOSTILE["minutes of checking"] = Hostile("LIMIT", 1, many_channels)
