"""Codes of seeded networks: every one that differs from the frozen or the edge-quantized network has its cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qexport.calibration import calibrate
from qexport.checkpoints import save_native
from qexport.conversion.build import Built, build
from qexport.conversion.settings import Settings
from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.registry import architecture
from qexport.models.seeded import random_images, seeded
from qexport.reference import interpret
from qexport.validation.explain import Explainer
from qexport.validation.report import FixedPointResult, LayerResult

torch.set_num_threads(1)

QUICK = {("ssd_small", "daq-w3a3"), ("ssd_small", "qn-w2a32"), ("resnet20", "daq-w2a2")}
SLOW = {(name, pair) for name in SMALL_INPUTS for pair in ("qn-w2a2", "daq-w2a2")} - QUICK


def built(name: str, pair: str, folder: Path, edge_bits: int | None = None) -> tuple[Built, NDArray[np.uint8]]:
    """A seeded network at its small input, calibrated on four images, and those."""
    chosen, small = PAIRS[pair], SMALL_INPUTS[name]
    arch, shape = f"{chosen.scheme}-{name}", small.input_shape
    data, arguments = architecture(arch).preprocessing, {**small.arguments, **chosen.arguments}
    checkpoint = folder / "seeded.pt"
    model = seeded(arch, input_shape=shape, **arguments)
    save_native(checkpoint, model, arch=arch, arguments=arguments, input_shape=shape, mean=data.mean, std=data.std)
    torch.manual_seed(1)
    images = random_images(shape, 4).numpy()
    with_images = lambda n: calibrate(n.captured, images, bits=n.settings.float_act_bits)  # noqa: E731
    return build(checkpoint, Settings(edge_bits=edge_bits), calibrate_network=with_images), images


def explained(found: Built, images: NDArray[np.uint8]) -> tuple[dict[str, LayerResult], list[FixedPointResult]]:
    explainer = Explainer(found.lowered, found.captured.graph)
    feeds = {"image": images}
    integers = interpret(found.graph, feeds, keep="*").tensors
    explainer.add(feeds, integers, explainer.run_free(feeds), explainer.run_frozen(feeds))
    layers, fixed = explainer.results()
    return {layer.name: layer for layer in layers}, fixed


@pytest.mark.parametrize(
    ("name", "pair"),
    [*sorted(QUICK), *(pytest.param(*row, marks=pytest.mark.slow) for row in sorted(SLOW))],
)
def test_every_difference_has_its_cause(name: str, pair: str, tmp_path: Path) -> None:
    found, images = built(name, pair, tmp_path)
    layers, fixed = explained(found, images)
    assert layers.keys() == found.lowered.folds.keys() and fixed
    assert not [layer for layer in layers.values() if layer.unexplained]
    assert not [point for point in fixed if point.unexplained]
    assert all(layer.differing == layer.ties + layer.propagated for layer in layers.values())
    assert all(point.largest_error <= point.bound for point in fixed)
    trained = {node.name for node in found.captured.graph.nodes}
    calibrated = [layer for layer in layers.values() if layer.name not in trained]
    assert all(layer.frozen_differing == layer.edges == 0 for layer in calibrated)
    assert calibrated or "a32" not in pair


def test_coarse_edges_are_named_as_the_cause(tmp_path: Path) -> None:
    """With a stem of four bits nothing else changes the first quantizer's codes; behind it they propagate too."""
    coarse, images = built("resnet20", "daq-w2a2", tmp_path, edge_bits=4)
    layers, _ = explained(coarse, images)
    first, *later = layers.values()
    assert first.differing == first.ties and not any(layer.unexplained for layer in layers.values())
    assert first.frozen_differing > 100 and first.edges == first.frozen_differing
    assert sum(layer.frozen_differing for layer in later) > sum(layer.edges for layer in later) > 0
    fine, _ = explained(built("resnet20", "daq-w2a2", tmp_path)[0], images)
    assert fine[first.name].frozen_differing < first.frozen_differing / 100


def test_a_network_without_edges_differs_from_the_frozen_one_by_ties_alone(tmp_path: Path) -> None:
    """The frozen graph put in place of the edge-quantized one's: nothing is left for the edges to explain."""
    found, images = built("resnet20", "daq-w2a2", tmp_path, edge_bits=8)
    explainer = Explainer(found.lowered, found.lowered.real)
    feeds = {"image": images}
    integers = interpret(found.graph, feeds, keep="*").tensors
    free = explainer.run_free(feeds)
    explainer.add(feeds, integers, free, explainer.run_frozen(feeds))
    for layer in explainer.results()[0]:
        assert layer.frozen_differing == layer.differing and layer.edges == 0
