"""Residual sums as bytes: exact beside codes, rounded on request."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.onnx.qdq import qdq_notes, to_qdq
from qexport.backends.onnx.qdq_layers import finer_factor
from qexport.backends.onnx.qdq_state import Coded
from qexport.backends.onnx.session import run_all_tensors
from qexport.ir import Graph, real
from qexport.ops import Add, Affine, BorderBias, Clip, Conv2d, MaxPool, Step, Weight
from qexport.reference import interpret
from qexport.stepfunction import StepFunction

SAME = ((1, 1), (1, 1))
CHANNELS = 16
UNEVEN = Step(
    StepFunction.from_values(np.array([0.21, 0.6, 1.13], np.float32), np.array([0, 0.8, 1.6, 2.4], np.float32))
)
EVEN = Step(StepFunction.from_values(np.array([0.4, 1.2, 2.0], np.float32), np.array([0, 0.8, 1.6, 2.4], np.float32)))
NEAR_ZERO = Step(
    StepFunction.from_values(np.array([0.004, 0.6, 1.13], np.float32), np.array([0, 0.8, 1.6, 2.4], np.float32))
)
SIGNS = Step(StepFunction.from_values(np.array([0.1], np.float32), np.array([-0.5, 0.5], np.float32)))
TERNARY = Step(StepFunction.from_values(np.array([-0.4, 0.5], np.float32), np.array([-0.7, 0, 0.7], np.float32)))


def fractions(values: np.ndarray) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in values)


def layer(rng: np.random.Generator, graph: Graph, name: str, x: str, peak: int = 1) -> str:
    """Convolution with levels up to a peak, and batch norm; the result has about the spread of the thresholds."""
    levels = rng.integers(-peak, peak + 1, (CHANNELS, CHANNELS, 3, 3)).astype(np.int32)
    gain = rng.uniform(0.6, 1.4, CHANNELS) * rng.choice([-1, 1, 1], CHANNELS) / (15 * peak)
    weight = Weight(levels, fractions(np.ones(CHANNELS)), level_set=(-1, 0, 1) if peak == 1 else None)
    x = graph.add(name, Conv2d(weight, pads=SAME), x)
    return graph.add(f"{name}.bn", Affine(fractions(gain), fractions(rng.uniform(-0.5, 1, CHANNELS))), x)


def codes_graph(function: Step) -> tuple[Graph, str]:
    """Image -> codes."""
    graph = Graph()
    graph.add_input("image", real((CHANNELS, 8, 8), 0, 255))
    small = Affine(fractions(np.full(CHANNELS, 1 / 91.37)), fractions(np.zeros(CHANNELS)))
    return graph, graph.add("codes", function, graph.add("small", small, "image"))


def block(rng: np.random.Generator, function: Step, with_relu: bool = True) -> Graph:
    """A block whose shortcut carries codes: quantizer -> layer -> + -> relu -> quantizer."""
    graph, codes = codes_graph(function)
    x = graph.add("sum", Add(), layer(rng, graph, "conv", codes), codes)
    if with_relu:
        x = graph.add("relu", Clip(Fraction(0), None), x)
    graph.outputs = [graph.add("y", function, x)]
    return graph


def two_layers(rng: np.random.Generator) -> Graph:
    """A block whose shortcut is a layer, too, and whose sum another sum reads."""
    graph, codes = codes_graph(EVEN)
    first = graph.add("sum", Add(), layer(rng, graph, "left", codes), layer(rng, graph, "right", codes))
    middle = graph.add("middle", EVEN, first)
    graph.add("again", Add(), layer(rng, graph, "next", middle), first)
    graph.outputs = [graph.add("y", UNEVEN, "again")]
    return graph


def images(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"image": rng.integers(0, 256, (8, CHANNELS, 8, 8))}


def wrong_codes(graph: Graph, model: onnx.ModelProto, feeds: dict[str, np.ndarray], name: str) -> float:
    """Share of the values of a quantizer that differ from the exact network's, the larger of both levels."""
    want = interpret(graph, feeds, keep=["*"]).tensors[name]
    op = graph.node(name).op
    assert isinstance(op, Step)
    return max(
        float((np.abs(run_all_tensors(model, feeds, optimized)[name] - want) > float(op.function.scale) / 2).mean())
        for optimized in (True, False)
    )


