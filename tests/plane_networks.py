"""Networks whose codes the generated C keeps as planes of bits."""

from __future__ import annotations

import zlib

import numpy as np

from qexport.ir import Graph, integer
from qexport.ops import Add, Clip, Conv2d, Rescale, Threshold, Weight


def plane_network(levels: tuple[int, ...], bits: int, *, channels: int = 16, groups: int = 1, stride: int = 1) -> Graph:
    """Stem, codes of `bits` bits, two products with weights of `levels`, and codes added to the second one's result."""
    rng = np.random.default_rng(zlib.crc32(repr((levels, bits, channels, groups, stride)).encode()))
    graph, size = Graph(), 6
    graph.add_input("image", integer((3, size, size), 0, 255))

    def weights(*shape: int) -> Weight:
        return Weight(rng.choice(np.array(levels), shape).astype(np.int32), level_set=levels)

    def codes(name: str, x: str, spread: int) -> None:
        steps = np.sort(rng.integers(-spread, spread, (channels, 2**bits - 1)), axis=1)
        sign = rng.choice([-1, 1], channels).astype(np.int8)
        graph.add(name, Threshold(steps, sign, np.arange(2**bits, dtype=np.int32)), x)

    stem = Weight(rng.integers(-90, 91, (channels, 3, 3, 3)).astype(np.int32), edge_bits=8)
    graph.add("stem", Conv2d(stem, pads=((1, 1), (1, 1))), "image")
    codes("codes0", "stem", 20000)
    window = {"pads": ((1, 1), (1, 1)), "groups": groups}
    graph.add("conv1", Conv2d(weights(channels, channels // groups, 3, 3), stride=(stride, stride), **window), "codes0")
    codes("codes1", "conv1", 20)
    graph.add("conv2", Conv2d(weights(channels, channels // groups, 3, 3), **window), "codes1")
    graph.add("scaled", Rescale(np.array([3]), np.array([1]), 1), "conv2")
    graph.add("sum", Add(), "scaled", "codes1")
    graph.add("relu", Clip(0, None), "sum")
    graph.outputs = ["relu"]
    return graph
