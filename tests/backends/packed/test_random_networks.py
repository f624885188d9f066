"""Random integer graphs as .qpk files: read back, and run in their arena, they compute the reference's integers."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from packed_emulator import Emulator
from packed_networks import fixed, levels, pixels, wide

from qexport.backends.packed.reader import parse_packed
from qexport.backends.packed.writer import lay_out, to_packed
from qexport.errors import AccumulatorError
from qexport.ir import Graph, prune
from qexport.ops import (
    Add,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    MaxPool,
    Op,
    Pad,
    Reshape,
    Slice,
    SumPool,
    Threshold,
    Transpose,
)
from qexport.reference import interpret

SIZE = 4
LEVELS = ((-1, 1), (-1, 0, 1), (-4, -2, -1, 0, 1, 2, 4), tuple(range(-8, 8)))
COMPUTING = ("conv", "edge", "border", "threshold", "rescale", "clip")
MOVING = ("add", "concat", "max", "sum", "pad", "slice", "transpose", "reshape", "norm")


class Composer:
    """Adds random operators; every one reads some of the last tensors, so that several stay alive."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw, self.rng = draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.graph: Graph = pixels(2, SIZE, SIZE)
        self.pool = ["image"]

    def put(self, op: Op, *inputs: str) -> None:
        self.pool.append(self.graph.add(f"{op.kind}{len(self.pool)}", op, *inputs))

    def step(self) -> None:
        kind = self.draw(st.sampled_from((*COMPUTING, *MOVING)))
        name = self.draw(st.sampled_from(self.pool[-4:]))
        shape = self.graph.types[name].shape
        if kind in ("add", "concat"):
            other = self.draw(st.sampled_from(self.pool[-6:]))
            same = other if self.graph.types[other].shape == shape else name
            self.put(Add() if kind == "add" else Concat(self.draw(st.integers(0, 2))), name, same)
        elif kind in COMPUTING:
            self.put(self.computing(kind, shape, name), name)
        else:
            self.put(self.moving(kind, shape), name)

    def computing(self, kind: str, shape: tuple[int, ...], name: str) -> Op:
        rng, (c, h, w), ends = self.rng, shape, self.graph.types[name]
        lo, hi = int(ends.lo.min()), int(ends.hi.max())
        rows = c if rng.random() < 0.6 else 1
        if kind == "conv":
            groups = c if rng.random() < 0.2 else 1
            allowed = LEVELS[rng.integers(len(LEVELS))]
            weight = levels(rng, allowed, groups * int(rng.integers(1, 4)), c // groups, 3, 3)
            return Conv2d(weight, (int(rng.integers(1, 3)), 1), ((1, 1), (1, 1)), groups=groups)
        if kind == "edge":
            return Conv2d(wide(rng, int(2 ** rng.integers(1, 16)), 2, c, 1, 1))
        if kind == "border":
            return BorderBias(rng.integers(-300, 300, (c, 2, 3)), rng.integers(0, 2, h), rng.integers(0, 3, w))
        if kind == "threshold":
            thresholds = np.sort(rng.integers(lo, hi + 2, (rows, int(rng.integers(1, 5)))), axis=1)
            steps = thresholds.shape[1]
            table = np.arange(steps + 1) if rng.random() < 0.5 else np.sort(rng.integers(-9, 9, steps + 1))
            return Threshold(thresholds, rng.choice([-1, 1], rows).astype(np.int8), table.astype(np.int32))
        if kind == "clip":
            return Clip(*sorted(rng.integers(lo, hi + 1, 2).tolist()))
        peak = min(2**20, max(2, 2**40 // max(abs(lo), hi, 1)))
        multiplier, addend = rng.integers(-peak, peak, rows), rng.integers(-(2**20), 2**20, rows)
        return fixed(multiplier.tolist(), addend.tolist(), int(rng.integers(10, 30)))

    def moving(self, kind: str, shape: tuple[int, ...]) -> Op:
        """Pools, moves and the norm; a clip where the extents are too small for a window."""
        rng, (c, h, w) = self.rng, shape
        match kind:
            case "max" if min(h, w) > 1:
                return MaxPool((2, 2), (1, 1 + int(rng.integers(2))), ((0, 1), (1, 0)))
            case "sum" if min(h, w) > 1:
                return SumPool((2, 2), (1, 1), ((1, 0), (0, 0)), factors=(tuple(range(1, h + 1)), (1,) * (w - 1)))
            case "pad":
                return Pad(((0, 1), (int(rng.integers(2)), 0), (0, 0)))
            case "slice":
                return Slice(((0, c, 1 + int(c > 2)), (int(h > 2), h, 1), (0, w, 1 + int(w > 3))))
            case "transpose":
                return Transpose(shape, tuple(rng.permutation(3).tolist()))
            case "reshape":
                return Reshape(shape, (c * h, 1, w) if rng.random() < 0.5 else (w, h, c))
            case "norm":
                return L2Norm()
        return Clip(None, 0)


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    composer = Composer(draw)
    for _ in range(draw(st.integers(2, 16))):
        try:
            composer.step()
        except AccumulatorError:  # the operator is left out
            continue
    graph = composer.graph
    assume(graph.nodes)
    unread = [t for t in composer.pool[1:] if not any(t in node.inputs for node in graph.nodes)]
    graph.outputs = list(dict.fromkeys([*unread[-2:], draw(st.sampled_from(composer.pool[1:]))]))
    return prune(graph)


@given(networks(), st.integers(1, 5))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_random_networks(graph: Graph, tiles: int) -> None:
    try:
        data = to_packed(graph, metadata={})
    except AccumulatorError as error:  # inputs are widened to contain zero; the IR need not do so
        assert "the packed format cannot prove this layer" in str(error)
        return
    model = parse_packed(data)
    x = np.random.default_rng(1).integers(0, 256, (1, *graph.inputs["image"].shape), np.uint8)
    expected = interpret(graph, {"image": x}, keep="*").tensors
    again = interpret(model.to_graph(), {"image": x}, keep="*").tensors
    found = Emulator(model, tiles).run([x[0]])
    for tensor, value in expected.items():
        assert np.array_equal(again[tensor], value), tensor
        assert np.array_equal(found[tensor], value[0]), tensor
    plan = lay_out(graph).plan
    assert plan.lower_bound <= plan.size <= 1.25 * plan.lower_bound
