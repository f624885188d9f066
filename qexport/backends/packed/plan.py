"""Places of the tensors in the arena."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qexport.backends.packed.lifetimes import Block, live_sets


@dataclass(frozen=True)
class Plan:
    """Offsets of all stored tensors.

    Attributes:
        offsets: tensor -> offset in the arena.
        size: bytes of the arena.
        lower_bound: bytes alive in the group where most are: no plan of this order is smaller.
    """

    offsets: dict[int, int]
    size: int
    lower_bound: int


def plan_arena(blocks: list[Block], groups: int) -> Plan:
    """Place blocks one by one into the smallest gap that holds them, in several orders; the smallest arena wins.

    Where none reaches the lower bound, each block in turn is tried as the first of the best order.
    """
    lower_bound = max(live_sets(blocks, groups))
    size, offsets, order = min(
        ((_end(blocks, places), places, order) for order in _orders(blocks, groups) for places in [_place(order)]),
        key=lambda found: found[0],
    )
    for pair in list(order):
        if size == lower_bound:
            break
        changed = [pair, *(other for other in order if other is not pair)]
        places = _place(changed)
        if _end(blocks, places) < size:
            size, offsets, order = _end(blocks, places), places, changed
    by_tensor = {t: offset for block, offset in zip(blocks, offsets, strict=True) for t in block.tensors}
    return Plan(by_tensor, size, lower_bound)


def _end(blocks: list[Block], offsets: list[int]) -> int:
    return max(offset + block.size for block, offset in zip(blocks, offsets, strict=True))


def _orders(blocks: list[Block], groups: int) -> Iterator[list[tuple[int, Block]]]:
    """Orders to place blocks in: by size, size times duration, duration, time, and busiest groups first."""
    live = live_sets(blocks, groups)
    keys: tuple[Callable[[Block], tuple[int, ...]], ...] = (
        lambda b: (-b.size, b.first - b.last),
        lambda b: (-b.size * (b.last - b.first + 1),),
        lambda b: (b.first - b.last, -b.size),
        lambda b: (b.first, -b.size),
        lambda b: (-b.last, -b.size),
        lambda b: (-max(live[b.first : b.last + 1]), -b.size),
        lambda b: (-max(live[b.first : b.last + 1]), b.first - b.last),
    )
    for key in keys:
        yield sorted(enumerate(blocks), key=lambda pair: (*key(pair[1]), pair[0]))


def _place(order: list[tuple[int, Block]]) -> list[int]:
    """Offsets by block, placing in the given order."""
    offsets = [0] * len(order)
    placed: list[tuple[int, Block]] = []
    for index, block in order:
        beside = sorted(
            (offset, offset + other.size)
            for offset, other in placed
            if other.first <= block.last and block.first <= other.last
        )
        offsets[index] = _best_fit(beside, block.size)
        placed.append((offsets[index], block))
    return offsets


def _best_fit(taken: list[tuple[int, int]], size: int) -> int:
    """Offset of the smallest gap between ascending intervals that holds `size`, or behind all of them."""
    best, best_gap, end = -1, 0, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, stop)
    return end if best < 0 else best
