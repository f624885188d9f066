"""Layers made ready for integers: edge weights with proven accumulators, offsets moved behind padded layers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qexport.errors import AccumulatorError, GraphError
from qexport.ir import Graph, integer, real
from qexport.ir.types import INT32_MAX
from qexport.ops import Affine, BorderBias, Concat, Conv2d, Linear, Step, Weight
from qexport.passes.edge_weights import fit_edge_levels, round_keeping_sums
from qexport.passes.layers import LayerOptions, needs_range, quantize_layers
from qexport.reference import interpret
from qexport.stepfunction import StepFunction

HALF_STEP = 0.5 + 1e-9


@st.composite
def float_weights(draw: st.DrawFn) -> NDArray[np.float64]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(4, 3, 3, 3), (6, 8, 3, 3), (5, 1, 5, 5), (4, 16, 1, 1), (10, 64), (3, 7)]))
    weight = rng.normal(0, 1, shape) * 10.0 ** draw(st.integers(-12, 6))
    kind = draw(st.sampled_from(["normal", "heavy", "dead channel", "float32"]))
    if kind == "heavy":
        weight *= np.exp(rng.normal(0, 2, shape))
    elif kind == "dead channel":
        weight[0] = 0.0
    elif kind == "float32":
        weight = weight.astype(np.float32).astype(np.float64)
    return weight


@settings(max_examples=120, deadline=None)
@given(weight=float_weights(), bits=st.sampled_from([4, 8, 12, 16, 20, None]), reach=st.integers(1, 255))
def test_edge_levels(weight: NDArray[np.float64], bits: int | None, reach: int) -> None:
    """Levels fit their width, the accumulator fits int32 for every input, and no weight moves by a step or more."""
    inputs = np.full(weight.shape[1], float(reach))
    fitted = fit_edge_levels(weight, inputs, bits, "layer", bits)
    levels = fitted.array.astype(object)
    assert fitted.array.dtype.kind == "i"
    assert np.abs(levels).max() <= 2 ** ((bits or 24) - 1) - 1
    mass = np.abs(levels).reshape(len(levels), -1).sum(1)
    assert max(mass) * reach <= INT32_MAX
    assert fitted.scale is not None
    for row, exact, scale in zip(fitted.array, weight, fitted.scale, strict=True):
        moved = np.abs(exact - row * float(scale)).max()
        # A layer that reads pixels may trade one weight against its neighbours.
        assert moved <= (1 if weight.shape[1] > 4 or weight.ndim == 2 else 3) * float(scale) * (1 + 1e-9)


def test_widest_levels_use_the_accumulator() -> None:
    """edge_bits None goes to the edge of int32: with one more bit it would not be proven."""
    weight = np.random.default_rng(0).normal(0, 1, (4, 64, 3, 3))
    fitted = fit_edge_levels(weight, np.full(64, 255.0), None, "layer", None)
    mass = np.abs(fitted.array.astype(np.int64)).reshape(4, -1).sum(1) * 255
    assert np.all(mass <= INT32_MAX)
    assert np.all(mass * 2 > INT32_MAX)


def test_accumulator_that_cannot_be_proven() -> None:
    weight = np.ones((1, 2**16, 3, 3))
    with pytest.raises(AccumulatorError, match="stem: a float layer's accumulator cannot be proven in int32"):
        fit_edge_levels(weight, np.full(2**16, 2.0**14), 8, "stem", 8)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(3, 8, 3, 3), (2, 1, 5, 5), (4, 9), (1, 1, 1, 1)]))
def test_rounding_keeps_sums(seed: int, shape: tuple[int, ...]) -> None:
    """Every weight goes to a neighbouring integer, every kernel's sum too, an output channel's to the nearest."""
    ratios = np.random.default_rng(seed).normal(0, 20, shape)
    levels = round_keeping_sums(ratios)
    flat = (levels - ratios).reshape(*shape[:2], -1)
    assert np.abs(flat).max() < 1
    assert np.abs(flat.sum(-1)).max() < 1 + 1e-9
    assert np.abs(flat.sum((1, 2))).max() <= HALF_STEP


def test_integers_are_kept() -> None:
    levels = np.random.default_rng(1).integers(-127, 128, (4, 8, 3, 3))
    assert np.array_equal(round_keeping_sums(levels.astype(np.float64)), levels)


def brute_force(x: NDArray, weight: list, op: Conv2d) -> dict[tuple[int, int, int], Fraction]:
    """Convolution of Fractions x [C, H, W] with zero padding by its definition."""
    (top, bottom), (left, right) = op.pads
    o_count, per_group, kh, kw = op.weight.array.shape
    _, height, width = x.shape
    out = {}
    rows = (height + top + bottom - op.dilation[0] * (kh - 1) - 1) // op.stride[0] + 1
    cols = (width + left + right - op.dilation[1] * (kw - 1) - 1) // op.stride[1] + 1
    for o, r, s in product(range(o_count), range(rows), range(cols)):
        first = o // (o_count // op.groups) * per_group
        total = Fraction(0)
        for i, u, v in product(range(per_group), range(kh), range(kw)):
            y = r * op.stride[0] + u * op.dilation[0] - top
            z = s * op.stride[1] + v * op.dilation[1] - left
            if 0 <= y < height and 0 <= z < width:
                total += weight[o][i][u][v] * x[first + i, y, z]
        out[o, r, s] = total
    return out


@st.composite
def padded_layers(draw: st.DrawFn, levels: bool) -> Conv2d:
    """A small grouped, strided, dilated, asymmetrically padded convolution on 4 channels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    shape = (4, 4 // groups, *kernel)
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2))
    stride, dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 2))), draw(st.sampled_from([(1, 1), (2, 1)]))
    if levels:
        weight = Weight(rng.integers(-2, 3, shape).astype(np.int32), (Fraction(1, 2),) * 4, level_set=(-2, -1, 0, 1, 2))
    else:
        weight = Weight(rng.normal(0, 1, shape))
    return Conv2d(weight, stride, pads, dilation, groups)


