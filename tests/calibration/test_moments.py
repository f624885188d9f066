"""Moments of what float layers read."""

from __future__ import annotations

import numpy as np
import pytest

from qexport.calibration import moments as moments_module
from qexport.calibration.data import open_images
from qexport.calibration.moments import ExactSum, input_moments, taps_of
from qexport.ir import Graph, Node, real
from qexport.ops import Conv2d, Linear, Weight


def weight(*shape: int) -> Weight:
    return Weight(np.random.default_rng(0).normal(0, 1, shape))


LAYERS = {
    "plain": Conv2d(weight(4, 4, 3, 3)),
    "padded": Conv2d(weight(4, 4, 3, 2), pads=((1, 0), (2, 1))),
    "strided": Conv2d(weight(4, 4, 2, 3), stride=(2, 3)),
    "dilated": Conv2d(weight(4, 4, 2, 2), dilation=(2, 1)),
    "grouped": Conv2d(weight(6, 2, 3, 3), groups=2, pads=((1, 1), (1, 1))),
    "depthwise": Conv2d(weight(8, 1, 3, 3), groups=4),
}


@pytest.mark.parametrize("op", LAYERS.values(), ids=list(LAYERS))
def test_taps_times_weights_are_the_layer(op: Conv2d) -> None:
    x = np.random.default_rng(1).normal(0, 1, (2, 4, 7, 8))
    taps = taps_of(Node("layer", op, ("x",)), x)
    rows = op.weight.array.reshape(op.groups, -1, taps.shape[2])
    products = np.einsum("gpk,gok->gop", taps, rows).reshape(len(op.weight.array), 2, -1)
    expected = op.evaluate(x)
    assert np.allclose(products.transpose(1, 0, 2).reshape(expected.shape), expected, rtol=1e-12, atol=1e-12)


def test_sums_depend_on_no_order() -> None:
    rng = np.random.default_rng(2)
    parts = [rng.normal(0, 10.0 ** rng.integers(-9, 9), (3, 3)) for _ in range(50)]
    totals = []
    for order in (range(50), reversed(range(50)), rng.permutation(50)):
        exact = ExactSum()
        for i in order:
            exact.add(parts[i])
        totals.append(exact.total())
    assert totals[0].tobytes() == totals[1].tobytes() == totals[2].tobytes()
    assert np.allclose(totals[0], np.sum(parts, axis=0), rtol=1e-9)


def network() -> Graph:
    graph = Graph()
    graph.add_input("image", real((2, 5, 5), 0, 255))
    graph.add("stem", Conv2d(weight(3, 2, 3, 3), pads=((1, 1), (1, 1))), "image")
    graph.add("head", Conv2d(weight(2, 3, 5, 5)), "stem")
    graph.outputs = ["head"]
    return graph


def test_moments_are_those_of_all_images() -> None:
    """The variance of a layer's output follows from them, whatever the order of the images."""
    graph = network()
    images = np.random.default_rng(3).integers(0, 256, (40, 2, 5, 5)).astype(np.uint8)
    found = input_moments(graph, open_images(images, graph))
    turned = input_moments(graph, open_images(np.ascontiguousarray(images[::-1]), graph))
    for name in ("stem", "head"):
        moments, op = found[name], graph.node(name).op
        assert isinstance(op, Conv2d) and moments.covariance is not None and turned[name].covariance is not None
        assert moments.mean.tobytes() == turned[name].mean.tobytes()
        assert moments.covariance.tobytes() == turned[name].covariance.tobytes()
        x = images.astype(np.float64)
        y = op.evaluate(x) if name == "stem" else op.evaluate(graph.node("stem").op.evaluate(x))
        rows = op.weight.array.reshape(len(op.weight.array), -1)
        assert np.allclose(rows @ moments.mean[0], y.mean((0, 2, 3)), rtol=1e-9)
        assert np.allclose(((rows @ moments.covariance[0]) * rows).sum(1), y.var((0, 2, 3)), rtol=1e-6)


def test_large_layers_keep_the_mean_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments_module, "MOST_TAPS", 20)
    graph = network()
    found = input_moments(graph, open_images(np.full((2, 2, 5, 5), 7, np.uint8), graph))
    assert found["stem"].covariance is not None
    assert found["head"].covariance is None and found["head"].mean.shape == (1, 75)


def test_a_network_without_float_layers_needs_no_image() -> None:
    graph = Graph()
    graph.add_input("image", real((2,), 0, 255))
    levels = Weight(np.array([[1, -1]], np.int32), level_set=(-1, 0, 1))
    graph.outputs = [graph.add("last", Linear(levels), "image")]
    assert input_moments(graph, open_images([], graph)) == {}
