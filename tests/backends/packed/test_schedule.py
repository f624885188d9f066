"""Schedules: legal by the words of the specification, and smaller where moving an operator helps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_networks import GOLDEN, codes, fixed, levels, pixels

from qexport.backends.packed.groups import Network, Schedule, arrange
from qexport.backends.packed.lifetimes import blocks_of, live_sets
from qexport.backends.packed.schedule import find_schedule
from qexport.ir import Graph
from qexport.ops import Add, Clip, Conv2d, MaxPool

SAME = ((1, 1), (1, 1))


def check_legal(net: Network, schedule: Schedule) -> None:
    """Topological order, groups, slots and storage, each by its own rule."""
    assert sorted(schedule.order) == list(range(net.ops))
    assert [schedule.order[place] for place in schedule.position] == list(range(net.ops))
    made, running, slots = set(range(net.inputs)), -1, dict[int, int]()
    for before, op in zip((None, *schedule.order), schedule.order, strict=False):
        result = net.inputs + op
        if schedule.group[op] != running:
            assert schedule.group[op] == running + 1
            running, slots = running + 1, {}
        else:
            assert before is not None and net.elementwise[op] and op not in schedule.breaks
            assert net.shapes[result] == net.shapes[net.inputs + before]
        for t in net.reads[op]:
            assert t in made
            if t >= net.inputs and schedule.group[t - net.inputs] == running:
                assert slots[schedule.slot[t - net.inputs]] == t
            else:
                assert schedule.stored[t]
        assert 0 <= schedule.slot[op] < 4
        slots[schedule.slot[op]] = result
        made.add(result)
    for t in range(net.inputs, len(net.names)):
        outside = any(schedule.group[r] != schedule.group[t - net.inputs] for r in net.readers[t])
        assert schedule.stored[t] == (outside or t in net.outputs)


@st.composite
def elementwise_graphs(draw: st.DrawFn) -> Graph:
    """Many elementwise operators over few tensors: slots run out, groups break."""
    g = pixels(2, 3, 3)
    g.add("first", fixed([1], [0], 3), "image")
    names = ["first"]
    for i in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["add", "clip", "pool"]))
        reads = [draw(st.sampled_from(names[-6:])) for _ in range(2 if kind == "add" else 1)]
        op = {"add": Add(), "clip": Clip(0, 100), "pool": MaxPool((3, 3), (1, 1), SAME)}[kind]
        names.append(g.add(f"n{i}", op, *reads))
    unread = set(names) - {t for node in g.nodes for t in node.inputs}
    g.outputs = sorted(unread)
    return g


@given(elementwise_graphs())
@settings(max_examples=150, deadline=None)
def test_schedules_are_legal_and_no_larger(graph: Graph) -> None:
    net = Network(graph)
    plain, found = arrange(net, range(net.ops)), find_schedule(net)
    check_legal(net, plain)
    check_legal(net, found)
    peaks = [max(live_sets(blocks_of(net, s), s.groups)) for s in (plain, found)]
    assert peaks[1] <= peaks[0]
    assert find_schedule(net) == found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_schedules_are_legal(name: str) -> None:
    net = Network(GOLDEN[name]())
    check_legal(net, find_schedule(net))


def _conv(g: Graph, name: str, source: str) -> None:
    g.add(name, Conv2d(levels(np.random.default_rng(3), (-1, 0, 1), 2, 2, 3, 3), pads=SAME), source)


def test_an_operator_that_narrows_joins_its_producer() -> None:
    """Read three nodes later, the 4-byte accumulator would have to be stored."""
    g = pixels(2, 8, 8)
    g.add("large", fixed([1 << 12], [0], 0), "image")
    _conv(g, "conv", "large")
    g.add("code", codes(1 << 17), "large")
    _conv(g, "conv2", "code")
    g.add("sum", Add(), "conv", "conv2")
    g.outputs = ["sum"]
    net = Network(g)
    found = find_schedule(net)
    at = {name: found.group[net.names.index(name) - 1] for name in net.names[1:]}
    assert at["code"] == at["large"] and at["sum"] == max(at.values())
    assert not found.stored[net.names.index("conv2")] or not found.stored[net.names.index("conv")]


def test_an_operator_that_widens_joins_its_consumer() -> None:
    """2-bit codes are stored, their 4-byte form exists only in slots."""
    g = pixels(2, 8, 8)
    g.add("code", codes(100, 200), "image")
    g.add("wide", fixed([1 << 20], [0], 0), "code")
    _conv(g, "conv", "code")
    g.add("scaled", fixed([1 << 12], [0], 0), "conv")
    g.add("sum", Add(), "scaled", "wide")
    g.add("end", codes(5 << 14), "sum")
    g.outputs = ["end"]
    net = Network(g)
    found = find_schedule(net)
    stored = {name for name, is_stored in zip(net.names, found.stored, strict=True) if is_stored}
    assert stored == {"image", "code", "end"}


def test_a_sum_is_written_over_its_stream() -> None:
    g = pixels(2, 8, 8)
    g.add("stream", fixed([1 << 12], [0], 0), "image")
    g.add("code", codes(1 << 17), "stream")
    _conv(g, "conv", "code")
    g.add("sum", Add(), "conv", "stream")
    g.outputs = ["sum"]
    net = Network(g)
    blocks = blocks_of(net, find_schedule(net))
    names = [[net.names[t] for t in block.tensors] for block in blocks]
    assert ["stream", "sum"] in names


def test_nothing_is_written_over_what_a_convolution_of_the_group_reads() -> None:
    g = pixels(2, 8, 8)
    g.add("stream", fixed([1 << 12], [0], 0), "image")
    _conv(g, "conv", "stream")
    g.add("sum", Add(), "conv", "stream")
    g.outputs = ["sum"]
    net = Network(g)
    assert all(len(block.tensors) == 1 for block in blocks_of(net, find_schedule(net)))


def test_five_values_at_once_do_not_fit_four_slots() -> None:
    g = pixels(1, 2, 2)
    for i in range(5):
        g.add(f"v{i}", fixed([i + 1], [0], 0), "image")
    g.add("a", Add(), "v0", "v1")
    g.add("b", Add(), "v2", "v3")
    g.add("c", Add(), "v4", "a")
    g.add("d", Add(), "b", "c")
    g.outputs = ["d"]
    net = Network(g)
    plain = arrange(net, range(net.ops))
    check_legal(net, plain)
    assert plain.groups > 1
    assert find_schedule(net).groups == 1  # sums as soon as both operands are there
