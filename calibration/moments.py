"""Mean and covariance of what float layers read, in one pass over the images."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from qexport.calibration.data import Images, Pixels
from qexport.calibration.ranges import each_image
from qexport.ir import Graph, Node, prune
from qexport.ops import Conv2d, Linear
from qexport.ops.base import pad_spatial, windows
from qexport.passes.edge_fit import InputMoments, float_layers
from qexport.reference import interpret

MOST_TAPS = 1152
"""Inputs of one output up to which a covariance is kept: 10 MB. Larger layers get their mean error corrected only."""

MOMENT_IMAGES = 512

SUM_BITS = 40
"""Bits of one image's sums that count; 2^22 images fit int64 beside them."""


class ExactSum:
    """Sum of arrays that depends on no order: each is rounded to a grid of its own largest magnitude."""

    def __init__(self) -> None:
        self._parts: dict[int, NDArray[np.int64]] = {}

    def add(self, values: NDArray[np.float64]) -> None:
        exponent = math.frexp(float(np.abs(values).max(initial=0.0)))[1]
        whole = np.rint(np.ldexp(values, SUM_BITS - exponent)).astype(np.int64)
        self._parts[exponent] = self._parts[exponent] + whole if exponent in self._parts else whole

    def total(self) -> NDArray[np.float64]:
        parts = [np.ldexp(self._parts[e].astype(np.float64), e - SUM_BITS) for e in sorted(self._parts)]
        return np.sum(parts, axis=0)


def input_moments(graph: Graph, images: Images) -> dict[str, InputMoments]:
    """Moments of the real input of every float layer, for `fit_edge_weights`.

    Images are evaluated one by one and sums are exact, so the order and the batch size do not matter.

    Args:
        graph: captured real graph.
        images: read once.

    Raises:
        DataError: there are none.
    """
    layers = float_layers(graph)
    part = prune(Graph(graph.inputs, graph.nodes, list(dict.fromkeys(n.inputs[0] for n in layers)), graph.types))
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, ExactSum] = defaultdict(ExactSum)
    squares: dict[str, ExactSum] = defaultdict(ExactSum)

    def visit(index: int, image: Pixels) -> None:
        run = interpret(part, {next(iter(graph.inputs)): image})
        for node in layers:
            taps = taps_of(node, run.outputs[node.inputs[0]])
            counts[node.name] += taps.shape[1]
            sums[node.name].add(taps.sum(1))
            if taps.shape[2] <= MOST_TAPS:
                squares[node.name].add(taps.transpose(0, 2, 1) @ taps)

    if layers:
        each_image(images, "reading inputs of float layers", visit)
    found = {}
    for name, count in counts.items():
        mean = sums[name].total() / count
        covariance = None
        if name in squares:
            covariance = squares[name].total() / count - mean[:, :, None] * mean[:, None, :]
        found[name] = InputMoments(mean, covariance)
    return found


def taps_of(node: Node, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """What every output position of a layer reads: [G, N * positions, K], K in the order of the weight's axes."""
    op = node.op
    assert isinstance(op, Conv2d | Linear)
    if isinstance(op, Linear):
        return x[None]
    _, per_group, *kernel = op.weight.array.shape
    seen = windows(pad_spatial(x, op.pads), (kernel[0], kernel[1]), op.stride, op.dilation)  # [N, I, H, W, kh, kw]
    n, _, height, width = seen.shape[:4]
    grouped = seen.reshape(n, op.groups, per_group, height, width, *kernel).transpose(1, 0, 3, 4, 2, 5, 6)
    return grouped.reshape(op.groups, n * height * width, -1)
