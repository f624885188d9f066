"""A small residual network with float activations, built directly as a real graph."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.capture.capture import Captured
from qexport.ir import Graph, real
from qexport.ops import Add, Affine, Clip, Conv2d, Linear, Pad, Reshape, Weight

SIZE = 6
CHANNELS = 4


def affine(gain: NDArray, bias: NDArray) -> Affine:
    return Affine(tuple(Fraction(float(g)) for g in gain), tuple(Fraction(float(b)) for b in bias))


def build(rng: np.random.Generator, *, zero_stem: bool = False, batch_norm: bool = True) -> Captured:
    """stem -> relu -> [ternary conv -> bn -> relu -> ternary conv -> bn] + shortcut -> relu -> linear on all pixels.

    Tensors: "relu" feeds conv1 and the shortcut, "relu1" feeds conv2, "sum" is the addition, "relu2" the linear.
    """
    graph, statistics = Graph(), {}
    graph.add_input("image", real((3, SIZE, SIZE), 0.0, 255.0))
    graph.add("normalize", affine(np.full(3, 1 / 64), np.full(3, -115 / 64)), "image")
    stem = rng.normal(size=(CHANNELS, 3, 3, 3)) * (0.0 if zero_stem else 0.3)
    graph.add("stem", Conv2d(Weight(stem), pads=((1, 1), (1, 1))), "normalize")
    graph.add("relu", Clip(Fraction(0)), "stem")
    tensor = "relu"
    for i in (1, 2):
        levels = rng.integers(-1, 2, (CHANNELS, CHANNELS, 3, 3)).astype(np.int32)
        weight = Weight(levels, (Fraction(1, 8),) * CHANNELS, level_set=(-1, 0, 1))
        tensor = graph.add(f"conv{i}", Conv2d(weight, pads=((1, 1), (1, 1))), tensor)
        if batch_norm:
            gain, bias = rng.normal(size=CHANNELS), rng.normal(size=CHANNELS)
            tensor = graph.add(f"bn{i}", affine(gain, bias), tensor)
            statistics[tensor] = (bias, np.abs(gain))
        if i == 1:
            tensor = graph.add("relu1", Clip(Fraction(0)), tensor)
    graph.add("shortcut", Pad(((0, 0), (0, 0), (0, 0))), "relu")
    graph.add("sum", Add(), tensor, "shortcut")
    graph.add("relu2", Clip(Fraction(0)), "sum")
    features = CHANNELS * SIZE * SIZE
    graph.add("flat", Reshape((CHANNELS, SIZE, SIZE), (features,)), "relu2")
    graph.add("logits", Linear(Weight(rng.normal(size=(5, features)) * 0.1)), "flat")
    graph.outputs = ["logits"]
    return Captured(graph, statistics)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def network(rng: np.random.Generator) -> Captured:
    return build(rng)


@pytest.fixture
def zero_network(rng: np.random.Generator) -> Captured:
    """The stem's weights are zero, so the activation behind it is always zero."""
    return build(rng, zero_stem=True)


@pytest.fixture
def network_without_norm(rng: np.random.Generator) -> Captured:
    return build(rng, batch_norm=False)


@pytest.fixture
def images(rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [20, 3, 6, 6]"""
    return rng.integers(0, 256, (20, 3, SIZE, SIZE)).astype(np.uint8)
