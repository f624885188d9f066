"""Small integer graphs that hold every operator, coding of weights, storage and kind of range of the packed format."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qexport.ir import Graph, integer
from qexport.ops import (
    Add,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Pad,
    Rescale,
    Reshape,
    Slice,
    SumPool,
    Threshold,
    Transpose,
    Weight,
)

SAME = ((1, 1), (1, 1))


def pixels(*shape: int) -> Graph:
    """A graph with the one input `image`, any byte."""
    graph = Graph()
    graph.add_input("image", integer(shape, 0, 255))
    return graph


def levels(rng: np.random.Generator, allowed: tuple[int, ...], *shape: int) -> Weight:
    """Random weights of a level set."""
    return Weight(rng.choice(np.array(allowed), shape).astype(np.int32), level_set=allowed)


def wide(rng: np.random.Generator, peak: int, *shape: int) -> Weight:
    """Random weights of an edge layer."""
    return Weight(rng.integers(-peak, peak + 1, shape).astype(np.int32), edge_bits=16)


def codes(*thresholds: int, table: tuple[int, ...] | None = None) -> Threshold:
    """A quantizer that all channels share."""
    steps = np.array([thresholds], np.int64)
    return Threshold(steps, np.ones(1, np.int8), np.array(table or range(len(thresholds) + 1), np.int32))


def fixed(multiplier: list[int], addend: list[int], shift: int) -> Rescale:
    return Rescale(np.array(multiplier, np.int64), np.array(addend, np.int64), shift)


def products() -> Graph:
    """Convolutions of every coding, borders, thresholds of every form, maximum pooling."""
    rng = np.random.default_rng(1)
    g = pixels(3, 6, 6)
    g.add("stem", Conv2d(wide(rng, 900, 4, 3, 3, 3), pads=SAME), "image")
    classes = np.array([0, 1, 1, 1, 1, 2])
    g.add("border", BorderBias(rng.integers(-50, 50, (4, 3, 3)), classes, classes), "stem")
    steps = np.sort(rng.integers(-90000, 90000, (4, 3)), axis=1)
    g.add("quantizer", Threshold(steps, np.array([1, -1, 1, -1], np.int8), np.arange(4, dtype=np.int32)), "border")
    g.add("ternary", Conv2d(levels(rng, (-1, 0, 1), 6, 4, 3, 3), pads=SAME, stride=(2, 1)), "quantizer")
    g.add("signs", codes(0, table=(-1, 1)), "ternary")
    g.add("grouped", Conv2d(levels(rng, (-1, 1), 6, 3, 1, 1), groups=2), "signs")
    g.add("pool", MaxPool((2, 2), (1, 2), ((0, 0), (1, 1)), dilation=(2, 1)), "grouped")
    g.add("uneven", codes(-2, 0, 3, table=(-7, -1, 2, 40)), "pool")
    g.add("powers", Conv2d(levels(rng, (-4, -2, -1, 0, 1, 2, 4), 3, 6, 1, 2), dilation=(1, 2)), "uneven")
    g.add("small", Conv2d(wide(rng, 7, 2, 3, 1, 1)), "powers")
    g.outputs = ["small", "uneven"]
    return g


def stream() -> Graph:
    """A residual stream in fixed point: rescales, additions in place, clips, storage of 1, 2 and 4 bytes."""
    rng = np.random.default_rng(2)
    g = pixels(2, 4, 4)
    g.add("start", fixed([70001], [1 << 9], 10), "image")
    for i in range(2):
        g.add(f"codes{i}", codes(3000, 9000, 20000), "start" if i == 0 else "sum0")
        g.add(f"conv{i}", Conv2d(levels(rng, (-2, -1, 0, 1), 2, 2, 3, 3), pads=SAME), f"codes{i}")
        g.add(f"fixed{i}", fixed([30000, -20000], [5, 1 << 7], 8), f"conv{i}")
        g.add(f"sum{i}", Add(), f"fixed{i}", "start" if i == 0 else "sum0")
    g.add("relu", Clip(0, None), "sum1")
    g.add("narrow", Rescale(np.array([1]), np.array([0]), 2, -5000, 5000), "relu")
    g.add("mean", SumPool((3, 3), (2, 2), SAME, factors=((9, 6), (6, 4))), "narrow")
    g.add("flat", Reshape((2, 2, 2), (8,)), "mean")
    g.add("logits", Linear(wide(rng, 500, 3, 8)), "flat")
    g.outputs = ["logits", "narrow"]
    return g


def moves() -> Graph:
    """Everything that moves values, and the norm over channels."""
    g = pixels(4, 4, 6)
    g.add("some", Slice(((1, 4, 2), (0, 3, 2), (0, 6, 1))), "image")
    g.add("turned", Transpose((2, 2, 6), (2, 0, 1)), "some")
    g.add("back", Transpose((6, 2, 2), (1, 2, 0)), "turned")
    g.add("padded", Pad(((1, 1), (0, 1), (2, 0))), "back")
    g.add("centred", fixed([2], [-255], 0), "padded")
    g.add("rows", Concat(1), "centred", "padded", "centred")
    g.add("columns", Concat(2), "rows", "rows")
    g.add("channels", Concat(0), "columns", "columns", "columns")
    g.add("total", SumPool((3, 4), (3, 4)), "channels")
    g.add("norm", L2Norm(), "total")
    g.add("table", Reshape((12, 3, 4), (48, 3)), "norm")
    g.outputs = ["table"]
    return g


def unequal_channels() -> Graph:
    """Accumulators that fit only if the range of each channel is known: in steps, and exactly."""
    g = pixels(1, 1, 2)
    g.add("flat", Reshape((1, 1, 2), (2,)), "image")
    g.add("scaled", fixed([1 << 16, 1], [0, 0], 0), "flat")
    g.add("steps", Linear(Weight(np.array([[60, 10000]], np.int32), edge_bits=16)), "scaled")
    g.add("apart", fixed([1 << 16, 1], [0, 0], 0), "flat")
    g.add("exact", Linear(Weight(np.array([[50, 1 << 22]], np.int32), edge_bits=24)), "apart")
    g.outputs = ["steps", "exact"]
    return g


GOLDEN: dict[str, Callable[[], Graph]] = {
    "products": products,
    "stream": stream,
    "moves": moves,
    "unequal-channels": unequal_channels,
}
"""Networks whose files are committed."""
