"""QDQ models load at every optimization level, fuse, and agree with the quantized real graph."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import onnx
import pytest

from qexport.backends.onnx.inspection import weight_bytes
from qexport.backends.onnx.integer import MAX_OPSET, MIN_OPSET, TENSORS_KEY
from qexport.backends.onnx.qdq import EMITTERS, qdq_notes, to_qdq
from qexport.backends.onnx.qdq_state import Encoding
from qexport.backends.onnx.session import run_all_tensors
from qexport.errors import OptionError
from qexport.ir import Graph, real
from qexport.ops import (
    REGISTRY,
    Add,
    Affine,
    AvgPool,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    Linear,
    MaxPool,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Step,
    Weight,
)
from qexport.reference import interpret
from qexport.stepfunction import StepFunction

SAME = ((1, 1), (1, 1))


def fractions(values: np.ndarray) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in values)


def weight(rng: np.random.Generator, shape: tuple[int, ...], levels: tuple[int, ...] = (-1, 0, 1)) -> Weight:
    scale = fractions(rng.uniform(0.02, 0.1, shape[0]))
    return Weight(rng.choice(levels, shape).astype(np.int32), scale, level_set=levels)


def affine(rng: np.random.Generator, channels: int) -> Affine:
    gain = rng.uniform(0.2, 1.5, channels) * rng.choice([-1, 1, 1, 1], channels)
    return Affine(fractions(gain), fractions(rng.uniform(-0.5, 0.5, channels)))


def steps(thresholds: list[float], values: list[float]) -> Step:
    return Step(StepFunction.from_values(np.array(thresholds, np.float32), np.array(values, np.float32)))


FUNCTIONS = {
    "binary": steps([0.1], [0, 1]),
    "signs": steps([0.0], [-0.5, 0.5]),
    "ternary": steps([-0.21, 0.19], [-0.4, 0, 0.4]),
    "uniform2": steps([0.1, 0.3, 0.5], [0, 0.2, 0.4, 0.6]),
    "shifted2": steps([0.13, 0.33, 0.53], [0, 0.2, 0.4, 0.6]),
    "uniform4": steps(list(np.arange(15) * 0.1 + 0.05), list(np.arange(16) * 0.1)),
    "uneven_thresholds": steps([0.1, 0.37, 0.5], [0, 0.2, 0.4, 0.6]),
    "uneven_levels": steps([-0.3, -0.1, 0.2], [-0.5, -0.25, 0, 0.5]),
    "odd_levels": steps([-0.2, 0.0, 0.2], [-0.3, -0.1, 0.1, 0.3]),
    "descending": steps([0.1, 0.3, 0.5], [0.6, 0.4, 0.2, 0]),
    "offset": steps([0.1, 0.3], [0.13, 0.43, 0.73]),
    "calibrated8": Step(StepFunction.uniform(Fraction(1, 200), 0, 255), calibrated=True),
    "calibrated_signed": Step(StepFunction.uniform(Fraction(1, 100), -127, 127), calibrated=True),
}

FUSED = {"binary", "signs", "ternary", "uniform2", "shifted2", "uniform4", "calibrated8", "calibrated_signed"}
"""Functions that QLinearConv can compute."""

COMPARED = {"uneven_thresholds", "uneven_levels", "odd_levels"}
"""Functions that compare the byte QLinearConv gives."""


def network(rng: np.random.Generator, function: Step, levels: tuple[int, ...] = (-1, 0, 1)) -> Graph:
    """Image -> conv, affine, relu -> step -> conv, affine -> step -> pooled mean -> logits."""
    graph = Graph()
    x = graph.add_input("image", real((3, 8, 8), 0, 255))
    stem = Weight(rng.integers(-100, 100, (8, 3, 3, 3)).astype(np.int32), fractions(np.full(8, 3e-5)))
    x = graph.add("stem", Conv2d(stem, pads=SAME), x)
    x = graph.add("bn0", affine(rng, 8), x)
    x = graph.add("relu0", Clip(0, None), x)
    x = graph.add("step0", function, x)
    x = graph.add("conv1", Conv2d(weight(rng, (8, 8, 3, 3), levels), pads=SAME), x)
    x = graph.add("bn1", affine(rng, 8), x)
    x = graph.add("step1", function, x)
    x = graph.add("mean", AvgPool((8, 8), (8, 8)), x)
    x = graph.add("flat", Reshape((8, 1, 1), (8,)), x)
    x = graph.add("fc", Linear(weight(rng, (10, 8), (-7, -3, 0, 1, 7))), x)
    graph.outputs = [graph.add("logits", affine(rng, 10), x)]
    return graph


def images(rng: np.random.Generator, batch: int = 4) -> dict[str, np.ndarray]:
    return {"image": rng.integers(0, 256, (batch, 3, 8, 8))}


def check_agrees(
    graph: Graph, feeds: dict[str, np.ndarray], opset: int = MAX_OPSET, share: float = 0.999
) -> onnx.ModelProto:
    """Every carried tensor agrees: codes nearly always, floats closely; returns the model."""
    model = to_qdq(graph, metadata={"a": "b"}, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    want = interpret(graph, feeds, keep=["*"]).tensors
    for optimized in (True, False):
        got = run_all_tensors(model, feeds, optimized)
        for node in graph.nodes:
            if node.name in got and isinstance(node.op, Step):
                differing = np.abs(got[node.name] - want[node.name]) > float(node.op.function.scale) / 2
                assert 1 - differing.mean() >= share, (node.name, optimized, differing.mean())
        for name in graph.outputs:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=0.05, err_msg=f"{name}, {optimized}")
    return model


def test_table_covers_the_registry():
    assert set(EMITTERS) == {kind for kind, op in REGISTRY.items() if op.domain in ("real", "any")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_step_functions(rng, optimized_operators, name):
    # A 255-step quantizer's thresholds lie a few accumulator steps apart: integer biases move some codes by one.
    share = 0.95 if name.startswith("calibrated") else 0.999
    model = check_agrees(network(rng, FUNCTIONS[name]), images(rng), share=share)
    fused = optimized_operators(model).count("QLinearConv")
    assert fused == (2 if name in FUSED | COMPARED else 0)
    if name in FUSED - {"uniform4", "calibrated8", "calibrated_signed"}:
        assert qdq_notes(model) == []
    elif name not in FUSED:
        assert any("step0" in note for note in qdq_notes(model))
    assert any("step1" in note and "byte comparisons" in note for note in qdq_notes(model)) == (name in COMPARED)


@pytest.mark.parametrize(
    "levels", [(-1, 1), (-1, 0, 1), (-2, -1, 0, 1), (-4, -2, -1, 0, 1, 2, 4), tuple(range(-8, 8)), (-127, 127)]
)
@pytest.mark.parametrize("opset", [MIN_OPSET, 21, MAX_OPSET])
def test_weights_stay_packed_and_fuse(rng, optimized_operators, levels, opset):
    model = check_agrees(network(rng, FUNCTIONS["uniform2"], levels), images(rng), opset)
    assert optimized_operators(model).count("QLinearConv") == 2
    bits = max(1, (len(levels) - 1).bit_length())
    assert weight_bytes(model)["conv1"] <= 1.35 * 8 * 8 * 9 * bits / 8


@pytest.mark.parametrize(
    ("peak", "opset", "kind"), [(30000, 25, "int16"), (30000, 18, "float32"), (2**20, 25, "float32")]
)
def test_wide_weights(rng, peak, opset, kind):
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    levels = rng.integers(-peak, peak, (4, 3, 3, 3)).astype(np.int32)
    graph.add("conv", Conv2d(Weight(levels, fractions(np.full(4, 0.01 / peak)))), "image")
    graph.outputs = [graph.add("y", affine(rng, 4), "conv")]
    model = check_agrees(graph, images(rng), opset)
    assert len(qdq_notes(model)) == 1 and kind in qdq_notes(model)[0]


def test_input_units(rng):
    """One unit for all input channels folds into the scale, different ones make float weights."""
    for units in ([2.0, 2.0, 2.0], [1.0, 2.0, 4.0]):
        graph = Graph()
        graph.add_input("image", real((3, 8, 8), 0, 255))
        levels = rng.integers(-100, 100, (4, 3, 3, 3)).astype(np.int32)
        scaled = Weight(levels, fractions(np.full(4, 1e-4)), input_unit=fractions(np.array(units)))
        graph.outputs = [graph.add("conv", Conv2d(scaled), "image")]
        model = check_agrees(graph, images(rng))
        assert bool(qdq_notes(model)) == (len(set(units)) > 1)


def residual(rng: np.random.Generator) -> Graph:
    """Every op of the real domain, with bytes and floats as inputs of the ops that move values."""
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    graph.add("small", Affine(fractions(np.full(3, 1 / 255)), fractions(np.zeros(3))), "image")
    graph.add("codes", FUNCTIONS["uniform2"], "small")
    graph.add("pooled", MaxPool((3, 3), (2, 2), SAME), "codes")
    graph.add("half", Slice(((0, 2, 1), (0, 4, 1), (0, 4, 1))), "pooled")
    graph.add("wide", Pad(((1, 0), (0, 0), (0, 0))), "half")
    graph.add("both", Concat(), "wide", "pooled")
    graph.add("conv", Conv2d(weight(rng, (6, 6, 3, 3)), pads=SAME), "both")
    graph.add(
        "border", BorderBias(rng.uniform(-1, 1, (6, 2, 2)), np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1])), "conv"
    )
    graph.add("prelu", PRelu(fractions(rng.uniform(0.1, 0.5, 6))), "border")
    graph.add("sum", Add(), "prelu", "both")
    graph.add("mixed", Concat(), "sum", "both")
    graph.add("clipped", Clip(Fraction(-1), Fraction(2)), "mixed")
    graph.add("padded", Pad(((0, 0), (1, 1), (0, 0))), "clipped")
    graph.add("cut", Slice(((0, 12, 2), (0, 6, 1), (0, 4, 1))), "padded")
    graph.add("peaks", MaxPool((2, 2), (2, 2)), "cut")
    graph.add("again", FUNCTIONS["ternary"], "peaks")
    graph.add("mean", AvgPool((2, 2), (1, 1), ((1, 0), (0, 0))), "again")
    graph.add("flat", Reshape((6, 3, 1), (18,)), "mean")
    graph.add("fc", Linear(weight(rng, (5, 18))), "flat")
    graph.outputs = ["fc"]
    return graph


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("opset", [MIN_OPSET, MAX_OPSET])
def test_every_op(rng, batch, opset):
    check_agrees(residual(rng), images(rng, batch), opset)


def test_linear_with_a_step_behind(rng, optimized_operators):
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    graph.add("flat", Reshape((3, 8, 8), (192,)), "image")
    graph.add(
        "fc", Linear(Weight(weight(rng, (6, 192)).array, fractions(np.full(6, 1e-4)), level_set=(-1, 0, 1))), "flat"
    )
    graph.add("bn", affine(rng, 6), "fc")
    graph.outputs = [graph.add("y", FUNCTIONS["uniform2"], "bn")]
    assert "QGemm" in optimized_operators(check_agrees(graph, images(rng, 32)))


def test_zero_gain_and_saturated_channels(rng):
    """Constant channels: gain 0, and thresholds no accumulator reaches."""
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    graph.add("conv", Conv2d(Weight(weight(rng, (4, 3, 3, 3)).array, fractions(np.full(4, 1e-3)))), "image")
    bias = fractions(np.array([0.0, 0.35, 50.0, -50.0]))
    graph.add("bn", Affine((Fraction(0), Fraction(0), Fraction(1), Fraction(1)), bias), "conv")
    graph.outputs = [graph.add("y", FUNCTIONS["uniform2"], "bn")]
    check_agrees(graph, images(rng), share=1.0)


def test_shared_accumulator_is_not_folded(rng):
    """A layer that two nodes read keeps its float output."""
    graph = Graph()
    graph.add_input("image", real((3, 8, 8), 0, 255))
    graph.add("conv", Conv2d(Weight(weight(rng, (4, 3, 3, 3)).array, fractions(np.full(4, 1e-3)))), "image")
    graph.add("bn", affine(rng, 4), "conv")
    graph.add("step", FUNCTIONS["uniform2"], "bn")
    graph.outputs = [graph.add("sum", Add(), "step", "bn")]
    check_agrees(graph, images(rng))


def test_ties_on_a_float_stream_go_up():
    """An input exactly at a threshold belongs to the step above, although QuantizeLinear rounds halves to even."""
    graph = Graph()
    graph.add_input("image", real((1, 1, 8), 0, 255))
    graph.add("sum", Add(), "image", "image")
    graph.outputs = [graph.add("y", steps([2, 6, 10, 14], [0, 1, 2, 3, 4]), "sum")]
    check_agrees(graph, {"image": np.array([0, 1, 2, 3, 4, 5, 6, 7]).reshape(1, 1, 1, 8)}, share=1.0)


def test_carried_tensors_and_determinism(rng):
    graph = network(rng, FUNCTIONS["uniform2"])
    first, second = (to_qdq(graph, metadata={"k": "v"}) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    props = {p.key: p.value for p in first.metadata_props}
    assert props["qexport.format"] == "onnx-qdq" and props["k"] == "v"
    assert json.loads(props[TENSORS_KEY]) == ["image", "step0", "step1", "flat", "logits"]


def test_unsupported_opset(rng):
    with pytest.raises(OptionError, match="unsupported ONNX opset"):
        to_qdq(network(rng, FUNCTIONS["binary"]), metadata={}, opset=26)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binary", (1, 0, 1)),
        ("signs", (2, 1, 2)),
        ("ternary", (1, 1, 2)),
        ("uniform2", (1, 0, 3)),
        ("uneven_levels", (0, 2, 4)),
        ("odd_levels", (2, 3, 6)),
        ("descending", (0, 0, 3)),
        ("calibrated_signed", (1, 127, 254)),
    ],
)
def test_encodings(name, expected):
    """(bytes a step, zero point, largest byte)."""
    encoding = Encoding.of(FUNCTIONS[name].function)
    assert encoding is not None
    assert (encoding.gap, encoding.zero_point, encoding.top) == expected


def test_no_encoding_without_a_zero():
    assert Encoding.of(FUNCTIONS["offset"].function) is None