def build(op: Conv2d, gain: list[Fraction], bias: list[Fraction], size: int = 7) -> Graph:
    graph = Graph()
    graph.add_input("image", real((4, size, size), 0, 255))
    graph.add("affine", Affine(tuple(gain), tuple(bias)), "image")
    graph.add("conv", op, "affine")
    graph.outputs = ["conv"]
    return graph


def _image(seed: int = 0, size: int = 7) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 256, (1, 4, size, size))


@settings(max_examples=40, deadline=None)
@given(op=padded_layers(levels=True), bias=st.lists(st.integers(-9, 9), min_size=4, max_size=4), data=st.data())
def test_low_bit_border_is_exact(op: Conv2d, bias: list[int], data: st.DataObject) -> None:
    """Trained levels behind gain * x + bias with zero padding: equal to the definition, border included.

    All numbers are dyadic, so the float64 evaluation is exact too.
    """
    gain = data.draw(st.sampled_from([Fraction(1, 4), Fraction(-2)]))
    biases = [Fraction(b, 16) for b in bias]
    graph = quantize_layers(build(op, [gain] * 4, biases), LayerOptions())
    image = _image()
    got = interpret(graph, {"image": image}).outputs[graph.outputs[0]][0]
    shifted = np.array([[[gain * int(p) + b for p in r] for r in c] for c, b in zip(image[0], biases, strict=True)])
    weight = [[[[Fraction(int(v), 2) for v in r] for r in k] for k in o] for o in op.weight.array]
    for at, expected in brute_force(shifted, weight, op).items():
        assert Fraction(float(got[at])) == expected, at


@settings(max_examples=40, deadline=None)
@given(op=padded_layers(levels=False), seed=st.integers(0, 99), bits=st.sampled_from([8, 16, None]))
def test_edge_border_is_off_by_half_a_step_at_most(op: Conv2d, seed: int, bits: int | None) -> None:
    """Float layers behind a per-channel normalisation: the definition on the fitted weights, inside exactly so."""
    rng = np.random.default_rng(seed)
    gain = [Fraction(float(g)) for g in rng.uniform(0.5, 2, 4)]
    bias = [Fraction(float(b)) for b in rng.normal(0, 1, 4)]
    graph = quantize_layers(build(op, gain, bias), LayerOptions(edge_bits=bits))
    image = _image(seed)
    run = interpret(graph, {"image": image})
    got = run.outputs[graph.outputs[0]][0]
    fitted = next(n.op for n in graph.nodes if isinstance(n.op, Conv2d)).weight
    assert fitted.scale is not None
    # The fitted levels absorb the gain: layer = scale * sum level * (pixel + bias / gain).
    steps = [b / g for g, b in zip(gain, bias, strict=True)]
    shifted = np.array([[[int(p) + s for p in r] for r in c] for c, s in zip(image[0], steps, strict=True)])
    levels = [[[[Fraction(int(v)) for v in r] for r in k] for k in o] for o in fitted.array]
    assert any(isinstance(n.op, BorderBias) for n in graph.nodes) == any(map(any, op.pads))
    for at, total in brute_force(shifted, levels, op).items():
        first = [p * s - pad[0] for p, s, pad in zip(at[1:], op.stride, op.pads, strict=True)]
        last = [f + (k - 1) * d for f, k, d in zip(first, fitted.array.shape[2:], op.dilation, strict=True)]
        inside = min(first) >= 0 and max(last) < 7
        off = abs(Fraction(float(got[at])) / fitted.scale[at[0]] - total)
        assert off <= Fraction(0 if inside else 1, 2) + Fraction(1, 10**6), at


