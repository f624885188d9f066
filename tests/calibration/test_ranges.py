"""Measured ranges: exact, independent of order and batch size, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.calibration import METHOD_NAMES, measure_ranges
from qexport.capture.capture import Captured
from qexport.datasets import open_dataset
from qexport.errors import DataError, GraphError, OptionError
from qexport.ir import Graph, real
from qexport.ops import Clip
from qexport.reference import interpret

TENSORS = ("relu", "relu1", "sum", "logits")


def batches(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    return [images[i : i + size] for i in range(0, len(images), size)]


def test_max_is_the_extremes_of_the_network(network: Captured, images: NDArray[np.uint8]) -> None:
    found = measure_ranges(network.graph, TENSORS, images)
    tensors = interpret(network.graph, {"image": images}, keep=TENSORS).tensors
    assert list(found) == list(TENSORS)
    for name, (lo, hi) in found.items():
        assert lo == pytest.approx(tensors[name].min(), rel=1e-12)
        assert hi == pytest.approx(tensors[name].max(), rel=1e-12)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_neither_order_nor_batch_size_matters(network: Captured, images: NDArray[np.uint8], method: str) -> None:
    def measure(data: object) -> dict[str, tuple[float, float]]:
        return measure_ranges(network.graph, TENSORS, data, method, 99.0)

    expected = measure(images)
    assert measure(batches(images, 1)) == expected
    assert measure(batches(images[::-1], 7)) == expected
    assert measure(batch for batch in batches(np.random.default_rng(1).permutation(images), 3)) == expected


def test_data_sets_and_arrays_are_the_same(network: Captured, images: NDArray[np.uint8], tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images)
    dataset = open_dataset(tmp_path / "images.npy", (3, 6, 6))
    assert measure_ranges(network.graph, TENSORS, dataset) == measure_ranges(network.graph, TENSORS, images)


def test_percentile_lies_within_max_and_100_equals_it(network: Captured, images: NDArray[np.uint8]) -> None:
    largest = measure_ranges(network.graph, TENSORS, images)
    assert measure_ranges(network.graph, TENSORS, images, "percentile", 100) == largest
    clipped = measure_ranges(network.graph, TENSORS, images, "percentile", 95)
    for name, (lo, hi) in clipped.items():
        assert largest[name][0] <= lo < hi < largest[name][1]


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_one_image(network: Captured, images: NDArray[np.uint8], method: str) -> None:
    ((lo, hi),) = measure_ranges(network.graph, ["sum"], images[:1], method).values()
    values = interpret(network.graph, {"image": images[:1]}, keep=["sum"]).tensors["sum"]
    if method in ("mse", "entropy", "output"):
        assert values.min() <= lo < 0 < hi <= values.max()
    else:
        assert (lo, hi) == (values.min(), values.max())


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_activations_that_are_always_zero(zero_network: Captured, images: NDArray[np.uint8], method: str) -> None:
    assert measure_ranges(zero_network.graph, ["relu"], images, method) == {"relu": (0.0, 0.0)}


def test_no_tensors_no_ranges(network: Captured, images: NDArray[np.uint8]) -> None:
    assert measure_ranges(network.graph, [], images) == {}


def test_quiet_when_not_a_terminal(
    network: Captured, images: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    measure_ranges(network.graph, TENSORS, images)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", [[], np.zeros((0, 3, 6, 6), np.uint8)], ids=["no_batches", "empty_array"])
def test_no_images(network: Captured, data: object) -> None:
    with pytest.raises(DataError) as caught:
        measure_ranges(network.graph, TENSORS, data)
    for part in ("there are no calibration images", "1 or more", "remedy"):
        assert part in str(caught.value)


def test_activations_that_are_not_finite() -> None:
    graph = Graph()
    graph.add_input("image", real((1, 2, 2), 0.0, 255.0))
    graph.add("out", Clip(float("inf")), "image")
    graph.outputs = ["out"]
    with pytest.raises(DataError) as caught:
        measure_ranges(graph, ["out"], np.zeros((2, 1, 2, 2), np.uint8))
    for part in ("out: an activation is not finite", "inf for image 0", "--mean and --std"):
        assert part in str(caught.value)


def test_wrong_options(network: Captured, images: NDArray[np.uint8]) -> None:
    with pytest.raises(OptionError, match=r"unknown calibration method\n  got:      magic\n  expected: max, aver"):
        measure_ranges(network.graph, TENSORS, images, "magic")
    for percentile in (50.0, 100.1, float("nan")):
        with pytest.raises(OptionError, match="the percentile is out of range") as caught:
            measure_ranges(network.graph, TENSORS, images, "percentile", percentile)
        assert str(percentile) in str(caught.value) and "remedy" in str(caught.value)
    with pytest.raises(GraphError, match=r"no such tensor to measure\n  got:      \['nowhere'\]"):
        measure_ranges(network.graph, ["nowhere"], images)
