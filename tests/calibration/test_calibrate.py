"""Calibration as conversion uses it: which tensors, from which source, and that the integer network is good with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.calibration import calibrate, measure_ranges, ranges_from_statistics
from qexport.capture.capture import Captured
from qexport.datasets import open_dataset
from qexport.errors import DataError, OptionError
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
    assert calibrate(network, images) == measure_ranges(network.graph, ["relu", "relu1"], images)


def test_streams_get_their_extremes_whatever_the_method(network: Captured, images: NDArray[np.uint8]) -> None:
    found = calibrate(network, images, method="percentile", percentile=90, streams=True)
    assert set(found) == {"relu", "relu1", "bn2", "shortcut", "sum"}
    extremes = measure_ranges(network.graph, found, images)
    clipped = measure_ranges(network.graph, found, images, "percentile", 90)
    for name, span in found.items():
        assert span == (clipped if name in ("relu", "relu1") else extremes)[name]


def test_without_data_batch_norm_is_asked(network: Captured) -> None:
    known = ranges_from_statistics(network.graph, network.statistics)
    assert calibrate(network) == {name: known[name] for name in ("relu", "relu1")}
    assert calibrate(network, streams=True) == calibrate(network)


@pytest.mark.parametrize("method", ["max", "percentile"])
def test_the_integer_network_is_near_the_float_one(network: Captured, images: NDArray[np.uint8], method: str) -> None:
    expected = interpret(network.graph, {"image": images}).outputs["logits"]
    ranges = calibrate(network, images, method=method, percentile=99.9)  # type: ignore[arg-type]
    found = logits(convert(network, ranges), images)
    assert np.square(found - expected).sum() < 1e-3 * np.square(expected).sum()


def test_activations_that_are_always_zero_convert(zero_network: Captured, images: NDArray[np.uint8]) -> None:
    expected = interpret(zero_network.graph, {"image": images}).outputs["logits"]
    ranges = calibrate(zero_network, images)
    assert ranges["relu"] == (0.0, 1.0)
    found = logits(convert(zero_network, ranges), images)
    assert found == pytest.approx(expected, abs=1e-2)


def test_one_image_is_enough_to_convert(network: Captured, images: NDArray[np.uint8]) -> None:
    convert(network, calibrate(network, images[:1]))


def test_without_data_and_without_batch_norm(network_without_norm: Captured) -> None:
    with pytest.raises(DataError) as caught:
        calibrate(network_without_norm)
    for part in ("relu1: the network's float activations have no range", "1 such activations: relu1", "--calibration-"):
        assert part in str(caught.value)


def test_wrong_options_and_images(network: Captured, images: NDArray[np.uint8]) -> None:
    with pytest.raises(OptionError, match="unknown calibration method"):
        calibrate(network, images, method="magic")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there are no calibration images"):
        calibrate(network, images[:0])


def test_import_needs_no_torch() -> None:
    code = "import sys, qexport.calibration, qexport.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no_data"])
def test_real_weight_only_network(weight_only: Captured, data_dir: Path, with_data: bool) -> None:
    """DAQ W1A32, whose stem has no batch norm: 8-bit activations within 1.5 points of the float network."""
    shape = (3, 32, 32)
    images = open_dataset(data_dir / "cifar10" / "calibration.npz", shape, limit=64).images()
    test = open_dataset(data_dir / "cifar10" / "test.npz", shape, limit=200)
    golden = np.load(data_dir / "checkpoints" / "daq" / "cifar10_W1A32.logits.npy")[:200]
    found = logits(convert(weight_only, calibrate(weight_only, images if with_data else None)), test.images())
    assert (found.argmax(1) == golden.argmax(1)).mean() >= 0.97
    drop = (golden.argmax(1) == test.labels).mean() - (found.argmax(1) == test.labels).mean()
    assert drop <= 0.015


@pytest.fixture(scope="module")
def weight_only(data_dir: Path) -> Captured:
    import torch

    from qexport.capture import capture
    from qexport.checkpoints import load_checkpoint
    from qexport.freeze.model import freeze

    checkpoint = load_checkpoint(data_dir / "checkpoints" / "daq" / "cifar10_W1A32.pth", weight_bits=1)
    module = freeze(checkpoint.model, torch.zeros(2, 3, 32, 32)).module
    return capture(module, (3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