@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.5, 0.3), (0.125, 7.0)])
def test_offset_over_channels_of_several_units(scales: tuple[float, float]) -> None:
    """Two quantizers of different scale side by side, 2 x + 1/4, padded ternary layer: equal to the captured graph."""
    rng = np.random.default_rng(3)
    graph = Graph()
    graph.add_input("image", real((2, 5, 5), 0, 255))
    for i, scale in enumerate(scales):
        graph.add(f"q{i}", Step(StepFunction.uniform(Fraction(scale).limit_denominator(1000) * 8, 0, 3)), "image")
    graph.add("cat", Concat(), "q0", "q1")
    graph.add("affine", Affine((Fraction(2),) * 4, (Fraction(1, 4),) * 4), "cat")
    weight = Weight(rng.integers(-1, 2, (3, 4, 3, 3)).astype(np.int32), (Fraction(1, 2),) * 3, level_set=(-1, 0, 1))
    graph.add("conv", Conv2d(weight, pads=((1, 1), (1, 1))), "affine")
    graph.outputs = ["conv"]
    quantized = quantize_layers(graph, LayerOptions())
    x = rng.integers(0, 256, (2, 2, 5, 5))
    before = interpret(graph, {"image": x}).outputs["conv"]
    after = interpret(quantized, {"image": x}).outputs[quantized.outputs[0]]
    unit = float(graph.types["q0"].hi.max()) / 3
    assert np.abs(before - after).max() <= unit * 2.0**-13 + 1e-9


def test_needs_range_names_float_activations_only() -> None:
    graph = build(Conv2d(Weight(np.ones((4, 4, 1, 1)))), [Fraction(1)] * 4, [Fraction(1)] * 4)
    graph.add("relu6", Affine((Fraction(1),) * 4, (Fraction(1),) * 4), "conv")
    low = Weight(np.ones((2, 4, 1, 1), np.int32), (Fraction(1),) * 2, level_set=(1,))
    graph.add("second", Conv2d(low), "relu6")
    graph.outputs = ["second"]
    assert needs_range(graph) == {"relu6": True}


def test_linear_on_unequal_features_absorbs_units() -> None:
    """A float layer over channels of different units: the fitted levels times integers give the layer's output."""
    rng = np.random.default_rng(5)
    graph = Graph()
    graph.add_input("image", real((4,), 0, 255))
    gain = tuple(Fraction(float(g)) for g in rng.uniform(0.01, 3, 4))
    graph.add("scaled", Affine(gain, (Fraction(0),) * 4), "image")
    graph.add("fc", Linear(Weight(rng.normal(0, 1, (3, 4)))), "scaled")
    graph.outputs = ["fc"]
    quantized = quantize_layers(graph, LayerOptions(edge_bits=16))
    x = rng.integers(0, 256, (8, 4))
    before, after = (interpret(g, {"image": x}).outputs["fc"] for g in (graph, quantized))
    peak = np.abs(before).max()
    assert np.abs(before - after).max() <= 1e-4 * peak
    op = quantized.node("fc").op
    assert isinstance(op, Linear)
    assert op.weight.input_unit == gain


def test_integer_layer_refuses_float_weights() -> None:
    with pytest.raises(GraphError, match="an integer linear layer needs plain integer weights"):
        Linear(Weight(np.ones((2, 4)))).infer(integer((4,), 0, 3))
