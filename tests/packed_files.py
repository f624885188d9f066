"""Packed files made record by record (docs/packed-format.md), so that a test can break exactly one thing."""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed import format as f

VIRTUAL, U8, I16, I32 = f.Storage.VIRTUAL, f.Storage.U8, f.Storage.I16, f.Storage.I32
TRANSPOSE, L2_NORM, FACTORS = 13, 14, 2


def seal(data: bytes) -> bytes:
    """The file with the checksum its bytes have."""
    at = f.CRC_OFFSET
    crc = zlib.crc32(data[:at] + bytes(4) + data[at + 4 :])
    return data[:at] + struct.pack("<I", crc) + data[at + 4 :]


def patch(data: bytes, offset: int, layout: str, value: int) -> bytes:
    """The file with one number replaced, and the right checksum."""
    return seal(data[:offset] + struct.pack("<" + layout, value) + data[offset + struct.calcsize(layout) :])


def pack_rows(codes: NDArray[np.int64], bits: int) -> bytes:
    """Rows of codes [O, K], least significant bit first, each row from a byte on."""
    planes = (codes[:, :, None] >> np.arange(bits)) & 1
    return np.packbits(planes.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little").tobytes()


def pack_base3(codes: NDArray[np.int64]) -> bytes:
    """Rows of codes 0 .. 2 [O, K], five to a byte."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 5))).reshape(len(codes), -1, 5)
    return (padded @ 3 ** np.arange(5)).astype(np.uint8).tobytes()


def i32(*values: int) -> bytes:
    return np.array(values, "<i4").tobytes()


@dataclass
class PackedFile:
    """The parts of a file. Offsets, sizes and counts are filled in by `to_bytes`; everything else stands here.

    Attributes:
        inputs: number of input tensors.
        tensors, ops: records (`format.TENSOR`, `format.OPERATOR`).
        outputs: tensor indices.
        ranges: tensor -> what it claims per channel.
        constants: operator -> bytes.
        header: fields that are not what the parts imply.
        metadata: the last section.
    """

    inputs: int = 0
    tensors: list[np.ndarray] = field(default_factory=list)
    ops: list[np.ndarray] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    ranges: dict[int, bytes] = field(default_factory=dict)
    constants: dict[int, bytes] = field(default_factory=dict)
    header: dict[str, int] = field(default_factory=dict)
    metadata: bytes = b'{"qexport.format":"qpk"}'
    arena: int = 0

    def tensor(
        self, extent: Sequence[int], lo: int, hi: int, storage: int = VIRTUAL, slot: int = 0, offset: int | None = None
    ) -> int:
        """Append a tensor record in its own place of the arena, or at `offset`; returns its index."""
        record = np.zeros((), f.TENSOR)
        record["storage_slot"], record["rank_flags"] = storage | slot << 4, len(extent)
        record["extent"], record["lo"], record["hi"] = (*extent, 1, 1)[:3], lo, hi
        record["arena_offset"] = f.NONE32
        if storage != VIRTUAL:
            record["arena_offset"] = self.arena if offset is None else offset
            if offset is None:
                self.arena += f.aligned(int(np.prod(extent)) * f.Storage(storage).bytes)
        self.tensors.append(record)
        return len(self.tensors) - 1

    def input(self, extent: Sequence[int]) -> int:
        self.inputs += 1
        return self.tensor(extent, 0, 255, U8)

    def op(self, opcode: int, inputs: Sequence[int], constants: bytes = b"", **fields: object) -> int:
        """Append an operator record, before the tensor it makes; returns its index."""
        record = np.zeros((), f.OPERATOR)
        record["opcode"], record["version"] = opcode, 1
        listed = opcode == f.Opcode.CONCAT
        record["input"] = [f.NONE16] * 2 if listed else [*inputs, f.NONE16][:2]
        if opcode in (f.Opcode.CONV2D, f.Opcode.MAX_POOL, f.Opcode.SUM_POOL):
            record["window"] = record["stride"] = record["dilation"] = 1
        for name, value in fields.items():
            record[name] = value
        for t in inputs:
            self.tensors[t]["last_use"] = len(self.ops)
        self.constants[len(self.ops)] = constants
        self.ops.append(record)
        return len(self.ops) - 1

    def output(self, tensor: int) -> None:
        self.tensors[tensor]["last_use"] = len(self.ops)
        self.outputs.append(tensor)

    def give_ranges(self, tensor: int, lo: Sequence[int], hi: Sequence[int]) -> None:
        """Claim per channel, exactly."""
        self.tensors[tensor]["rank_flags"] |= f.TENSOR_EXACT
        self.ranges[tensor] = i32(*lo, *hi)

    def give_steps(self, tensor: int, low: Sequence[int], high: Sequence[int]) -> None:
        """Claim per channel: steps of ceil((hi - lo) / 255) above the record's lo."""
        self.tensors[tensor]["rank_flags"] |= f.TENSOR_STEPS
        self.ranges[tensor] = bytes([*low, *high])

    def changed(self, change: Callable[[PackedFile], object]) -> bytes:
        """The bytes of a copy to which `change` was applied."""
        other = copy.deepcopy(self)
        change(other)
        return other.to_bytes()

    def to_bytes(self) -> bytes:
        ops_offset = f.HEADER_SIZE + f.TENSOR.itemsize * len(self.tensors)
        outputs_offset = ops_offset + f.OPERATOR.itemsize * len(self.ops)
        constants_offset = f.aligned(outputs_offset + 2 * len(self.outputs))
        body = bytearray()
        tensors, ops = (np.array(records) for records in (self.tensors, self.ops))
        for t, data in sorted(self.ranges.items()):
            tensors[t]["range_offset"] = constants_offset + len(body)
            body += _padded(data)
        for k, data in sorted(self.constants.items()):
            ops[k]["constant_size"] = len(data)
            ops[k]["constant_offset"] = constants_offset + len(body) if data else 0
            body += _padded(data)
        fields = {
            "major": 1,
            "header_size": f.HEADER_SIZE,
            "file_size": constants_offset + len(body) + len(self.metadata),
            "tensor_count": len(tensors),
            "op_count": len(ops),
            "input_count": self.inputs,
            "output_count": len(self.outputs),
            "tensors_offset": f.HEADER_SIZE,
            "ops_offset": ops_offset,
            "outputs_offset": outputs_offset,
            "constants_offset": constants_offset,
            "metadata_offset": constants_offset + len(body),
            "arena_size": self.arena,
        } | self.header
        header = np.zeros((), f.HEADER)
        header["magic"] = f.MAGIC
        for name, value in fields.items():
            header[name] = value
        outputs = _padded(np.array(self.outputs, "<u2").tobytes())
        return seal(header.tobytes() + tensors.tobytes() + ops.tobytes() + outputs + bytes(body) + self.metadata)


def _padded(data: bytes) -> bytes:
    return data + bytes(f.aligned(len(data)) - len(data))


def every_operator() -> PackedFile:
    """A valid network of a few kilobytes with every operator, kind of weights, group, slot and in-place result."""
    p = PackedFile(header={"features": 7})
    rng = np.random.default_rng(7)
    image = p.input((4, 6, 6))

    codes = rng.integers(0, 4, (4, 36))  # two's complement: 0, 1, -2, -1
    p.op(f.Opcode.CONV2D, [image], pack_rows(codes, 2), parameter=2, window=3, padding=1, groups=1)
    acc = p.tensor((4, 6, 6), -18360, 9180, slot=0)
    classes = bytes([0, 1, 1, 1, 1, 2])
    values = rng.integers(-10, 11, 36)
    p.op(f.Opcode.BORDER_BIAS, [acc], i32(*values) + classes + classes, flags=f.JOINS, first=3, second=3)
    biased = p.tensor((4, 6, 6), -18370, 9190, slot=1)
    steps = np.sort(rng.integers(-2000, 2000, (3, 4)), axis=0)
    flags = f.JOINS | f.PER_CHANNEL | f.SIGNS
    p.op(f.Opcode.THRESHOLD, [biased], i32(*steps.ravel()) + bytes([5]), flags=flags, count=3, second=1)
    codes2 = p.tensor((4, 6, 6), 0, 3, U8, slot=1)
    p.op(f.Opcode.MAX_POOL, [codes2], window=2, stride=2)
    pooled = p.tensor((4, 3, 3), 0, 3, U8)

    ternary = rng.integers(0, 3, (4, 4))
    book = i32(-1, 0, 1)
    p.op(f.Opcode.CONV2D, [pooled], book + pack_base3(ternary), flags=f.CONV_BASE3, parameter=2, count=3, groups=1)
    acc2 = p.tensor((4, 3, 3), -12, 12)
    p.op(f.Opcode.THRESHOLD, [acc2], i32(-2, 3) + i32(-1, 0, 5), flags=f.JOINS | f.LEVEL_TABLE, count=2)
    levels = p.tensor((4, 3, 3), -1, 5, U8, slot=2)
    p.give_ranges(levels, [-1, -1, -1, -1], [5, 5, 5, 5])
    scale = np.array([1 << 19] * 4, "<i8").tobytes() + i32(3 << 19, 1 << 20, -(1 << 19), 1 << 18)
    p.op(f.Opcode.RESCALE, [levels], scale, flags=f.PER_CHANNEL, parameter=20, first=-8, second=100)
    scaled = p.tensor((4, 3, 3), -5, 15, slot=3)
    p.give_steps(scaled, [2, 3, 0, 4], [20, 15, 6, 7])  # steps of one
    p.op(f.Opcode.ADD, [scaled, levels], flags=f.JOINS)
    added = p.tensor((4, 3, 3), -6, 20, U8, offset=int(p.tensors[levels]["arena_offset"]))  # in place

    mixed = rng.choice([0, 1, 2, 3, 4], (4, 2))
    book = i32(-40, -3, 0, 7, 1000)
    p.op(f.Opcode.CONV2D, [added], book + pack_rows(mixed, 3), parameter=3, count=5, groups=2)
    grouped = p.tensor((4, 3, 3), -100_000, 100_000, I32)
    p.op(f.Opcode.CLIP, [grouped], first=-300, second=700)
    clipped = p.tensor((4, 3, 3), -300, 700, I16)
    p.op(f.Opcode.PAD, [clipped], np.array([1, 1, 0, 1, 0, 2], "<u4").tobytes())
    padded = p.tensor((6, 4, 5), -300, 700, I16)
    p.op(f.Opcode.SLICE, [padded], np.array([1, 0, 1, 2, 1, 2], "<u4").tobytes())
    sliced = p.tensor((3, 4, 2), -300, 700, I16)
    p.op(TRANSPOSE, [sliced], parameter=0 | 2 << 2 | 1 << 4)
    turned = p.tensor((3, 2, 4), -300, 700, I16)
    p.op(f.Opcode.CONCAT, [turned, turned], np.array([turned, turned], "<u2").tobytes(), count=2, first=1)
    joined = p.tensor((3, 4, 4), -300, 700, I16)
    factors = i32(9, 6, 6, 4)
    p.op(f.Opcode.SUM_POOL, [joined], factors, flags=FACTORS, window=3, stride=2, padding=(1, 0, 1, 0))
    summed = p.tensor((3, 2, 2), -100_000, 300_000, I32)
    p.op(L2_NORM, [summed])
    normed = p.tensor((3, 2, 2), -(1 << 30), 1 << 30, I32)
    p.op(
        f.Opcode.RESCALE, [normed], np.array([1 << 22], "<i8").tobytes() + i32(1), parameter=23, first=-128, second=127
    )
    small = p.tensor((3, 2, 2), -128, 127, U8)
    p.op(f.Opcode.RESHAPE, [small])
    flat = p.tensor((12,), -128, 127, U8)
    wide = rng.integers(0, 1 << 11, (5, 12))
    p.op(f.Opcode.CONV2D, [flat], pack_rows(wide, 11), parameter=11, groups=1)
    logits = p.tensor((5,), -2_000_000, 2_000_000, I32)
    p.output(logits)
    p.output(codes2)
    return p
