"""Convolutions of few-bit codes, a stem before them, for the kernels that count bits and look up products."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from packed_networks import levels, pixels

from qexport.ir import Graph
from qexport.ops import Conv2d, Threshold, Weight

SAME = ((1, 1), (1, 1))
PAIRED, UNEVEN, TERNARY, FOUR = (-1, 1), (-2, 5), (-1, 0, 1), (-3, -1, 1, 3)
SEVEN = (-4, -2, -1, 0, 1, 2, 4)


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        weights: their levels.
        codes: levels of the inputs.
        window: taps along both axes.
        options: of the convolution.
    """

    weights: tuple[int, ...]
    codes: tuple[int, ...]
    inputs: int
    outputs: int
    window: int = 3
    options: dict = field(default_factory=lambda: {"pads": SAME})


def up_to(count: int) -> tuple[int, ...]:
    return tuple(range(count))


LAYERS = {
    "bits": Layer(PAIRED, (0, 1), 16, 16),
    "bits, wide values": Layer((-900, 900), (0, 1), 8, 5),
    "bits, values beyond 16 bits": Layer((-40000, 40000), (0, 1), 8, 9),
    "bits, codes below zero": Layer(PAIRED, (-1, 0), 16, 32),
    "bits, odd channels": Layer(PAIRED, (0, 1), 11, 19, options={"pads": ((2, 0), (1, 3))}),
    "bits, strided": Layer(PAIRED, (0, 1), 24, 16, options={"pads": SAME, "stride": (2, 3)}),
    "bits, dilated": Layer(PAIRED, (0, 1), 8, 16, options={"pads": ((2, 2), (3, 3)), "dilation": (2, 3)}),
    "bits, more counts than a byte holds": Layer(PAIRED, (0, 1), 72, 17),
    "bits, pointwise": Layer(PAIRED, (0, 1), 40, 16, 1, {}),
    "two levels, two bits": Layer(PAIRED, up_to(4), 16, 16),
    "two levels, signs": Layer(PAIRED, (-1, 1), 18, 20),
    "two levels, one bit, uneven": Layer(UNEVEN, (0, 1), 13, 16, options={"pads": SAME, "stride": (2, 1)}),
    "one level": Layer((3,), (0, 1), 8, 16),
    "ternary, one bit": Layer(TERNARY, (0, 1), 17, 16, options={"pads": ((0, 2), (1, 0))}),
    "ternary, two bits": Layer(TERNARY, up_to(4), 32, 33),
    "four levels, two bits": Layer(FOUR, up_to(4), 16, 16, options={"pads": SAME, "dilation": (1, 2)}),
    "four levels, signed codes": Layer(FOUR, (-3, -1, 1, 3), 10, 16),
    "four levels, four bits": Layer((-1, 0, 1, 2), up_to(11), 7, 16),
    "sums leave 16 bits": Layer((8, 10), (0, 1), 1600, 4, options={}),
    "seven levels": Layer(SEVEN, up_to(4), 16, 16),
    "seven levels, pointwise": Layer(SEVEN, up_to(9), 21, 40, 1, {}),
    "seven levels, strided": Layer(SEVEN, up_to(100), 12, 17, options={"pads": SAME, "stride": (2, 2)}),
    "large codes": Layer(TERNARY, up_to(17), 16, 16),
    "bytes above 127": Layer(SEVEN, (-100, 0, 30, 155), 9, 18, options={"pads": ((1, 2), (0, 1))}),
    "bytes above 127, wide weights": Layer((-30000, 7, 29999), (0, 1, 200), 5, 8),
    "groups": Layer(PAIRED, (0, 1), 16, 16, options={"pads": SAME, "groups": 2}),
    "groups, dilated": Layer(SEVEN, up_to(40), 12, 15, options={"groups": 3, "dilation": (2, 1)}),
    "depthwise": Layer((-5, 3, 9), up_to(30), 21, 21, options={"pads": SAME, "groups": 21}),
    "depthwise, strided": Layer((-5, 3, 9), up_to(200), 24, 24, options={"pads": SAME, "groups": 24, "stride": (2, 2)}),
    "depthwise, even taps": Layer((-5, 3, 9), (-2, 0, 7), 16, 16, 2, {"groups": 16, "dilation": (1, 2)}),
}


def layer_graph(name: str) -> Graph:
    """Image, stem, codes of each channel's own thresholds and signs, and the layer."""
    layer = LAYERS[name]
    rng = np.random.default_rng(len(name))
    g = pixels(2, 7, 9) if layer.inputs < 1000 else pixels(2, 3, 3)
    stem = rng.integers(-90, 91, (layer.inputs, 2, 1, 1)).astype(np.int32)
    g.add("stem", Conv2d(Weight(stem, edge_bits=8)), "image")
    steps = np.sort(rng.integers(-20000, 20000, (layer.inputs, len(layer.codes) - 1)), axis=1)
    sign = rng.choice(np.array([-1, 1], np.int8), layer.inputs)
    g.add("codes", Threshold(steps, sign, np.array(layer.codes, np.int32)), "stem")
    shape = layer.outputs, layer.inputs // layer.options.get("groups", 1), layer.window, layer.window
    g.add("layer", Conv2d(levels(rng, layer.weights, *shape), **layer.options), "codes")
    g.outputs = ["layer"]
    return g


def layer_images(graph: Graph) -> dict[str, np.ndarray]:
    """Two random images."""
    ((name, image),) = graph.inputs.items()
    return {name: np.random.default_rng(4).integers(0, 256, (2, *image.shape)).astype(np.uint8)}
