"""Random real graphs, lowered: within the claimed bounds, whatever the composition. No torch, so many are cheap."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from agreement import check_agreement, images
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from qexport.errors import AccumulatorError, UnsupportedOperatorError
from qexport.ir import Graph, prune, real, verify
from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Step,
    Transpose,
    Weight,
)
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import lower
from qexport.stepfunction import StepFunction

SIZE = 6
LEVEL_SETS = ((-1, 1), (-1, 0, 1), (-2, -1, 0, 1), (-4, -2, -1, 0, 1, 2, 4), tuple(range(-8, 8)))
BLOCKS = ("low", "float", "affine", "relu", "clip", "prelu", "step", "max", "avg", "pad", "slice", "add", "concat",
          "join", "transpose", "reshape", "norm", "mean")  # fmt: skip


class Composer:
    """Builds a real graph block by block; `pool` holds tensors that later blocks may read."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32 - 1)))
        self.graph = Graph()
        self.pool = [self.graph.add_input("image", real((2, SIZE, SIZE), 0, 255))]

    def put(self, op: Op, *inputs: str) -> str:
        return self.graph.add(self.graph.unique(op.kind), op, *inputs)

    def per_channel(self, count: int, low: float, high: float, zero: bool = False) -> tuple[Fraction, ...]:
        values = self.rng.uniform(low, high, count)
        if zero:
            values[self.rng.random(count) < 0.15] = 0.0
        return tuple(Fraction(float(v)) for v in values)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.types[name].shape

    def spread(self, name: str) -> float:
        """A typical magnitude of a tensor, from its proven range; thresholds and gains are drawn around it."""
        return max(self.graph.types[name].max_abs / 4, 1e-3)

    def block(self, kind: str, x: str) -> str:
        channels = self.shape(x)[0]
        if kind in ("low", "float"):
            return self.layer(x, kind == "low")
        if kind == "affine":
            gain = self.per_channel(channels, -1.5, 1.5, zero=True)
            return self.put(Affine(gain, self.per_channel(channels, -self.spread(x), self.spread(x))), x)
        if kind == "relu":
            return self.put(Clip(Fraction(0), None), x)
        if kind == "clip":
            lo, hi = sorted(self.rng.normal(0, self.spread(x), 2).tolist())
            return self.put(Clip(Fraction(lo), Fraction(hi)), x)
        if kind == "prelu":
            return self.put(PRelu(self.per_channel(channels, 0, 2, zero=True)), x)
        if kind == "step":
            return self.step(x)
        if kind in ("max", "avg"):
            kernel, pad = self.draw(st.sampled_from([(2, 0), (3, 1)]))
            pools = {"max": MaxPool, "avg": AvgPool}
            pads = ((pad, pad), (pad, pad))
            return self.put(pools[kind]((kernel, kernel), (1, 1), pads), x) if min(self.shape(x)[1:]) >= 2 else x
        if kind == "pad":
            return self.put(Pad(self.draw(st.sampled_from([((0, 0), (1, 0), (0, 1)), ((1, 2), (0, 0), (0, 0))]))), x)
        if kind == "slice":
            return self.put(
                Slice(((0, max(1, channels - 1), 1), (0, self.shape(x)[1], 1), (0, self.shape(x)[2], 1))), x
            )
        if kind == "transpose":
            return self.put(Transpose(self.shape(x), self.draw(st.sampled_from([(0, 2, 1), (1, 2, 0), (2, 1, 0)]))), x)
        if kind == "reshape":
            first, second, third = self.shape(x)
            shapes = [(1, first, second * third), (first * second, 1, third), (second, first, third)]
            return self.put(Reshape(self.shape(x), self.draw(st.sampled_from(shapes))), x)
        if kind == "norm":
            return self.put(L2Norm(), x)
        if kind == "mean":
            pads = ((1, 1), (1, 1))
            rows, cols = AvgPool((3, 3), (1, 1), pads).taps_inside(self.graph.types[x])
            if rows.min() == 0 or cols.min() == 0:
                return x
            return self.put(AvgPool((3, 3), (1, 1), pads, (tuple(rows.tolist()), tuple(cols.tolist()))), x)
        if kind == "join":
            axis = self.draw(st.sampled_from([1, 2]))
            rest = self.shape(x)[:axis] + self.shape(x)[axis + 1 :]
            joined = [t for t in self.pool if self.shape(t)[:axis] + self.shape(t)[axis + 1 :] == rest]
            return self.put(Concat(axis), x, self.draw(st.sampled_from(joined)))
        fitting = [t for t in self.pool if self.shape(t)[kind == "concat" :] == self.shape(x)[kind == "concat" :]]
        other = self.draw(st.sampled_from(fitting))
        return self.put(Add() if kind == "add" else Concat(), x, other)

    def layer(self, x: str, low_bit: bool) -> str:
        channels, height, width = self.shape(x)
        kernel = self.draw(st.sampled_from([k for k in (1, 2, 3) if k <= min(height, width)]))
        groups = self.draw(st.sampled_from([g for g in (1, channels) if g == 1 or x in self.integers()]))
        shape = (2 * groups if groups > 1 else 3, channels // groups, kernel, kernel)
        if low_bit:
            levels = self.draw(st.sampled_from(LEVEL_SETS))
            weight = Weight(
                self.rng.choice(levels, shape).astype(np.int32), self.per_channel(shape[0], 0.1, 1), level_set=levels
            )
        else:
            weight = Weight(self.rng.normal(0, 1, shape))
        pad = self.draw(st.integers(0, kernel - 1))
        return self.put(Conv2d(weight, (1, 1), ((pad, 0), (pad, pad)), (1, 1), groups), x)

    def integers(self) -> list[str]:
        return [n.name for n in self.graph.nodes if isinstance(n.op, Step)]

    def step(self, x: str) -> str:
        levels = self.draw(st.sampled_from([*LEVEL_SETS, (0, 1), (0, 1, 2, 3), (0, 1, 2, 4), tuple(range(256))]))
        scale = float(self.rng.uniform(0.5, 2)) * self.spread(x) / max(map(abs, levels))
        if len(levels) > 16:
            return self.put(Step(StepFunction.uniform(Fraction(scale), levels[0], levels[-1])), x)
        values = (np.array(levels) * scale).astype(np.float32)
        thresholds = np.sort(self.rng.normal(0, self.spread(x), len(levels) - 1)).astype(np.float32)
        return self.put(
            Step(StepFunction.from_values(np.unique(thresholds), values[: np.unique(thresholds).size + 1])), x
        )

    def finish(self) -> Graph:
        x = self.pool[-1]
        if self.draw(st.booleans()):
            size = int(np.prod(self.shape(x)))
            x = self.put(Reshape(self.shape(x), (size,)), x)
            x = self.put(Linear(Weight(self.rng.normal(0, 1, (3, size)))), x)
        self.graph.outputs = [x]
        return self.graph


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(data=st.data())
def test_random_network(data: st.DataObject) -> None:
    composer = Composer(data)
    composer.pool.append(composer.block("affine", "image"))
    for kind in data.draw(st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=9)):
        x = composer.draw(st.sampled_from(composer.pool[-3:]))
        made = composer.block(kind, x)
        if np.prod(composer.shape(made)) < 2000:
            composer.pool.append(made)
    graph = composer.finish()
    try:
        low = lower(quantize_layers(prune(graph), LayerOptions(edge_bits=data.draw(st.sampled_from([8, 16, None])))))
    except (AccumulatorError, UnsupportedOperatorError) as refusal:
        event(str(refusal).splitlines()[0].split(": ", 1)[-1])
        assume(False)
        raise
    verify(low.graph, require_integer=True)
    check_agreement(low, images((2, SIZE, SIZE), composer.rng, 2))
