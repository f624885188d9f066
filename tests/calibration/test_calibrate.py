"""Calibration as conversion uses it: which tensors, from which source, and that the integer network is good with it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.calibration import DEFAULT_METHOD, METHOD_NAMES, calibrate, measure_ranges, ranges_from_statistics
from qexport.capture.capture import Captured
from qexport.errors import DataError, OptionError
from qexport.ir import Graph
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.reference import interpret


def convert(captured: Captured, ranges: dict[str, tuple[float, float]]) -> Lowered:
    return lower(quantize_layers(captured.graph, LayerOptions(ranges=ranges)))


def logits(lowered: Lowered, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    output = lowered.outputs[0]
    batches = (images[i : i + 8] for i in range(0, len(images), 8))
    return np.concatenate(
        [interpret(lowered.graph, {"image": b}).outputs[output.tensor] * float(output.scale) for b in batches]
    )


def test_inputs_of_low_bit_layers_are_measured(network: Captured, images: NDArray[np.uint8]) -> None:
    # "flat" feeds the float linear layer, which takes it as wide fixed point.
    found = calibrate(network, images)
    assert found.ranges == measure_ranges(network.graph, ["relu", "relu1"], images, DEFAULT_METHOD)
    assert (found.streams, found.bits_of, found.images) == ({}, {}, 20)


def test_streams_get_their_extremes_whatever_the_method(network: Captured, images: NDArray[np.uint8]) -> None:
    found = calibrate(network, images, method="percentile", percentile=90, streams=True)
    assert found.ranges == measure_ranges(network.graph, ["relu", "relu1"], images, "percentile", 90)
    assert set(found.streams) == {"bn2", "shortcut", "sum"}
    assert found.streams == measure_ranges(network.graph, found.streams, images)


def test_without_data_batch_norm_is_asked(network: Captured) -> None:
    for bits, deviations in ((2, 3.0), (4, 4.0), (6, 6.0), (8, 8.0)):
        known = ranges_from_statistics(network.graph, network.statistics, deviations)
        assert calibrate(network, bits=bits).ranges == {name: known[name] for name in ("relu", "relu1")}
    found = calibrate(network, bits=6, streams=True)
    assert (found.streams, found.act_bits, found.images, found.describe()) == ({}, 6, 0, "batch-norm statistics")


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_integer_network_is_near_the_float_one(network: Captured, images: NDArray[np.uint8], method: str) -> None:
    expected = interpret(network.graph, {"image": images}).outputs["logits"]
    ranges = calibrate(network, images, method=method, percentile=99.9).ranges
    found = logits(convert(network, ranges), images)
    assert np.square(found - expected).sum() < (1e-2 if method == "average" else 1e-3) * np.square(expected).sum()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_activations_that_are_always_zero_convert(
    zero_network: Captured, images: NDArray[np.uint8], method: str
) -> None:
    expected = interpret(zero_network.graph, {"image": images}).outputs["logits"]
    ranges = calibrate(zero_network, images, method=method).ranges
    assert ranges["relu"] == (0.0, 1.0)
    found = logits(convert(zero_network, ranges), images)
    assert found == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_one_image_is_enough_to_convert(network: Captured, images: NDArray[np.uint8], method: str) -> None:
    convert(network, calibrate(network, images[:1], method=method).ranges)


def test_without_data_and_without_batch_norm(network_without_norm: Captured) -> None:
    with pytest.raises(DataError) as caught:
        calibrate(network_without_norm)
    for part in ("relu1: the network's float activations have no range", "1 such activations: relu1", "--calibration-"):
        assert part in str(caught.value)


def test_wrong_options_and_images(network: Captured, images: NDArray[np.uint8]) -> None:
    with pytest.raises(OptionError, match="unknown calibration method"):
        calibrate(network, images, method="magic")
    with pytest.raises(DataError, match="there are no calibration images"):
        calibrate(network, images[:0])


def test_import_needs_no_torch() -> None:
    code = "import sys, qexport.calibration, qexport.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_one_bit_holds_no_sign(method: str, network: Captured, images: NDArray[np.uint8]) -> None:
    assert convert(network, calibrate(network, images, method=method, bits=1).ranges)  # behind ReLUs it is enough
    graph = Graph(network.graph.inputs, [], ["conv1"], dict(network.graph.inputs))
    for node in network.graph.nodes[:2]:
        graph.add(node.name, node.op, *node.inputs)
    graph.add("conv1", network.graph.node("conv1").op, "stem")
    signed = Captured(graph, {})
    with pytest.raises(OptionError, match="stem: an activation with negative values needs 2 bits or more"):
        calibrate(signed, images, method=method, bits=1)
    lo, hi = calibrate(signed, images, method=method, bits=2).ranges["stem"]
    assert lo < 0 < hi
