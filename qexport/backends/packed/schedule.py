"""The order of the operators, chosen so that the arena is small."""

from __future__ import annotations

from collections.abc import Iterator

from qexport.backends.packed.groups import Network, Schedule, arrange
from qexport.backends.packed.lifetimes import blocks_of, live_sets

SWEEPS = 4
"""Passes over the operators; the search has always ended before."""

EFFORT = 1_000_000
"""Operators looked at in all schedules tried: half a minute; networks of a hundred operators need a fiftieth."""

Cost = tuple[int, int, int]


def find_schedule(net: Network) -> Schedule:
    """Start from the order of the graph and move operators as long as that helps.

    Each operator in turn is tried right behind what it reads, right before what reads it, and as the first of a group;
    elementwise ones that narrow their input so come into the group that makes it, and widening ones into the group
    that reads them. Deterministic.
    """
    best = arrange(net, range(net.ops))
    cost, effort = _cost(net, best), EFFORT
    for _ in range(SWEEPS):
        before = cost
        for op in range(net.ops):
            for candidate in _moves(net, best, op):
                effort -= net.ops
                if effort < 0:
                    return best
                found = _cost(net, candidate)
                if found < cost:
                    best, cost = candidate, found
        if cost == before:
            break
    return best


def _cost(net: Network, schedule: Schedule) -> Cost:
    """(largest live set, bytes of all stored tensors, groups): what the arena needs, memory traffic, overhead."""
    blocks = blocks_of(net, schedule)
    stored = sum(size for size, is_stored in zip(net.sizes, schedule.stored, strict=True) if is_stored)
    return max(live_sets(blocks, schedule.groups)), stored, schedule.groups


def _moves(net: Network, schedule: Schedule, op: int) -> Iterator[Schedule]:
    if net.elementwise[op]:
        yield arrange(net, schedule.order, schedule.breaks ^ {op})
    made_by = [t - net.inputs for t in net.reads[op] if t >= net.inputs]
    read_by = net.readers[net.inputs + op]
    here, position, group = schedule.position[op], schedule.position, schedule.group
    earliest = 1 + max((position[p] for p in made_by), default=-1)
    latest = min((position[r] for r in read_by), default=net.ops) - 1
    behind_group = 1 + max((i for i in range(earliest, here) if _shares_group(schedule, i, made_by)), default=here)
    before_group = min((position[o] for o in schedule.order if read_by and group[o] == group[read_by[0]]), default=here)
    for target in dict.fromkeys((earliest, behind_group, before_group - (before_group > here), latest)):
        if target != here and earliest <= target <= latest:
            order = [o for o in schedule.order if o != op]
            order.insert(target, op)
            yield arrange(net, order, schedule.breaks)


def _shares_group(schedule: Schedule, place: int, ops: list[int]) -> bool:
    return any(schedule.group[schedule.order[place]] == schedule.group[o] for o in ops)
