"""Calibrated residual streams of 16 bits: within their bound on the data that was measured, saturating beyond it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from agreement import check_agreement

from qexport.ir import Graph, real, verify
from qexport.ops import Add, Affine, Clip, Conv2d, Step, Weight
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.passes.streams import choose_streams
from qexport.reference import interpret
from qexport.stepfunction import StepFunction


def stream(threshold: float = 6.0, bend: bool = True) -> Graph:
    """stem -> [+ conv(step(x))] three times -> step: one stream, whose Adds share a step through the ReLUs."""
    rng = np.random.default_rng(2)
    graph = Graph()
    graph.add_input("image", real((3, 4, 4), 0, 255))
    x = graph.add("stem", Affine((Fraction(1, 16),) * 3, (Fraction(-8),) * 3), "image")
    for i in range(3):
        function = StepFunction.from_values(np.float32([-threshold, threshold]), np.float32([-1, 0, 1]))
        codes = graph.add(f"step{i}", Step(function), x)
        weight = Weight(
            rng.integers(-1, 2, (3, 3, 3, 3)).astype(np.int32), (Fraction(3, 10),) * 3, level_set=(-1, 0, 1)
        )
        product = graph.add(f"conv{i}", Conv2d(weight, pads=((1, 1), (1, 1))), codes)
        x = graph.add(f"add{i}", Add(), x, product)
        x = graph.add(f"relu{i}", Clip(Fraction(0), None), x) if bend else x
    graph.outputs = [graph.add("last", Step(StepFunction.uniform(Fraction(threshold), 0, 3)), x)]
    return quantize_layers(graph, LayerOptions())


def images(low: int, high: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, (32, 3, 4, 4))


def measured(graph: Graph, x: np.ndarray) -> dict[str, tuple[float, float]]:
    run = interpret(graph, {"image": x}, keep=["*"])
    return {name: (float(v.min()), float(v.max())) for name, v in run.tensors.items()}


def narrowed(graph: Graph, x: np.ndarray) -> Lowered:
    low = lower(graph, measured(graph, x))
    verify(low.graph, require_integer=True)
    return low


def test_all_adds_of_a_stream_share_a_format() -> None:
    graph = stream()
    formats = choose_streams(graph, {})
    assert len(formats) == 3
    assert len(set(formats.values())) == 1
    assert next(iter(formats.values())).bits == 32


def test_narrow_stream_keeps_its_bound() -> None:
    graph, x = stream(), images(0, 255)
    low = narrowed(graph, x)
    assert {low.fixed_points[f"add{i}"].bits for i in range(3)} == {16}
    assert all(low.graph.types[low.fixed_points[f"add{i}"].tensor].number.bits <= 16 for i in range(3))  # type: ignore[union-attr]
    check_agreement(low, x)


def test_beyond_the_measured_range_it_saturates() -> None:
    """Images the calibration never saw leave the range; values saturate, nothing wraps or fails."""
    graph = stream()
    low = narrowed(graph, images(120, 136))
    run = interpret(low.graph, {"image": images(0, 255, 1)}, keep=["*"])
    fixed = low.fixed_points["add0"]
    wide = interpret(graph, {"image": images(0, 255, 1)}, keep=["*"]).tensors["add0"]
    held = run.tensors[fixed.tensor] * float(fixed.step)
    limit = 2**15 * float(fixed.step)
    assert np.abs(wide).max() > limit
    # Operands saturate before the sum, so it may be short by what its second operand adds.
    assert np.all(held[wide >= 2 * limit] >= -float(fixed.step))  # -2^15 has no positive counterpart
    assert np.all(held[wide <= -2 * limit] <= 0)
    assert np.abs(held).max() <= limit


def test_a_fine_threshold_keeps_32_bits() -> None:
    """16 bits are taken only where the step is a small share of the smallest threshold gap downstream."""
    graph = stream(threshold=0.01)
    formats = choose_streams(graph, measured(graph, images(0, 255)))
    assert {f.bits for f in formats.values()} == {32}


@pytest.mark.parametrize("missing", ["add1", "conv0", "stem"])
def test_one_unmeasured_tensor_keeps_32_bits(missing: str) -> None:
    graph = stream()
    ranges = measured(graph, images(0, 255))
    del ranges[missing]
    assert {f.bits for f in choose_streams(graph, ranges).values()} == {32}
