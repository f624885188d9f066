"""Ranges: what a record states holds what it stands for, rules are sound, files claim no more detail than needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_networks import GOLDEN, fixed, pixels, unequal_channels

from qexport.backends.packed.claims import Detail, claim_ranges
from qexport.backends.packed.ranges import coarse, contains, hull, range_steps, result_range
from qexport.errors import AccumulatorError
from qexport.ir import integer
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Conv2d, Linear, Rescale, SumPool, Threshold, Weight

INT32 = st.integers(INT32_MIN, INT32_MAX)


@given(st.lists(st.tuples(INT32, INT32).map(sorted), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_stated_ranges_hold_the_true_ones(ends: list[list[int]]) -> None:
    lo, hi = np.array(ends).T
    true = integer((len(ends),), lo, hi)
    low, high = range_steps(true)
    assert low.min() == 0 and high.max() <= 255 and np.all(low <= high)
    claim = coarse(true)
    assert contains(claim, true) and contains(hull(true), claim)
    assert hull(claim).same_as(hull(true))
    step = -(-(int(hi.max()) - int(lo.min())) // 255)
    assert np.all(true.lo - claim.lo <= step) and np.all(claim.hi - true.hi <= step)


def test_a_constant_tensor_has_no_steps() -> None:
    assert coarse(integer((2,), 7, 7)).same_as(integer((2,), 7, 7))


def test_convolution_without_padding_keeps_inputs_off_zero_but_its_sums_start_there() -> None:
    op = Linear(Weight(np.array([[1 << 20, -(1 << 20)]], np.int32)))
    tight = integer((2,), 1000, 1001)
    assert result_range(op, [tight]).hi[0] == 1 << 20
    with pytest.raises(AccumulatorError, match="32-bit accumulator"):
        result_range(op, [integer((2,), 3000, 3001)])  # 3000 * 2^20 on the way


def test_padding_lets_zero_join() -> None:
    op = Conv2d(Weight(np.ones((1, 1, 1, 1), np.int32)), pads=((1, 0), (0, 0)))
    assert result_range(op, [integer((1, 2, 2), 5, 9)]).same_as(integer((1, 3, 2), 0, 9))


def test_rescale_beyond_the_limits_of_the_ir() -> None:
    """A claim may be wider than a range of the IR; sums are then still exact in 64 bits."""
    op = Rescale(np.array([INT32_MAX]), np.array([-(1 << 62)]), 31)
    found = result_range(op, [integer((1,), INT32_MIN, INT32_MAX)])
    ends = [max((x * INT32_MAX - (1 << 62)) >> 31, INT32_MIN) for x in (INT32_MIN, INT32_MAX)]
    assert (found.lo[0], found.hi[0]) == tuple(ends)


@pytest.mark.parametrize(
    "op",
    [
        Threshold(np.array([[0]]), np.array([-1], np.int8), np.array([0, 1], np.int32)),
        SumPool((60000, 60000), (1, 1), ((30000, 30000), (30000, 30000))),
        Linear(Weight(np.full((1, 1), 1 << 30, np.int32))),
    ],
    ids=["negated", "pooled", "multiplied"],
)
def test_what_could_overflow_is_refused(op) -> None:  # type: ignore[no-untyped-def]
    shape = (1,) if isinstance(op, Linear) else (1, 5, 5)
    with pytest.raises(AccumulatorError):
        result_range(op, [integer(shape, INT32_MIN, 0)])


@pytest.mark.parametrize("name", GOLDEN)
def test_claims_follow_from_each_other_and_hold_the_proven_ranges(name: str) -> None:
    graph = GOLDEN[name]()
    claims = claim_ranges(graph, frozenset())
    for node in graph.nodes:
        found = result_range(node.op, [claims.ranges[t] for t in node.inputs])
        assert contains(claims.ranges[node.name], found), node.name
        assert contains(claims.ranges[node.name], graph.types[node.name]), node.name


def test_detail_is_given_only_where_the_proof_needs_it() -> None:
    assert claim_ranges(unequal_channels(), frozenset()).details == {"scaled": Detail.STEPS, "apart": Detail.EXACT}
    assert claim_ranges(GOLDEN["products"](), frozenset()).details == {}


def test_detail_is_given_where_a_tensor_would_take_more_memory() -> None:
    g = pixels(1, 1, 2)
    g.add("flat", GOLDEN["unequal-channels"]().node("flat").op, "image")
    g.add("fixed", fixed([3, -3], [0, 0], 0), "flat")
    g.add("back", fixed([1, -1], [0, 0], 2), "fixed")
    g.outputs = ["back"]
    assert claim_ranges(g, frozenset()).details == {}
    stored = claim_ranges(g, frozenset({"back"}))
    assert stored.details == {"fixed": Detail.STEPS}
    assert hull(stored.ranges["back"]).same_as(integer((2,), -1, 191))


def test_a_layer_that_cannot_be_proven_is_named() -> None:
    """Inputs far from zero cancel: each sum fits 32 bits at its end, but not on the way."""
    g = pixels(2, 1, 1)
    g.add("moved", fixed([1], [1 << 20], 0), "image")
    g.add("difference", Conv2d(Weight(np.array([[[[3000]], [[-3000]]]], np.int32))), "moved")
    g.outputs = ["difference"]
    with pytest.raises(AccumulatorError, match="difference: the packed format cannot prove this layer") as error:
        claim_ranges(g, frozenset())
    assert error.value.remedy