@pytest.mark.parametrize(
    "function", [UNEVEN, EVEN, NEAR_ZERO, SIGNS, TERNARY], ids=lambda step: "-".join(map(str, step.function.thresholds))
)
@pytest.mark.parametrize("seed", range(4))
def test_sums_with_codes_are_exact(optimized_operators, function, seed):
    """Gains of either sign, biases anywhere: every code is that of the exact sum, and the layer is fused."""
    rng = np.random.default_rng(seed)
    graph = block(rng, function, with_relu=function in (UNEVEN, EVEN, NEAR_ZERO))
    model = to_qdq(graph, metadata={})
    assert wrong_codes(graph, model, images(rng), "y") == 0
    found = optimized_operators(model)
    assert "QLinearConv" in found and "QLinearAdd" in found and "Conv" not in found
    assert not [note for note in qdq_notes(model) if "moved" in note]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_the_quantizer_sums_with_codes_are_exact(data):
    """Thresholds of any distances and signs, levels with and without negative ones, with ReLU and without."""
    n_steps, spread = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([0.3, 1.0, 3.0]))
    below, seed = data.draw(st.integers(0, n_steps)), data.draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.normal(0, spread, n_steps)).astype(np.float32)
    values = ((np.arange(n_steps + 1) - below) * np.float32(rng.uniform(0.2, 1.5))).astype(np.float32)
    function = Step(StepFunction.from_values(thresholds, values))
    graph = block(rng, function, with_relu=data.draw(st.booleans()))
    assert wrong_codes(graph, to_qdq(graph, metadata={}), images(rng), "y") == 0


def test_a_window_too_wide_for_bytes_stays_float(rng, optimized_operators):
    """Hundreds of accumulators between the thresholds, in channels of different gains: no bytes hold all of them."""
    graph, codes = codes_graph(UNEVEN)
    x = graph.add("sum", Add(), layer(rng, graph, "conv", codes, 60), codes)
    graph.outputs = [graph.add("y", UNEVEN, x)]
    exact, fused = (to_qdq(graph, metadata={}, fuse_all=rounds) for rounds in (False, True))
    assert wrong_codes(graph, exact, images(rng), "y") == 0
    assert "QLinearConv" not in optimized_operators(exact)
    assert wrong_codes(graph, fused, images(rng), "y") < 0.02
    assert "QLinearAdd" in optimized_operators(fused)
    assert any("conv.bn: thresholds moved by" in note for note in qdq_notes(fused))


def test_sums_of_layers_are_rounded_on_request_only(rng, optimized_operators):
    graph = two_layers(rng)
    exact = to_qdq(graph, metadata={})
    assert wrong_codes(graph, exact, images(rng), "y") == 0
    assert optimized_operators(exact).count("QLinearConv") == 0
    ranges = dict.fromkeys(("left.bn", "right.bn", "sum", "next.bn", "again"), (-4.0, 5.0))
    fused = to_qdq(graph, metadata={}, ranges=ranges, fuse_all=True)
    assert optimized_operators(fused).count("QLinearConv") == 3
    assert optimized_operators(fused).count("QLinearAdd") == 3  # one of them bends
    assert wrong_codes(graph, fused, images(rng), "middle") < 0.05
    assert wrong_codes(graph, fused, images(rng), "y") < 0.1


def test_without_ranges_wide_sums_stay_float(rng, optimized_operators):
    """The proven range of two layers leaves too few bytes between thresholds."""
    assert "QLinearConv" not in optimized_operators(to_qdq(two_layers(rng), metadata={}, fuse_all=True))


