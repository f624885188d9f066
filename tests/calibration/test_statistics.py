"""Ranges from batch norm: the propagated moments are those of samples, and limits follow them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.calibration import measure_ranges, ranges_from_statistics
from qexport.calibration.statistics import COLOUR_CORRELATION, NEIGHBOUR_CORRELATION, PIXEL_STD
from qexport.capture.capture import Captured
from qexport.ir import Graph, real
from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    Clip,
    Concat,
    Conv2d,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Step,
    Weight,
)
from qexport.stepfunction import StepFunction

MEAN, STD = np.array([0.5, -2.0, 3.0]), np.array([1.0, 0.5, 2.0])
SAMPLES = 400_000


def normal(rng: np.random.Generator) -> NDArray[np.float64]:
    """[SAMPLES, 3] from the Gaussians MEAN, STD."""
    return rng.normal(MEAN, STD, (SAMPLES, 3))


def two_norms(*ops: Op) -> tuple[Graph, dict[str, tuple[NDArray, NDArray]]]:
    """Batch-norm outputs "a" and "b" of equal statistics, then the ops as a chain behind "a"; "b" is second operand."""
    graph = Graph()
    graph.add_input("image", real((3, 4, 4), 0.0, 255.0))
    identity = Affine((Fraction(1),) * 3, (Fraction(0),) * 3)
    eye = Weight(np.eye(3).reshape(3, 3, 1, 1) * 1e6)
    for name in ("a", "b"):
        graph.add(f"{name}.conv", Conv2d(eye), "image")
        graph.add(f"{name}.norm", identity, f"{name}.conv")
        # Behind the statistics a second affine keeps proven ranges, which cut estimates, wide on both sides.
        graph.add(name, Affine((Fraction(1),) * 3, (Fraction(-100_000_000),) * 3), f"{name}.norm")
    tensor = "a"
    for i, op in enumerate(ops):
        others = ("b",) if isinstance(op, Add | Concat) else ()
        tensor = graph.add(f"op{i}", op, tensor, *others)
    return graph, {"a": (MEAN, STD), "b": (MEAN, STD)}


def last_range(*ops: Op, deviations: float = 4.0) -> tuple[float, float]:
    graph, statistics = two_norms(*ops)
    return ranges_from_statistics(graph, statistics, deviations)[f"op{len(ops) - 1}"]


def test_batch_norm_gives_mean_plus_and_minus_deviations() -> None:
    graph, statistics = two_norms()
    assert ranges_from_statistics(graph, statistics, 4.0)["a"] == (3.0 - 8.0, 3.0 + 8.0)


def test_affine_and_clip_follow_the_limits() -> None:
    flip = Affine((Fraction(-1),) * 3, (Fraction(1),) * 3)
    assert last_range(flip) == (1.0 - 11.0, 1.0 + 5.0)
    assert last_range(Clip(Fraction(0))) == (0.0, 11.0)
    assert last_range(Clip(Fraction(0), Fraction(6))) == (0.0, 6.0)


def test_a_sum_of_independent_summands(rng: np.random.Generator) -> None:
    lo, hi = last_range(Add())
    samples = normal(rng) + normal(rng)
    assert (lo, hi) == pytest.approx(
        ((samples.mean(0) - 4 * samples.std(0)).min(), (samples.mean(0) + 4 * samples.std(0)).max()), rel=0.01
    )


@pytest.mark.parametrize(
    ("op", "function"),
    [
        (Clip(Fraction(0)), lambda x: np.maximum(x, 0)),
        (Clip(Fraction(-1), Fraction(2)), lambda x: np.clip(x, -1, 2)),
        (PRelu((Fraction(1, 4),) * 3), lambda x: np.where(x > 0, x, x / 4)),
        (Clip(None, Fraction(-50)), lambda x: np.minimum(x, -50)),
    ],
    ids=["relu", "hardtanh", "prelu", "constant"],
)
def test_moments_behind_a_nonlinearity_are_those_of_samples(op: Op, function: object, rng: np.random.Generator) -> None:
    """A following sum shows the moments: they decide its limits wherever those of its operands do not cut them."""
    graph, statistics = two_norms(op, Add())
    lo, hi = ranges_from_statistics(graph, statistics, 4.0)["op1"]
    samples = function(normal(rng)) + normal(rng)  # type: ignore[operator]
    mean, std = samples.mean(0), samples.std(0)
    operand_lo, operand_hi = function(MEAN - 4 * STD), function(MEAN + 4 * STD)  # type: ignore[operator]
    expected_lo = np.maximum(mean - 4 * std, operand_lo + MEAN - 4 * STD).min()
    expected_hi = np.minimum(mean + 4 * std, operand_hi + MEAN + 4 * STD).max()
    assert (lo, hi) == pytest.approx((expected_lo, expected_hi), rel=0.01)


def test_ops_that_move_values_move_their_limits() -> None:
    whole = (-5.0, 11.0)
    assert last_range(Slice(((0, 1, 1), (0, 4, 2), (0, 4, 2)))) == (0.5 - 4.0, 0.5 + 4.0)
    assert last_range(Pad(((1, 1), (0, 0), (0, 0)))) == whole
    assert last_range(Slice(((1, 2, 1), (0, 4, 1), (0, 4, 1))), Pad(((0, 0), (1, 1), (0, 0)))) == (-4.0, 0.0)
    assert last_range(Concat()) == whole
    assert last_range(Reshape((3, 4, 4), (48,))) == whole
    assert last_range(MaxPool((2, 2), (2, 2))) == whole
    assert last_range(AvgPool((4, 4), (4, 4))) == whole


def test_a_quantizer_is_bounded_by_its_values() -> None:
    step = Step(StepFunction.uniform(Fraction(1, 2), 0, 3))
    assert last_range(step) == (0.0, 1.5)


def test_the_first_convolution_sees_a_natural_image() -> None:
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0.0, 255.0))
    weight = np.zeros((3, 3, 3, 3))
    weight[0, 1, 1, 1] = 2.0  # one tap
    weight[1, 0, 0, :2] = (1.0, -1.0)  # neighbours
    weight[2, :2, 0, 0] = (1.0, -1.0)  # colours
    for channel in range(3):
        graph.add(f"conv{channel}", Conv2d(Weight(weight[channel : channel + 1])), "image")
    found = ranges_from_statistics(graph, {}, 1.0)
    widths = [(found[f"conv{c}"][1] - found[f"conv{c}"][0]) / 2 / PIXEL_STD for c in range(3)]
    expected = [2.0, np.sqrt(2 - 2 * NEIGHBOUR_CORRELATION), np.sqrt(2 - 2 * COLOUR_CORRELATION)]
    assert widths == pytest.approx(expected)


def test_depthwise_first_convolution() -> None:
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0.0, 255.0))
    weight = np.array([1.0, 2.0, -1.0]).reshape(3, 1, 1, 1)
    graph.add("conv", Conv2d(Weight(weight), groups=3), "image")
    # One deviation of pixels round their mean, times each weight.
    assert ranges_from_statistics(graph, {}, 1.0)["conv"] == pytest.approx((-115.0 - 64.0, 2 * (115.0 + 64.0)))


def test_proven_limits_cut_estimates() -> None:
    graph = Graph()
    graph.add_input("image", real((1, 4, 4), 0.0, 255.0))
    graph.add("conv", Conv2d(Weight(np.ones((1, 1, 1, 1)))), "image")
    assert ranges_from_statistics(graph, {}, 100.0)["conv"] == (0.0, 255.0)


def test_layers_without_batch_norm_are_left_out(network_without_norm: Captured, network: Captured) -> None:
    without = ranges_from_statistics(network_without_norm.graph, {}, 6.0)
    assert "relu" in without and "relu1" not in without and "sum" not in without
    known = ranges_from_statistics(network.graph, network.statistics, 6.0)
    assert {"relu", "relu1", "sum", "relu2", "flat"} <= set(known) and "logits" not in known


def test_estimates_are_near_what_smooth_images_give(rng: np.random.Generator, network: Captured) -> None:
    """The stem has no batch norm: its estimate must be of the size that images with smooth content reach."""
    coarse = rng.normal(115.0, 64.0, (200, 3, 1, 1)) + rng.normal(0.0, 8.0, (200, 3, 6, 6))
    images = np.clip(coarse, 0, 255).astype(np.uint8)
    measured = measure_ranges(network.graph, ["relu"], images)["relu"][1]
    estimated = ranges_from_statistics(network.graph, network.statistics, 4.0)["relu"][1]
    assert 0.4 < estimated / measured < 4.0
