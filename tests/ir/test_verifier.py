"""The verifier names every defect a pass could leave behind; types hold what they claim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexport.errors import GraphError
from qexport.ir import Graph, IntType, Node, integer, prune, real, verify
from qexport.ops import Add, Clip, Linear, Reshape, Weight


def sound() -> Graph:
    """x -> clip -> linear -> output, and clip + clip as a second output."""
    graph = Graph()
    graph.add_input("x", integer((4,), -8, 7))
    graph.add("clip", Clip(0, None), "x")
    graph.add("fc", Linear(Weight(np.arange(8, dtype=np.int32).reshape(2, 4))), "clip")
    graph.add("sum", Add(), "clip", "clip")
    graph.outputs = ["fc", "sum"]
    return graph


def test_sound_graph_passes() -> None:
    verify(sound(), require_integer=True)


def swapped(graph: Graph) -> None:
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


def repeated(graph: Graph) -> None:
    graph.nodes.append(graph.nodes[0])


def shadows_input(graph: Graph) -> None:
    graph.nodes.append(Node("x", Clip(0, None), ("clip",)))


def unknown_input(graph: Graph) -> None:
    graph.nodes[1] = Node("fc", graph.nodes[1].op, ("nowhere",))


def reads_itself(graph: Graph) -> None:
    graph.nodes[0] = Node("clip", Clip(0, None), ("clip",))


def wider_type(graph: Graph) -> None:
    graph.types["clip"] = integer((4,), 0, 8)


def other_shape(graph: Graph) -> None:
    graph.types["sum"] = integer((2,), 0, 14)


def other_domain(graph: Graph) -> None:
    graph.types["clip"] = real((4,), 0, 7)


def unknown_output(graph: Graph) -> None:
    graph.outputs.append("nowhere")


def no_output(graph: Graph) -> None:
    graph.outputs.clear()


def dead_node(graph: Graph) -> None:
    graph.outputs.remove("sum")


def misfit(graph: Graph) -> None:
    graph.nodes[0] = Node("clip", Reshape((5,), (5,)), ("x",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swapped, "fc: a node reads tensors that no earlier node makes"),
        (repeated, "clip: a tensor name is used twice"),
        (shadows_input, "x: a tensor name is used twice"),
        (unknown_input, "fc: a node reads tensors that no earlier node makes\n  got:      ['nowhere']"),
        (reads_itself, "clip: a node reads tensors that no earlier node makes"),
        (wider_type, "clip: stored type differs"),
        (other_shape, "sum: stored type differs"),
        (other_domain, "clip: stored type differs"),
        (unknown_output, "nowhere: the graph returns a tensor that no node makes"),
        (no_output, "nodes that reach no output\n  got:      ['clip', 'fc', 'sum']"),
        (dead_node, "nodes that reach no output\n  got:      ['sum']"),
        (misfit, "a reshape does not fit its input"),
    ],
)
def test_defect_is_named(damage: Callable[[Graph], None], message: str) -> None:
    graph = sound()
    damage(graph)
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value).startswith(message)


def test_real_tensor_in_an_integer_graph() -> None:
    graph = Graph()
    graph.add_input("x", real((4,), 0, 1))
    graph.add("clip", Clip(0, None), "x")
    graph.outputs = ["clip"]
    verify(graph)
    with pytest.raises(GraphError, match="clip: a real tensor in an integer graph"):
        verify(graph, require_integer=True)


@pytest.mark.parametrize(
    ("lo", "hi", "fits"), [(-(2**31), 2**31 - 1, True), (0, 2**31, False), (-(2**31) - 1, 0, False)]
)
def test_integers_of_more_than_32_bits(lo: int, hi: int, fits: bool) -> None:
    graph = Graph()
    graph.add_input("x", integer((1,), lo, hi))
    graph.add("clip", Clip(None, None), "x")
    graph.outputs = ["clip"]
    if fits:
        verify(graph, require_integer=True)
    else:
        with pytest.raises(GraphError, match="clip: an integer tensor leaves int32"):
            verify(graph, require_integer=True)


def test_adding_checks_names() -> None:
    graph = sound()
    with pytest.raises(GraphError, match="clip: a tensor name is used twice"):
        graph.add("clip", Clip(0, None), "x")
    with pytest.raises(GraphError, match="x: a tensor name is used twice"):
        graph.add_input("x", integer((1,), 0, 1))
    with pytest.raises(GraphError, match="late: a node reads a tensor that no earlier node makes"):
        graph.add("late", Clip(0, None), "nowhere")
    with pytest.raises(GraphError, match="nowhere: no such node"):
        graph.node("nowhere")


def test_unique_names() -> None:
    graph = sound()
    assert graph.unique("new") == "new"
    assert graph.unique("clip") == "clip_2"
    graph.add("clip_2", Clip(0, None), "x")
    assert graph.unique("clip") == "clip_3"


def test_prune_drops_dead_nodes_only() -> None:
    graph = sound()
    graph.outputs = ["fc"]
    kept = prune(graph)
    assert [n.name for n in kept.nodes] == ["clip", "fc"]
    assert set(kept.types) == {"x", "clip", "fc"}
    verify(kept)
    assert [n.name for n in graph.nodes] == ["clip", "fc", "sum"]  # the original is left as it was


def test_graph_as_text() -> None:
    assert str(sound()).splitlines() == [
        "x: int4[4] in [-8, 7]",
        "clip: uint3[4] in [0, 7] = clip<0, None>(x)",
        "fc: uint8[2] in [0, 154] = linear<weight=int4[2x4]>(clip)",
        "sum: uint4[4] in [0, 14] = add(clip, clip)",
        "return fc, sum",
    ]


@given(lo=st.integers(-(2**62), 2**62), width=st.integers(0, 2**62))
def test_narrowest_type(lo: int, width: int) -> None:
    """`holding` covers the range, and no type of one bit less and the same sign does."""
    hi = lo + width
    found = IntType.holding(lo, hi)
    assert found.min <= lo <= hi <= found.max
    assert found.signed == (lo < 0)
    if found.bits > 1:
        less = IntType(found.bits - 1, found.signed)
        assert lo < less.min or hi > less.max


@pytest.mark.parametrize(
    ("lo", "hi", "name", "storage"),
    [(0, 0, "uint1", "uint8"), (0, 1, "uint1", "uint8"), (0, 255, "uint8", "uint8"), (0, 256, "uint9", "uint16"),
     (-1, 0, "int1", "int8"), (-1, 1, "int2", "int8"), (-128, 127, "int8", "int8"), (-129, 0, "int9", "int16"),
     (-(2**31), 2**31 - 1, "int32", "int32"), (0, 2**31, "uint32", "uint32")],
)  # fmt: skip
def test_type_names(lo: int, hi: int, name: str, storage: str) -> None:
    found = IntType.holding(lo, hi)
    assert (found.name, found.storage) == (name, np.dtype(storage))
