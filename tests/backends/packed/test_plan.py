"""Arena plans: no two live blocks share a byte, every offset is aligned, and little is wasted."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.packed.format import ALIGN
from qexport.backends.packed.lifetimes import Block, live_sets
from qexport.backends.packed.plan import plan_arena

GROUPS = 12


@st.composite
def blocks(draw: st.DrawFn) -> list[Block]:
    made = []
    for t in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, GROUPS - 1))
        made.append(Block(ALIGN * draw(st.integers(1, 40)), first, draw(st.integers(first, GROUPS - 1)), [t]))
    return made


@given(blocks())
@settings(max_examples=300, deadline=None)
def test_live_blocks_never_share_a_byte(made: list[Block]) -> None:
    plan = plan_arena(made, GROUPS)
    for group in range(GROUPS):
        owners = np.zeros(plan.size // ALIGN, int)
        live = [(plan.offsets[b.tensors[0]], b.size) for b in made if b.first <= group <= b.last]
        for offset, size in live:
            assert offset % ALIGN == 0
            owners[offset // ALIGN : (offset + size) // ALIGN] += 1
        assert owners.max(initial=0) <= 1
        assert owners.sum() * ALIGN == sum(size for _, size in live) == live_sets(made, GROUPS)[group]
    assert plan.lower_bound == max(live_sets(made, GROUPS)) <= plan.size
    assert plan.size <= 1.5 * plan.lower_bound


def test_a_gap_is_filled_before_the_arena_grows() -> None:
    long, short, late = Block(32, 0, 3, [0]), Block(64, 0, 1, [1]), Block(48, 2, 3, [2])
    plan = plan_arena([long, short, late], 4)
    assert plan.size == plan.lower_bound == 96
    assert plan_arena([long, short, late], 4) == plan


def test_tensors_of_a_block_share_its_place() -> None:
    plan = plan_arena([Block(16, 0, 2, [4, 7, 9]), Block(16, 1, 1, [5])], 3)
    assert plan.offsets[4] == plan.offsets[7] == plan.offsets[9] != plan.offsets[5]
