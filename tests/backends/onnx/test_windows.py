"""QLinearConv of scale 1: which layers take it, that nothing in it is rounded, and codes of every accumulator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from qexport.backends.onnx.inspection import assert_integer, find_float_tensors
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import absorbed_tensors, run_all_tensors
from qexport.backends.onnx.windows import EXACT_FLOAT, find_windows, place_steps
from qexport.errors import ArtifactError
from qexport.ir import Graph, integer
from qexport.ops import Conv2d, Threshold, Weight

CODES = np.arange(4, dtype=np.int32)


def layer(conv: Conv2d, threshold: Threshold, shape=(4, 6, 5), lo=0, hi=3) -> Graph:
    graph = Graph()
    graph.add_input("x", integer(shape, lo, hi))
    graph.add("acc", conv, "x")
    graph.add("y", threshold, "acc")
    graph.outputs = ["y"]
    return graph


def thresholds(rng: np.random.Generator, channels: int, lo: int, hi: int, steps: int = 3) -> np.ndarray:
    return np.sort(rng.integers(lo, hi, (channels, steps)), axis=1)


def ternary(rng: np.random.Generator, *shape: int) -> Weight:
    return Weight(rng.integers(-1, 2, shape).astype(np.int32), level_set=(-1, 0, 1))


def windows_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QLinearConv"]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_every_accumulator_gets_its_code(data):
    """Equation (1) and the comparisons, over the whole proven range of each channel."""
    channels, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    lo = np.array([data.draw(st.integers(-900, 900)) for _ in range(channels)])
    hi = lo + [data.draw(st.integers(0, 900)) for _ in range(channels)]
    sign = np.array([data.draw(st.sampled_from([-1, 1])) for _ in range(channels)], np.int8)
    first, last = np.minimum(sign * lo, sign * hi), np.maximum(sign * lo, sign * hi)
    rows = [
        sorted(data.draw(st.integers(int(a), int(b) + 1)) for _ in range(steps))
        for a, b in zip(first, last, strict=True)
    ]
    levels = np.array([data.draw(st.integers(-20, 20)) for _ in range(steps + 1)], np.int32)
    op, acc = Threshold(np.array(rows), sign, levels), integer((channels, 1, 1), lo, hi)
    reachable = [[t for t in row if a < t <= b] for row, a, b in zip(rows, first, last, strict=True)]
    found = place_steps(op, acc)
    if any(r and r[-1] - r[0] > 254 for r in reachable):
        assert found is None
        return
    bias, plan = found
    for c in range(channels):
        values = np.arange(lo[c], hi[c] + 1)
        bytes_ = np.clip(sign[c].astype(int) * values + bias[c], 0, 255)
        code = plan.base[c] + ((bytes_[:, None] >= plan.bars[c]) * plan.gaps).sum(1)
        x = np.broadcast_to(values[:, None, None, None], (len(values), channels, 1, 1))
        assert np.array_equal(code, op.evaluate(x)[:, c, 0, 0])


@pytest.mark.parametrize("opset", [18, 25])
@pytest.mark.parametrize("lo", [0, -2])
def test_layer_becomes_one_convolution(check_equal, rng, lo, opset):
    signs = np.array([1, -1, 1, 1, -1, 1], np.int8)
    graph = layer(
        Conv2d(ternary(rng, 6, 4, 3, 3), pads=((1, 1), (1, 1))), Threshold(thresholds(rng, 6, -15, 15), signs, CODES)
    )
    graph.inputs["x"] = graph.types["x"] = integer((4, 6, 5), lo, 3)
    graph.types["acc"] = graph.node("acc").op.infer(graph.types["x"])
    graph.types["y"] = graph.node("y").op.infer(graph.types["acc"])
    model = check_equal(graph, {"x": rng.integers(lo, 4, (3, 4, 6, 5))}, opset)
    assert len(windows_of(model)) == 1 and absorbed_tensors(model) == ["acc"]
    assert not any(node.op_type == "ConvInteger" for node in model.graph.node)


def test_nothing_is_rounded(rng):
    """Scales are the number 1, and all sums are integers that float32 holds."""
    graph = layer(Conv2d(ternary(rng, 5, 4, 3, 3)), Threshold(thresholds(rng, 5, -15, 15), np.ones(5, np.int8), CODES))
    model = to_onnx(graph, metadata={})
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (node,) = windows_of(model)
    assert all(constants[node.input[i]] == 1 for i in (1, 4, 6))
    acc, bias = graph.types["acc"], constants[node.input[8]].astype(np.int64)
    assert np.abs(np.stack([acc.lo + bias, acc.hi + bias])).max() < EXACT_FLOAT


def test_depthwise(check_equal, rng):
    conv = Conv2d(ternary(rng, 4, 1, 3, 3), groups=4)
    model = check_equal(
        layer(conv, Threshold(thresholds(rng, 4, -9, 9), np.ones(4, np.int8), CODES)),
        {"x": rng.integers(0, 4, (2, 4, 6, 5))},
    )
    assert len(windows_of(model)) == 1


@pytest.mark.parametrize("case", ["far apart", "saturating products", "another reader", "groups"])
def test_layers_that_stay_integer_products(check_equal, rng, case):
    weight, high, rows, groups = ternary(rng, 4, 4, 3, 3), 3, thresholds(rng, 1, -15, 15), 1
    if case == "far apart":
        weight, rows = Weight(rng.integers(-40, 41, (4, 4, 3, 3)).astype(np.int32)), np.array([[-200, 0, 55]])
    if case == "saturating products":
        weight, high = Weight(rng.integers(-100, 101, (4, 4, 3, 3)).astype(np.int32)), 255
    if case == "groups":
        weight, groups = ternary(rng, 4, 2, 3, 3), 2
    threshold = Threshold(rows, np.ones(1, np.int8), CODES)
    graph = layer(Conv2d(weight, groups=groups), threshold, hi=high)
    if case == "another reader":
        graph.outputs = ["y", "acc"]
    assert not find_windows(graph)
    model = check_equal(graph, {"x": rng.integers(0, high + 1, (2, 4, 6, 5))})
    assert not windows_of(model)


def test_steps_that_channels_always_or_never_take(check_equal, rng):
    """Thresholds at both ends of the range; levels in any order."""
    conv = Conv2d(ternary(rng, 3, 4, 3, 3))
    acc = conv.infer(integer((4, 6, 5), 0, 3))
    rows = np.array([[acc.lo[0]] * 4, [acc.hi[1] + 1] * 4, [acc.lo[2], 1, 2, acc.hi[2] + 1]])
    threshold = Threshold(rows, np.ones(3, np.int8), np.array([7, -3, 5, 6, 0], np.int32))
    model = check_equal(layer(conv, threshold), {"x": rng.integers(0, 4, (2, 4, 6, 5))})
    assert len(windows_of(model)) == 1


class TestIntegerOnly:
    def model(self, rng) -> onnx.ModelProto:
        threshold = Threshold(thresholds(rng, 4, -15, 15), np.ones(4, np.int8), CODES)
        return to_onnx(layer(Conv2d(ternary(rng, 4, 4, 3, 3)), threshold), metadata={})

    def test_scales_of_one_are_no_floats(self, rng):
        assert find_float_tensors(self.model(rng)) == []

    def test_other_scales_are(self, rng):
        model = self.model(rng)
        (scale,) = (t for t in model.graph.initializer if t.name == windows_of(model)[0].input[1])
        scale.CopyFrom(numpy_helper.from_array(np.float32(0.5), scale.name))
        with pytest.raises(ArtifactError, match="1 values have a float or unknown type"):
            assert_integer(model)

    def test_a_one_that_something_else_reads_is(self, rng):
        model = self.model(rng)
        scale = windows_of(model)[0].input[1]
        model.graph.node.append(onnx.helper.make_node("Identity", [scale], ["copy"]))
        assert find_float_tensors(model) == [scale, "copy"]

    def test_a_one_that_a_caller_may_replace_is(self, rng):
        model = self.model(rng)
        scale = windows_of(model)[0].input[1]
        model.graph.input.append(onnx.helper.make_tensor_value_info(scale, onnx.TensorProto.FLOAT, []))
        assert scale in find_float_tensors(model)


def test_codes_that_a_window_reads_are_uint8(rng):
    """No cast stands between two layers of the form."""
    graph = layer(
        Conv2d(ternary(rng, 4, 4, 3, 3), pads=((1, 1), (1, 1))),
        Threshold(thresholds(rng, 4, -15, 15), np.ones(4, np.int8), CODES),
    )
    graph.add("acc2", Conv2d(ternary(rng, 4, 4, 3, 3)), "y")
    graph.add("y2", Threshold(thresholds(rng, 4, -15, 15), np.ones(4, np.int8), CODES), "acc2")
    graph.outputs = ["y2"]
    model = to_onnx(graph, metadata={})
    assert run_all_tensors(model, {"x": rng.integers(0, 4, (1, 4, 6, 5))})["y"].dtype == np.uint8
    assert windows_of(model)[1].input[0] == "y"
