"""When tensors of the arena are alive, and which of them share their place (docs/packed-format.md, section 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from qexport.backends.packed.groups import Network, Schedule


@dataclass
class Block:
    """Tensors that share one place in the arena, each written over the one before.

    Attributes:
        size: bytes, aligned.
        first, last: groups between which one of them is alive, both included.
        tensors: in the order in which they are written.
    """

    size: int
    first: int
    last: int
    tensors: list[int] = field(default_factory=list)


def blocks_of(net: Network, schedule: Schedule) -> list[Block]:
    """The blocks of all stored tensors, in the order of their first tensor."""
    blocks: list[Block] = []
    at: dict[int, Block] = {}  # tensor -> its block, while a result may still go over it
    for t in [*range(net.inputs), *(net.inputs + op for op in schedule.order)]:
        if not schedule.stored[t]:
            continue
        first = 0 if t < net.inputs else schedule.group[t - net.inputs]
        last = _last_group(net, schedule, t)
        over = _written_over(net, schedule, t, at)
        if over < 0:
            block = Block(net.sizes[t], first, last)
            blocks.append(block)
        else:
            block = at.pop(over)
            block.last = max(block.last, last)
        block.tensors.append(t)
        at[t] = block
    return blocks


def _last_group(net: Network, schedule: Schedule, t: int) -> int:
    if t in net.outputs:
        return schedule.groups - 1
    own = 0 if t < net.inputs else schedule.group[t - net.inputs]
    return max((schedule.group[r] for r in net.readers[t]), default=own)


def _written_over(net: Network, schedule: Schedule, result: int, at: dict[int, Block]) -> int:
    """The tensor whose place a result takes in place, or -1.

    Operators of the group read it before, at the pixels they write, and nothing reads it afterwards.
    """
    if result < net.inputs:
        return -1
    op = result - net.inputs
    group = schedule.group[op]
    for t in at:
        same = net.shapes[t] == net.shapes[result] and net.widths[t] == net.widths[result]
        earlier = t < net.inputs or schedule.group[t - net.inputs] < group
        if not same or not earlier or t in net.outputs or _last_group(net, schedule, t) != group:
            continue
        inside = [r for r in net.readers[t] if schedule.group[r] == group]
        if all(net.elementwise[r] and schedule.position[r] <= schedule.position[op] for r in inside):
            return t
    return -1


def live_sets(blocks: list[Block], groups: int) -> list[int]:
    """Bytes alive in each group: what no plan can go below."""
    change = [0] * (groups + 1)
    for block in blocks:
        change[block.first] += block.size
        change[block.last + 1] -= block.size
    live, total = [], 0
    for step in change[:-1]:
        total += step
        live.append(total)
    return live