@pytest.mark.parametrize(
    ("pixel", "function"), [(Fraction(124), EVEN), (Fraction(247, 2), UNEVEN)], ids=["whole", "half"]
)
@pytest.mark.parametrize("fuse_all", [False, True])
def test_padding_with_pixels(rng, optimized_operators, pixel, function, fuse_all):
    """A border correction becomes padding with bytes, where that is exact or may be rounded; the pool goes in front."""
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    levels = rng.integers(-100, 100, (4, 3, 3, 3)).astype(np.int32)
    graph.add("conv", Conv2d(Weight(levels, fractions(np.full(4, 3e-5))), pads=SAME), "image")
    missing = np.zeros((4, 3, 3))
    for row in range(3):
        for col in range(3):
            inside = np.zeros((3, 3), bool)
            inside[max(0, 1 - row) : 3 - max(0, row - 1), max(0, 1 - col) : 3 - max(0, col - 1)] = True
            missing[:, row, col] = (levels * ~inside).sum(axis=(1, 2, 3)) * float(pixel) * 3e-5
    classes = np.array([0, 1, 1, 1, 1, 1, 1, 2])
    graph.add("border", BorderBias(missing, classes, classes, padding=(pixel,) * 3), "conv")
    graph.add("codes", function, "border")
    graph.outputs = [graph.add("y", MaxPool((2, 2), (2, 2)), "codes")]
    model = to_qdq(graph, metadata={}, fuse_all=fuse_all)
    feeds = {"image": rng.integers(0, 256, (4, 3, 8, 8))}
    got, want = run_all_tensors(model, feeds)["y"], interpret(graph, feeds, keep=["y"]).tensors["y"]
    assert (np.abs(got - want) > 0.4).mean() <= 0.02
    is_fused = pixel.denominator == 1 or fuse_all
    assert ("QLinearConv" in optimized_operators(model)) == is_fused
    assert any("padded with whole pixels" in note for note in qdq_notes(model)) == is_fused


def test_wide_weights_are_stored_as_uint8(tmp_path, rng):
    """Kernels for uint8 x int8 on processors without VNNI add two products in a saturating int16."""
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    weight = Weight(rng.choice([-127, 127], (4, 3, 3, 3)).astype(np.int32), fractions(np.full(4, 2e-5)))
    graph.add("conv", Conv2d(weight, pads=SAME), "image")
    graph.outputs = [graph.add("y", EVEN, "conv")]
    model = to_qdq(graph, metadata={})
    feeds = {"image": rng.choice([0, 255], (4, 3, 8, 8))}
    assert wrong_codes(graph, model, feeds, "y") == 0
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    assert kinds["conv/weight"] == onnx.TensorProto.UINT8


@pytest.mark.parametrize(
    "levels", [(-1, 1), (-1, 0, 1), (-2, -1, 0, 1), (-4, -2, -1, 0, 1, 2, 4), (-7, 7), (-127, 127)]
)
def test_the_factor_of_weights_keeps_unpacking_in_int8(levels):
    """OpenVINO multiplies the gap of the levels by the factor before it adds the smallest level."""
    weight = Weight(np.array(levels, np.int32).reshape(-1, 1, 1, 1), level_set=levels)
    x = Coded("x", Fraction(1), 0, 3)
    factor = finer_factor(weight, x)
    span = max(levels) - min(levels)
    assert factor == max(1, 127 // span)


@pytest.mark.parametrize("fuse_all", [False, True])
def test_openvino_computes_the_same(tmp_path, rng, fuse_all):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed (pip install 'qexport[bench]')")
    graph = block(rng, UNEVEN)
    model = to_qdq(graph, metadata={}, opset=21, fuse_all=fuse_all)
    onnx.save(model, tmp_path / "model.onnx")
    feeds = images(rng)["image"].astype(np.uint8)
    network = openvino.Core().read_model(tmp_path / "model.onnx")
    network.reshape({"image": list(feeds.shape)})
    (got,) = openvino.Core().compile_model(network, "CPU")({"image": feeds}).values()
    want, scale = run_all_tensors(model, {"image": feeds})["y"], UNEVEN.function.scale
    np.testing.assert_array_equal(np.rint(got / float(scale)), np.rint(want / float(scale)))
