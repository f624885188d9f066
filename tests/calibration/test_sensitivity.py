"""The cost of each integer choice is that of a network in which only that choice is made."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.calibration import Calibration, calibrate
from qexport.calibration.calibration import Cost
from qexport.calibration.sensitivity import HARMLESS_DB, _stream_changes, sensitivity
from qexport.capture.capture import Captured
from qexport.ir import prune
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.streams import Stream
from qexport.reference import interpret


def costs(network: Captured, images: NDArray[np.uint8], bits: int = 3, edge_bits: int = 4) -> tuple[Cost, ...]:
    return sensitivity(network, calibrate(network, images, bits=bits, streams=True), images, edge_bits=edge_bits)


def decibels(found: NDArray, wanted: NDArray) -> float:
    """Noise relative to each image's energy, averaged over images."""
    per_image = np.square(found - wanted).sum(1) / np.square(wanted).sum(1)
    return float(-10 * np.log10(per_image.mean()))


def test_every_choice_has_its_row(network: Captured, images: NDArray[np.uint8]) -> None:
    found = {(cost.kind, cost.name, cost.bits) for cost in costs(network, images)}
    assert {("activation", "relu", 3), ("activation", "relu1", 3)} <= found
    assert {(kind, name) for kind, name, _ in found} >= {("weights", "stem"), ("weights", "logits")}
    assert len(found) == 4


def test_an_activation_costs_what_the_network_with_only_its_quantizer_loses(
    network: Captured, images: NDArray[np.uint8]
) -> None:
    calibration = calibrate(network, images, bits=3)
    expected = interpret(network.graph, {"image": images}).outputs["logits"]
    found = {cost.name: cost for cost in sensitivity(network, calibration, images) if cost.kind == "activation"}
    real = quantize_layers(network.graph, LayerOptions(act_bits=3, ranges=calibration.ranges))
    for tensor, layer in (("relu", "conv1"), ("relu1", "conv2")):
        quantizer, conv = real.node(f"{tensor}.quantized").op, network.graph.node(layer).op
        x = interpret(network.graph, {"image": images}, keep=[tensor]).tensors[tensor]
        instead = {layer: conv.evaluate(quantizer.evaluate(x))}
        changed = interpret(network.graph, {"image": images}, override=lambda n, v, y=instead: y.get(n, v))
        logits = changed.outputs["logits"]
        assert found[tensor].output_db == pytest.approx(decibels(logits, expected), abs=0.01)
        same = 100 * float((logits.argmax(1) == expected.argmax(1)).mean())
        assert found[tensor].agreement == pytest.approx(same, abs=0.01)


def test_a_sum_in_16_bits(network: Captured, images: NDArray[np.uint8]) -> None:
    """Saturates at its range, and keeps multiples of the step."""
    stream = Stream(Fraction(1, 1024), 16)
    (change,) = _stream_changes(network.graph, {"sum": stream, "wide": replace(stream, bits=32)})
    assert (change.kind, change.name, change.bits) == ("stream", "sum", 16)
    a, b = np.array([0.1, 31.0, -40.0, 1 / 1024]), np.array([0.2, 31.0, -40.0, 0.4 / 1024])
    expected = np.array([(102 + 205) / 1024, 32767 / 1024, -32.0, 1 / 1024])
    assert np.array_equal(change.nodes["sum"](a, b), expected)


def test_weights_cost_what_their_levels_lose(network: Captured, images: NDArray[np.uint8]) -> None:
    """4-bit weights of the last layer: the same as its fitted levels in the float network."""
    real = quantize_layers(network.graph, LayerOptions(edge_bits=4))
    run = interpret(network.graph, {"image": images}, keep=["flat"])
    wanted, weight = run.outputs["logits"], real.node("logits").op.weight.real()
    found = next(cost for cost in costs(network, images) if cost.name == "logits")
    assert found.output_db == pytest.approx(decibels(run.tensors["flat"] @ weight.T, wanted), abs=0.02)
    assert found.bits <= 5


def test_weights_behind_a_moved_normalisation_are_compared_as_they_were(
    network: Captured, images: NDArray[np.uint8]
) -> None:
    """The stem reads pixels, its levels hold the normalisation; wide ones must cost next to nothing."""
    wide = sensitivity(network, calibrate(network, images), images, edge_bits=20)
    assert next(cost for cost in wide if cost.name == "stem").sqnr_db > 90


def test_worst_first_and_a_remedy_for_what_costs_anything(network: Captured, images: NDArray[np.uint8]) -> None:
    found = costs(network, images, bits=3, edge_bits=8)
    keys = [(cost.agreement, cost.output_db) for cost in found]
    assert keys == sorted(keys)
    remedies = {"activation": "--act-bits 4", "weights": "--edge-bits 16"}
    for cost in found:
        harmless = cost.agreement == 100 and cost.output_db >= HARMLESS_DB
        assert cost.remedy == ("" if harmless else remedies[cost.kind])
    assert any(cost.remedy for cost in found) and not all(cost.remedy for cost in found)
    at_eight = [cost for cost in costs(network, images, bits=8) if cost.kind == "activation"]
    assert {cost.remedy for cost in at_eight} <= {"", "method output"}


def test_more_bits_cost_less(network: Captured, images: NDArray[np.uint8]) -> None:
    by_bits = [{c.name: c.sqnr_db for c in costs(network, images, bits=b) if c.kind == "activation"} for b in (2, 4, 8)]
    for few, more in pairwise(by_bits):
        assert all(more[name] > few[name] + 6 for name in few)


def test_what_changes_nothing(zero_network: Captured, images: NDArray[np.uint8]) -> None:
    found = {cost.name: cost for cost in costs(zero_network, images)}
    assert (found["relu"].sqnr_db, found["relu"].output_db, found["relu"].agreement) == (None, None, 100.0)
    assert found["relu"].remedy == ""


def test_order_does_not_matter(network: Captured, images: NDArray[np.uint8]) -> None:
    assert costs(network, images) == costs(network, images[::-1])


def test_no_agreement_where_there_are_no_classes(network: Captured, images: NDArray[np.uint8]) -> None:
    maps = replace(network, graph=prune(replace(network.graph, outputs=["sum"])))
    calibration = Calibration({"relu": (0.0, 1.0)}, {}, 4)
    assert {cost.agreement for cost in sensitivity(maps, calibration, images)} == {None}
