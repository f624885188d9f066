"""What the generated program keeps where: storage of the tensors, groups of operators, the arena."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qexport.backends.packed.format import ELEMENTWISE, JOINS, Opcode, Storage, aligned
from qexport.backends.packed.lifetimes import Block
from qexport.backends.packed.plan import plan_arena
from qexport.backends.packed.reader import PackedModel
from qexport.embed.weights import plane_form
from qexport.ops import Conv2d

MOST_PLANES = 3
"""Codes of more bits stay bytes."""


@dataclass
class Tensor:
    """One tensor of the file.

    Attributes:
        name: in the file.
        channels, height, width: extents, 1 beyond the rank.
        lo, hi: proven range.
        storage: u8, i16, i32, or planes: bit i of the codes of all pixels, eight channels to a byte, plane after plane.
            Empty where the tensor exists only inside its group.
        slot: where the group keeps it.
        offset: in the arena, of a tensor that is stored.
    """

    name: str
    channels: int
    height: int
    width: int
    lo: int
    hi: int
    storage: str
    slot: int
    offset: int = 0

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def base(self) -> int:
        """What a stored byte of zero stands for."""
        return min(self.lo, 0) if self.storage == "u8" else 0

    @property
    def planes(self) -> int:
        """Bits of a code."""
        return self.hi.bit_length()

    @property
    def pixel_bytes(self) -> int:
        """Of one pixel; of one plane where there are planes."""
        width = {"u8": 8, "i16": 16, "i32": 32, "planes": 1, "": 0}[self.storage]
        return self.channels * width // 8

    @property
    def bytes(self) -> int:
        return self.pixels * self.pixel_bytes * (self.planes if self.storage == "planes" else 1)


@dataclass(frozen=True)
class Layout:
    """The network as the program sees it.

    Attributes:
        model: the file.
        tensors: as numbered there.
        groups: ranges of operators.
        arena: bytes of all stored tensors.
    """

    model: PackedModel
    tensors: list[Tensor]
    groups: list[range]
    arena: int

    @property
    def inputs(self) -> int:
        return self.model.sections.inputs

    def opcode(self, k: int) -> Opcode:
        return Opcode(self.model.sections.ops[k]["opcode"])

    def result(self, k: int) -> Tensor:
        return self.tensors[self.inputs + k]


def lay_out(model: PackedModel) -> Layout:
    """Choose the storage of every tensor and place it; codes of few bits that products read become planes."""
    tensors = [_tensor(model, t) for t in range(len(model.names))]
    groups = _groups(model)
    blocks = _blocks(model, tensors, groups)
    for block in blocks:
        for t in block.tensors:
            if len(block.tensors) == 1 and _suits_planes(model, tensors[t], t):
                tensors[t].storage = "planes"
        block.size = aligned(max(tensors[t].bytes for t in block.tensors))
    plan = plan_arena(blocks, len(groups))
    for t, offset in plan.offsets.items():
        tensors[t].offset = offset
    return Layout(model, tensors, groups, plan.size)


def _tensor(model: PackedModel, t: int) -> Tensor:
    record = model.sections.tensors[t]
    storage = Storage(record["storage_slot"] & 15)
    channels, height, width = record["extent"].tolist()
    kept = "" if storage is Storage.VIRTUAL else storage.name.lower()
    slot = int(record["storage_slot"]) >> 4
    return Tensor(model.names[t], channels, height, width, int(record["lo"]), int(record["hi"]), kept, slot)


def _groups(model: PackedModel) -> list[range]:
    joins = model.sections.ops["flags"] & JOINS
    starts = [*np.flatnonzero(joins == 0).tolist(), len(joins)]
    return [range(start, end) for start, end in pairwise(starts)]


def _blocks(model: PackedModel, tensors: list[Tensor], groups: list[range]) -> list[Block]:
    """Stored tensors with the groups they live in; one that the file writes over another shares its block."""
    inputs, group = model.sections.inputs, [g for g, members in enumerate(groups) for _ in members]
    blocks: list[Block] = []
    latest: dict[int, Block] = {}  # offset in the file -> the block last written there
    for t, tensor in enumerate(tensors):
        if not tensor.storage:
            continue
        first = 0 if t < inputs else group[t - inputs]
        last = group[min(int(model.sections.tensors[t]["last_use"]), len(group) - 1)]
        offset = int(model.sections.tensors[t]["arena_offset"])
        over = latest.get(offset)
        if over is not None and over.last == first and t >= inputs:
            over.last = max(over.last, last)
        else:
            over = latest[offset] = Block(0, first, last)
            blocks.append(over)
        over.tensors.append(t)
    return blocks


def _suits_planes(model: PackedModel, tensor: Tensor, t: int) -> bool:
    """Whether everything that reads a tensor can read its codes as planes, and a product does."""
    inputs = model.sections.inputs
    if t < inputs or t in model.sections.outputs or tensor.storage != "u8" or tensor.channels % 8:
        return False
    if tensor.lo < 0 or not 1 <= tensor.planes <= MOST_PLANES:
        return False
    readers = [k for k, reads in enumerate(model.reads) if t in reads]
    products = [op for op in (model.ops[k] for k in readers) if isinstance(op, Conv2d)]
    others = [k for k in readers if not isinstance(model.ops[k], Conv2d)]
    elementwise = all(Opcode(model.sections.ops[k]["opcode"]) in ELEMENTWISE for k in others)
    return bool(products) and elementwise and all(plane_form(op, tensor.planes) is not None for op in products)
