"""Ranges chosen by the error behind the layer, and bits by the error of the output."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.calibration import calibrate
from qexport.calibration.allocation import FEWEST_BITS, MOST_BITS, _spend
from qexport.calibration.choices import cut, largest_level
from qexport.calibration.output_error import layers_reading, rounded
from qexport.capture.capture import Captured
from qexport.errors import DataError, OptionError
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.reference import interpret

Range = tuple[float, float]


def layer_error(network: Captured, images: NDArray[np.uint8], tensor: str, span: Range, bits: int) -> float:
    """Squared error, relative to the energy, of the layers behind `tensor` when only that is quantized."""
    x = interpret(network.graph, {"image": images}, keep=[tensor]).tensors[tensor]
    total = 0.0
    for node in layers_reading(network.graph, tensor):
        quantized = rounded(x, max(-span[0], span[1]), largest_level(span, bits), signed=span[0] < 0)
        y = node.op.evaluate(x)
        total += float(np.square(node.op.evaluate(quantized) - y).sum() / np.square(y).sum())
    return total


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_output_of_the_layer_is_at_least_as_good_as_with_any_other_method(
    network: Captured, images: NDArray[np.uint8], bits: int
) -> None:
    best = calibrate(network, images, method="output", bits=bits).ranges
    for method in ("max", "average", "percentile", "entropy", "mse"):
        other = calibrate(network, images, method=method, bits=bits).ranges
        for tensor in best:
            allowed = 1.25 if method != "mse" else 1.0 + 1e-9  # the search starts at mse and has steps of 2**(1/4)
            mine = layer_error(network, images, tensor, best[tensor], bits)
            assert mine <= allowed * layer_error(network, images, tensor, other[tensor], bits), (method, tensor)


def test_it_is_the_best_of_what_was_tried(network: Captured, images: NDArray[np.uint8]) -> None:
    start = calibrate(network, images, method="mse", bits=3).ranges
    found = calibrate(network, images, method="output", bits=3).ranges
    largest = calibrate(network, images, method="max").ranges
    for tensor, span in found.items():
        peaks = max(start[tensor]) * 2.0 ** (np.arange(-4, 5) / 4)
        tried = [cut(largest[tensor], min(float(p), max(largest[tensor]))) for p in peaks]
        errors = [layer_error(network, images, tensor, t, 3) for t in tried]
        assert span == tried[int(np.argmin(errors))]


def test_neither_order_nor_batch_size_matters(network: Captured, images: NDArray[np.uint8]) -> None:
    expected = calibrate(network, images, method="output", bits=4)
    shuffled = np.random.default_rng(3).permutation(images)
    assert calibrate(network, [shuffled[:7], shuffled[7:]], method="output", bits=4) == expected


def test_the_quantizer_of_the_search_is_the_one_that_is_built(network: Captured, images: NDArray[np.uint8]) -> None:
    """`rounded` and the Step that quantize_layers adds agree but for ties of float32 thresholds."""
    for bits in (2, 4, 8):
        ranges = calibrate(network, images, bits=bits).ranges
        real = quantize_layers(network.graph, LayerOptions(act_bits=bits, ranges=ranges))
        for tensor, span in ranges.items():
            step = real.node(f"{tensor}.quantized").op
            x = np.random.default_rng(0).uniform(-0.2 * span[1], 1.3 * span[1], (1, 4, 50, 50))
            expected = rounded(x, max(-span[0], span[1]), largest_level(span, bits), signed=span[0] < 0)
            assert np.abs(step.evaluate(x) - expected).max() < 1e-6 * span[1]


def test_images_that_can_be_read_once_are_refused_before_they_are_read(
    network: Captured, images: NDArray[np.uint8]
) -> None:
    batches = iter([images])
    with pytest.raises(DataError, match="the images can be read only once\n  got:      an iterator, and output"):
        calibrate(network, batches, method="output")
    assert next(batches) is images
    with pytest.raises(DataError, match="--act-budget reads them twice"):
        calibrate(network, iter([images]), act_budget=4)
    assert calibrate(network, iter([images])).images == 20


def mean_bits(bits: dict[str, int], macs: dict[str, int]) -> float:
    return sum(bits[name] * macs[name] for name in bits) / sum(macs.values())


def test_bits_go_where_they_remove_most_noise_for_their_cost() -> None:
    """Noise falls by four with every bit."""
    loud, quiet, dear = ({b: weight * 4.0**-b for b in range(2, 9)} for weight in (1e4, 1.0, 1e4))
    macs = {"loud": 10, "quiet": 10, "dear": 1000}
    for budget in (2, 3.1, 5, 8):
        bits = _spend({"loud": loud, "quiet": quiet, "dear": dear}, macs, budget)
        assert mean_bits(bits, macs) <= budget
        assert bits["loud"] >= max(bits["quiet"], bits["dear"])
    assert set(_spend({"loud": loud, "quiet": quiet}, macs, 2).values()) == {FEWEST_BITS}
    assert set(_spend({"loud": loud, "quiet": quiet}, macs, 8).values()) == {MOST_BITS}


@pytest.mark.parametrize("budget", [2, 3, 4.5, 6, 8])
def test_the_budget_is_kept_and_used(network: Captured, images: NDArray[np.uint8], budget: float) -> None:
    found = calibrate(network, images, act_budget=budget)
    bits = [found.bits(tensor) for tensor in found.ranges]  # both feed a convolution of the same size
    assert budget - 0.5 < np.mean(bits) <= budget
    assert found.bits_of == {t: found.bits(t) for t in found.ranges if found.bits(t) != 8}
    for tensor, width in found.bits_of.items():
        assert found.ranges[tensor] == calibrate(network, images, bits=width).ranges[tensor]


def test_wrong_budgets(network: Captured, images: NDArray[np.uint8]) -> None:
    for budget in (1.5, 8.1, float("nan")):
        with pytest.raises(OptionError, match="--act-budget: the budget is out of range"):
            calibrate(network, images, act_budget=budget)
    with pytest.raises(OptionError, match="without images"):
        calibrate(network, act_budget=4)
    with pytest.raises(OptionError, match="keeps no histogram"):
        calibrate(network, images, method="average", act_budget=4)
