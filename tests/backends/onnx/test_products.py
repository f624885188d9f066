"""Conv2d and Linear: every weight width, activation range and geometry equals the interpreter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from qexport.backends.onnx.inspection import weight_bytes
from qexport.backends.onnx.integer import MAX_OPSET, MIN_OPSET
from qexport.backends.onnx.session import open_session, run_session
from qexport.ops import Conv2d, Linear, Weight

LEVEL_SETS: dict[str, tuple[tuple[int, ...] | None, int]] = {
    "binary": ((-1, 1), 1),
    "binary01": ((0, 1), 1),
    "binary_wide": ((-127, 127), 1),
    "ternary": ((-1, 0, 1), 2),
    "int2": ((-2, -1, 0, 1), 2),
    "positive": ((1, 2, 3, 4), 2),
    "plus_minus_4": ((-4, -2, -1, 0, 1, 2, 4), 3),
    "int3": (tuple(range(-4, 4)), 3),
    "powers": ((-64, -8, -1, 0, 1, 8, 64), 3),
    "int4": (tuple(range(-8, 8)), 4),
    "int8": (None, 8),
    "any5": (None, 5),
    "any6": (None, 6),
    "any7": (None, 7),
    "any12": (None, 12),
    "any16": (None, 16),
    "any20": (None, 20),
}

RANGES = {"codes": (0, 3), "signed": (-4, 4), "int8": (-128, 127), "uint8": (0, 255), "skewed": (-20, 230)}


@pytest.fixture(params=["ConvInteger", "MatMulInteger"])
def form(request: pytest.FixtureRequest) -> str:
    """Both operators of convolutions: the images here are so small that the first would not be chosen."""
    if request.param == "ConvInteger":
        request.getfixturevalue("never_unfolded")
    return request.param


def make_weight(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Weight:
    levels, bits = LEVEL_SETS[name]
    if levels is not None:
        return Weight(rng.choice(levels, shape).astype(np.int32), level_set=levels)
    peak = 2 ** (bits - 1) - 1
    array = rng.integers(-peak, peak + 1, shape).astype(np.int32)
    array.flat[0], array.flat[1] = peak, -peak
    return Weight(array)


@dataclass(frozen=True)
class Geometry:
    """One way to slide a kernel."""

    channels: tuple[int, int] = (4, 6)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


GEOMETRIES = {
    "same": Geometry(),
    "valid": Geometry(pads=((0, 0), (0, 0))),
    "pointwise": Geometry(kernel=(1, 1), pads=((0, 0), (0, 0))),
    "stride": Geometry(stride=(2, 1)),
    "uneven": Geometry(kernel=(2, 5), pads=((0, 2), (3, 1)), stride=(1, 3)),
    "dilated": Geometry(dilation=(2, 3), pads=((2, 2), (3, 3))),
    "grouped": Geometry(channels=(8, 12), groups=4),
    "depthwise": Geometry(channels=(12, 12), groups=12),
    "depthwise_multiplier": Geometry(channels=(6, 12), groups=6, stride=(2, 2)),
    "wide_groups": Geometry(channels=(40, 4), groups=2),
}


def conv(rng: np.random.Generator, levels: str, g: Geometry) -> Conv2d:
    weight = make_weight(rng, levels, (g.channels[1], g.channels[0] // g.groups, *g.kernel))
    return Conv2d(weight, g.stride, g.pads, g.dilation, g.groups)


@pytest.mark.parametrize("levels", LEVEL_SETS)
@pytest.mark.parametrize("span", RANGES)
def test_conv_widths(form, check_equal, one_op, rng, levels, span):
    lo, hi = RANGES[span]
    op = conv(rng, levels, GEOMETRIES["same"])
    graph = one_op(op, (4, 7, 6), lo, hi)
    check_equal(graph, {"x": rng.integers(lo, hi + 1, (2, 4, 7, 6))})


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("levels", ["binary", "ternary", "int8", "any16"])
@pytest.mark.parametrize("batch", [1, 3])
def test_conv_geometries(form, check_equal, one_op, rng, levels, geometry, batch):
    g = GEOMETRIES[geometry]
    graph = one_op(conv(rng, levels, g), (g.channels[0], 9, 8), 0, 255)
    check_equal(graph, {"x": rng.integers(0, 256, (batch, g.channels[0], 9, 8))})


@pytest.mark.usefixtures("never_unfolded")
@pytest.mark.parametrize(
    ("lo", "hi"),
    [
        (-(2**15), 2**15 - 1),
        (-3, 300),
        (0, 2**20),
        (-(2**23), 2**23),
        (-300, -2),
        (0, 65535),
        (-256, 0),
        (-40000, 25535),
    ],
)
@pytest.mark.parametrize("levels", ["binary", "plus_minus_4", "any6"])
def test_conv_wide_activations(check_equal, one_op, rng, levels, lo, hi):
    op = conv(rng, levels, Geometry(channels=(1, 2), kernel=(2, 2)))
    x = rng.integers(lo, hi + 1, (2, 1, 5, 5))
    x.flat[:4] = lo, hi, lo, hi
    check_equal(one_op(op, (1, 5, 5), lo, hi), {"x": x})


@pytest.mark.usefixtures("never_unfolded")
@pytest.mark.parametrize("sign", [1, -1])
def test_conv_at_the_edge_of_int32(check_equal, one_op, sign):
    """Widest weights: the total just fits int32, so balanced digits leave it and truncated ones are taken."""
    peak = (2**31 - 1) // (4 * 255)
    array = np.full((2, 4, 1, 1), sign * peak, np.int32)
    graph = one_op(Conv2d(Weight(array)), (4, 3, 3), 0, 255)
    x = np.full((1, 4, 3, 3), 255)
    x[0, 1, 1, 1] = 0
    check_equal(graph, {"x": x})


def test_conv_that_only_int64_combines(check_equal, one_op):
    """Inputs far from zero: without the lowest digits, which lie in the negative weights, the sum leaves int32."""
    array = np.array([128 * 65794, -63, -63, -63], np.int32).reshape(1, 4, 1, 1)
    graph = one_op(Conv2d(Weight(array)), (4, 2, 2), 200, 255)
    x = np.full((2, 4, 2, 2), 200)
    x[:, 0], x[1] = 255, 255
    model = check_equal(graph, {"x": x})
    casts = [attribute.i for node in model.graph.node for attribute in node.attribute if node.op_type == "Cast"]
    assert TensorProto.INT64 in casts


@pytest.mark.parametrize("levels", LEVEL_SETS)
@pytest.mark.parametrize("span", RANGES)
def test_linear_widths(check_equal, one_op, rng, levels, span):
    lo, hi = RANGES[span]
    graph = one_op(Linear(make_weight(rng, levels, (5, 17))), (17,), lo, hi)
    check_equal(graph, {"x": rng.integers(lo, hi + 1, (3, 17))})


@pytest.mark.parametrize("levels", ["binary", "ternary", "powers", "any5", "int8", "any12"])
def test_linear_wide_activations(check_equal, one_op, rng, levels):
    graph = one_op(Linear(make_weight(rng, levels, (5, 17))), (17,), -(2**14), 2**14)
    check_equal(graph, {"x": rng.integers(-(2**14), 2**14 + 1, (3, 17))})


@pytest.mark.usefixtures("never_unfolded")
@pytest.mark.parametrize("fill", [0, 1])
def test_constant_weights(check_equal, one_op, fill):
    graph = one_op(Linear(Weight(np.full((3, 4), fill, np.int32))), (4,), 0, 255)
    check_equal(graph, {"x": np.arange(8).reshape(2, 4)})


@pytest.mark.usefixtures("never_unfolded")
@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
@pytest.mark.parametrize("levels", LEVEL_SETS)
def test_every_opset_and_stored_bytes(check_equal, one_op, rng, levels, opset):
    """Stored bytes stay within 1.35 of the ideal (tables and a last partial byte aside) at every opset."""
    op = conv(rng, levels, Geometry(channels=(16, 24)))
    graph = one_op(op, (16, 5, 5), 0, 7)
    model = check_equal(graph, {"x": rng.integers(0, 8, (1, 16, 5, 5))}, opset=opset)
    ideal = op.weight.array.size * op.weight.bits / 8
    assert weight_bytes(model)["y"] <= 1.35 * ideal + 32


def operand_peaks(model: onnx.ModelProto, x: np.ndarray) -> list[tuple[int, int]]:
    """Largest magnitudes of the two byte operands of every product of unlike signedness while the model runs."""
    products = [node for node in model.graph.node if node.op_type in ("ConvInteger", "MatMulInteger")]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {"x"} | {tensor.name for tensor in model.graph.initializer}
    made = sorted({name for node in products for name in node.input[:2]} - known)
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made)
    values = run_session(open_session(exposed), {"x": x}) | {"x": x.astype(element(model.graph.input[0]))}
    values |= {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [[values[name] for name in node.input[:2]] for node in products]
    return [tuple(int(np.abs(v.astype(np.int64)).max()) for v in pair) for pair in pairs if not _unsigned(*pair)]


def element(info: onnx.ValueInfoProto) -> np.dtype:
    return onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _unsigned(a: np.ndarray, b: np.ndarray) -> bool:
    """Two unsigned bytes, whose products no kernel adds in 16 bits."""
    return a.dtype == b.dtype == np.uint8


@pytest.mark.parametrize("levels", ["int8", "any16", "int4"])
@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_two_products_never_saturate_int16(form, check_equal, one_op, rng, levels, span, kind):
    """Kernels without VNNI add two products in a saturating int16; the operands written must not reach it."""
    lo, hi = RANGES[span]
    shape = (4, 4, 4) if kind == "conv" else (16,)
    op = conv(rng, levels, Geometry()) if kind == "conv" else Linear(make_weight(rng, levels, (5, 16)))
    x = rng.integers(lo, hi + 1, (1, *shape))
    x.flat[:2] = lo, hi
    peaks = operand_peaks(check_equal(one_op(op, shape, lo, hi), {"x": x}), x)
    assert peaks or kind == "conv"
    assert all(2 * a * b < 2**15 for a, b in peaks)


def test_small_images_are_unfolded(check_equal, one_op, rng):
    """Up to 64 positions always, up to 256 where windows have several pixels, and never in groups."""

    def operators(g: Geometry, extent: int) -> set[str]:
        graph = one_op(conv(rng, "ternary", g), (g.channels[0], extent, extent), 0, 3)
        model = check_equal(graph, {"x": rng.integers(0, 4, (2, g.channels[0], extent, extent))})
        return {node.op_type for node in model.graph.node} & {"ConvInteger", "MatMulInteger"}

    for name, extent, found in [
        ("pointwise", 8, "MatMulInteger"),
        ("pointwise", 9, "ConvInteger"),
        ("same", 16, "MatMulInteger"),
        ("same", 17, "ConvInteger"),
        ("grouped", 4, "ConvInteger"),
    ]:
        assert operators(GEOMETRIES[name], extent) == {found}, (name, extent)
