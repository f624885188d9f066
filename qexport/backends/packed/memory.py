"""Groups, slots, lifetimes and the arena, as a reader checks them (docs/packed-format.md, section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qexport.backends.packed import format as f
from qexport.backends.packed.format import Opcode, Storage
from qexport.backends.packed.sections import Sections, refused


@dataclass(frozen=True, eq=False)
class Usage:
    """Who reads and writes what, numbers as in the file.

    Attributes:
        sections: records.
        reads: tensors each operator reads.
        names: of the tensors, for messages.
    """

    sections: Sections
    reads: list[list[int]]
    names: list[str]

    def storage(self, t: int) -> Storage:
        return Storage(int(self.sections.tensors[t]["storage_slot"]) & 15)

    def slot(self, t: int) -> int:
        return int(self.sections.tensors[t]["storage_slot"]) >> 4

    def extent(self, t: int) -> tuple[int, ...]:
        return tuple(self.sections.tensors[t]["extent"].tolist())

    def is_elementwise(self, op: int) -> bool:
        return Opcode(self.sections.ops[op]["opcode"]) in f.ELEMENTWISE


def check_memory(usage: Usage) -> None:
    """Refuse a file that reads what is not there, or writes over what is still needed.

    Raises:
        ArtifactError: naming the tensor.
    """
    groups = _groups(usage)
    _check_reads(usage, groups)
    _check_last_uses(usage)
    _check_arena(usage, groups)


def _groups(usage: Usage) -> list[int]:
    """Group of each operator."""
    ops, groups = usage.sections.ops, list[int]()
    for k in range(len(ops)):
        joins = bool(ops[k]["flags"] & f.JOINS)
        result = usage.sections.inputs + k
        if joins and (k == 0 or not usage.is_elementwise(k) or usage.extent(result) != usage.extent(result - 1)):
            raise refused("an operator cannot join the group before it", where=usage.names[result])
        groups.append(groups[-1] + (not joins) if groups else 0)
    return groups


def _check_reads(usage: Usage, groups: list[int]) -> None:
    inputs = usage.sections.inputs
    held = [-1] * f.SLOTS
    for k, tensors in enumerate(usage.reads):
        if k and groups[k] != groups[k - 1]:
            held = [-1] * f.SLOTS
        for t in tensors:
            here = t >= inputs and groups[t - inputs] == groups[k]
            if here and held[usage.slot(t)] != t:
                raise refused("a slot was overwritten before it is read", where=usage.names[t])
            if not here and usage.storage(t) == Storage.VIRTUAL:
                raise refused("a virtual tensor is read outside its group", where=usage.names[t])
        held[usage.slot(inputs + k)] = inputs + k


def _check_last_uses(usage: Usage) -> None:
    sections = usage.sections
    last = np.maximum(np.arange(len(sections.tensors)) - sections.inputs, 0)
    for k, tensors in enumerate(usage.reads):
        last[tensors] = k
    if sections.outputs.max() >= len(last):
        raise refused("the network returns a tensor that does not exist", got=int(sections.outputs.max()))
    last[sections.outputs] = len(sections.ops)
    for t in sections.outputs.tolist():
        if usage.storage(t) == Storage.VIRTUAL:
            raise refused("the network returns a virtual tensor", where=usage.names[t])
    (wrong,) = np.nonzero(last != sections.tensors["last_use"])
    if len(wrong):
        t = int(wrong[0])
        claimed = int(sections.tensors[t]["last_use"])
        raise refused("the last use of a tensor is wrong", where=usage.names[t], got=claimed, expected=int(last[t]))


def _check_arena(usage: Usage, groups: list[int]) -> None:
    """Compare every pair of tensors that are alive at the same time."""
    sections = usage.sections
    stored = [t for t in range(len(sections.tensors)) if usage.storage(t) != Storage.VIRTUAL]
    ends = np.array([*groups, groups[-1]])
    first = np.array([0 if t < sections.inputs else groups[t - sections.inputs] for t in stored])
    last = ends[sections.tensors["last_use"][stored]]
    start = sections.tensors["arena_offset"][stored].astype(np.int64)
    stop = start + [np.prod(usage.extent(t), dtype=np.int64) * usage.storage(t).bytes for t in stored]
    if stop.max() > sections.header["arena_size"]:
        t = stored[int(stop.argmax())]
        raise refused("a tensor leaves the arena", where=usage.names[t], got=int(stop.max()), expected="within it")
    for later, t in enumerate(stored):
        clash = (first <= last[later]) & (first[later] <= last) & (start < stop[later]) & (start[later] < stop)
        for earlier in np.nonzero(clash[:later])[0]:
            if not _may_overwrite(usage, groups, t, stored[earlier]):
                names = f"{usage.names[stored[earlier]]} and {usage.names[t]}"
                raise refused("two tensors lie in the same place at the same time", where=names)


def _may_overwrite(usage: Usage, groups: list[int], result: int, under: int) -> bool:
    """Whether a result may be written in place over another tensor that is alive in its group."""
    sections, op = usage.sections, result - usage.sections.inputs
    if op < 0 or usage.extent(result) != usage.extent(under):
        return False
    one, other = sections.tensors[result], sections.tensors[under]
    if one["arena_offset"] != other["arena_offset"] or usage.storage(result).bytes != usage.storage(under).bytes:
        return False
    readers = [k for k, tensors in enumerate(usage.reads) if under in tensors]
    here = [k for k in readers if groups[k] == groups[op]]
    return int(other["last_use"]) <= op and all(usage.is_elementwise(k) for k in here)
