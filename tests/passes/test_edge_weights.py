"""Weights of float layers rounded against what the layers read."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from qexport.errors import ArtifactError
from qexport.ir import Graph, real
from qexport.ir.types import INT32_MAX
from qexport.ops import Affine, Conv2d, Linear, Weight
from qexport.passes.edge_fit import InputMoments, fit_edge_weights
from qexport.passes.edge_record import EdgeRecord
from qexport.passes.edge_weights import fit_edge_levels
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import lower
from qexport.passes.rounding import descend, descend_pairs, round_to_moments
from qexport.reference import interpret

Floats = NDArray[np.float64]


def correlated(size: int, seed: int) -> tuple[Floats, Floats]:
    """Covariance [K, K] of positive, strongly correlated taps, as pixels are, and 4 rows of weights."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(0, 0.3, (size, size)) + np.eye(size) + 1.0
    return mixing @ mixing.T, rng.normal(0, 1, (4, size))


def cost(error: Floats, covariance: Floats) -> Floats:
    return np.einsum("ok,kl,ol->o", error, covariance, error)


def always(levels: Floats) -> NDArray[np.bool_]:
    return np.ones(len(levels), bool)


def nearest(weight: Floats, top: int) -> tuple[Floats, Floats]:
    scale = np.abs(weight).max(1) / top
    return np.rint(weight / scale[:, None]), scale


@pytest.mark.parametrize(("size", "top"), list(product([2, 9, 27, 150], [1, 7, 127])))
def test_rounding_lowers_the_output_error(size: int, top: int) -> None:
    covariance, weight = correlated(size, size + top)
    start = nearest(weight, top)
    levels, scale = round_to_moments(weight, covariance, np.full(4, float(top)), start, always)
    assert np.array_equal(levels, np.rint(levels)) and np.abs(levels).max() <= top and np.all(scale > 0)
    before = cost(weight - start[0] * start[1][:, None], covariance)
    after = cost(weight - levels * scale[:, None], covariance)
    # Beside the damping, which makes the cost another one by 1e-4 of the variance.
    assert np.all(after <= before * 1.01)
    assert after.sum() < (0.5 if size > 2 else 0.9) * before.sum()


def test_rounding_finds_the_optimum_of_small_layers() -> None:
    """At the scale it chose no other levels are better: all 15^3 are tried."""
    covariance, weight = correlated(3, 5)
    levels, scale = round_to_moments(weight, covariance, np.full(4, 7.0), nearest(weight, 7), always)
    every = np.array(list(product(range(-7, 8), repeat=3)), np.float64)
    for row, found, step in zip(weight, levels, scale, strict=True):
        best = cost(row - every * step, covariance).min()
        assert cost((row - found * step)[None], covariance)[0] <= best * (1 + 1e-3)


def test_rounding_is_deterministic() -> None:
    covariance, weight = correlated(27, 0)
    runs = [round_to_moments(weight, covariance, np.full(4, 7.0), nearest(weight, 7), always) for _ in range(2)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*runs, strict=True))


def test_rows_that_cannot_be_proven_stay() -> None:
    covariance, weight = correlated(9, 1)
    start = nearest(weight, 7)
    levels, scale = round_to_moments(weight, covariance, np.full(4, 7.0), start, lambda v: np.arange(len(v)) == 2)
    stayed = [np.array_equal(a, b) for a, b in zip(levels, start[0], strict=True)]
    assert stayed == [True, True, False, True]
    assert np.array_equal(np.delete(scale, 2), np.delete(start[1], 2))


@pytest.mark.parametrize("method", [descend, descend_pairs])
def test_descent_ends_where_no_move_helps(method: object) -> None:
    covariance, weight = correlated(6, 3)
    top = np.full(4, 7.0)
    target = weight / np.abs(weight).max(1)[:, None] * 7
    levels = method(target, covariance, np.zeros_like(target), top)  # type: ignore[operator]
    reached = cost(target - levels, covariance)
    assert np.abs(levels).max() <= 7
    for k, d in product(range(6), (-1, 1)):
        moved = levels.copy()
        moved[:, k] += d
        allowed = np.abs(moved).max(1) <= 7
        assert np.all(cost(target - moved, covariance)[allowed] >= reached[allowed] * (1 - 1e-9))


@pytest.mark.parametrize("bits", [4, 8, 16, None])
def test_a_layer_that_reads_pixels_is_fitted_to_them(bits: int | None) -> None:
    """Smooth images: less error than plain rounding, and proven levels of the width."""
    rng = np.random.default_rng(2)
    weight = rng.normal(0, 1, (8, 3, 3, 3))
    fitted = fit_edge_levels(weight, np.full(3, 255.0), bits, "stem", bits)
    levels = fitted.array.astype(np.int64)
    assert np.abs(levels).max() <= 2 ** ((bits or 24) - 1) - 1
    assert np.abs(levels).reshape(8, -1).sum(1).max() * 255 <= INT32_MAX
    if bits is None:
        return
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / (2 ** (bits - 1) - 1)
    smooth = rng.normal(0, 1, (2000, 1, 1, 1)) + 0.2 * rng.normal(0, 1, (2000, 3, 3, 3))
    errors = [
        np.tensordot(smooth, e, ((1, 2, 3), (1, 2, 3)))
        for e in (fitted.real() - weight, np.rint(weight / step) * step - weight)
    ]
    assert np.square(errors[0]).sum() < 0.7 * np.square(errors[1]).sum()


def stem_and_head() -> Graph:
    """A padded strided float convolution on normalised pixels, a clip, and a grouped one behind it."""
    rng = np.random.default_rng(3)
    graph = Graph()
    graph.add_input("image", real((2, 6, 6), 0, 255))
    gains, biases = (Fraction(1, 60), Fraction(-1, 50)), (Fraction(-2), Fraction(5, 2))
    graph.add("normalize", Affine(gains, biases), "image")
    graph.add("stem", Conv2d(Weight(rng.normal(0, 1, (4, 2, 3, 3))), (2, 2), ((1, 1), (1, 1))), "normalize")
    graph.add("head", Conv2d(Weight(rng.normal(0, 1, (6, 2, 1, 1))), groups=2), "stem")
    graph.outputs = ["head"]
    return graph


def moments_of_head(graph: Graph, images: NDArray) -> InputMoments:
    x = interpret(graph, {"image": images}, keep=["stem"]).tensors["stem"]
    taps = x.transpose(1, 0, 2, 3).reshape(2, 2, -1)
    return InputMoments(taps.mean(2), np.stack([np.cov(group, bias=True) for group in taps]))


def moments_of_stem(graph: Graph, images: NDArray) -> InputMoments:
    x = interpret(graph, {"image": images}, keep=["normalize"]).tensors["normalize"]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = np.stack([padded[:, :, i : i + 3, j : j + 3] for i in (0, 2, 4) for j in (0, 2, 4)])
    taps = taps.reshape(-1, 18)
    return InputMoments(taps.mean(0)[None], np.cov(taps.T, bias=True)[None])


@pytest.fixture(scope="module")
def images() -> NDArray:
    rng = np.random.default_rng(4)
    return np.clip(rng.normal(140, 40, (200, 2, 1, 1)) + rng.normal(0, 15, (200, 2, 6, 6)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("layer", ["stem", "head"])
def test_fitted_layers_err_less_and_not_on_average(layer: str, images: NDArray) -> None:
    """On the data it was fitted to the layer has no mean error and less noise than without; its integers are proven."""
    graph = stem_and_head()
    options = LayerOptions(4)
    find = {"stem": moments_of_stem, "head": moments_of_head}[layer]
    fitted = replace(options, edge_weights=fit_edge_weights(graph, options, {layer: find(graph, images)}))
    exact = interpret(graph, {"image": images}, keep=["stem", "head"]).tensors
    errors = []
    for chosen in (options, fitted):
        found = interpret(quantize_layers(graph, chosen), {"image": images}, keep=["*"]).tensors
        if layer == "head":  # the head alone: the stem has its own errors
            op = _layer_behind(quantize_layers(graph, chosen), layer)
            found = {"head": op(exact["stem"])}
        errors.append(found[layer] - exact[layer])
    # Border corrections are rounded to 2^-12 of a step.
    assert np.abs(errors[1].mean((0, 2, 3))).max() < 1e-3 * exact[layer].std()
    assert np.square(errors[1]).sum() < 0.8 * np.square(errors[0]).sum()
    assert lower(quantize_layers(graph, fitted)).graph.outputs


def _layer_behind(graph: Graph, name: str) -> object:
    """A layer, with its shift, as a function of its real input."""
    node = graph.node(name)
    if isinstance(node.op, Affine):
        inner = graph.node(node.inputs[0]).op
        return lambda x: node.op.evaluate(inner.evaluate(x))
    return node.op.evaluate


def test_without_a_covariance_only_the_mean_is_corrected(images: NDArray) -> None:
    graph, options = stem_and_head(), LayerOptions(4)
    moments = replace(moments_of_stem(graph, images), covariance=None)
    record = fit_edge_weights(graph, options, {"stem": moments})["stem"]
    plain = quantize_layers(graph, options).node("stem.product").op
    fitted = quantize_layers(graph, replace(options, edge_weights={"stem": record})).node("stem.product").op
    assert isinstance(plain, Conv2d) and isinstance(fitted, Conv2d)
    assert np.array_equal(plain.weight.array, fitted.weight.array)
    assert any(record.shift)


def record_and_weight() -> tuple[EdgeRecord, Floats]:
    weight = np.random.default_rng(5).normal(0, 1, (3, 4))
    fitted = Weight(np.array([[7, -3, 0, 2], [1, 2, 3, 4], [-7, 0, 0, 1]], np.int32), (Fraction(1, 5),) * 3)
    return EdgeRecord.of(weight, fitted), weight


def test_record_gives_back_the_levels() -> None:
    record, weight = record_and_weight()
    assert record.weight(weight, 4, None).array.tolist() == [[7, -3, 0, 2], [1, 2, 3, 4], [-7, 0, 0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounding": "!"}, "fc: the stored rounding of a float layer does not fit it"),
        ({"rounding": "AAAA"}, "the stored rounding"),
        ({"rounding": "eNpjYEAFAAAQAAE="}, "bytes of roundings"),
        ({"scale": (1.0, 1.0)}, "2 scales and 3 shifts"),
        ({"shift": (1.0,)}, "3 scales and 1 shifts"),
        ({"scale": (1.0, 0.0, 1.0)}, "no numbers"),
        ({"scale": (1.0, float("nan"), 1.0)}, "no numbers"),
        ({"shift": (1.0, float("inf"), 1.0)}, "no numbers"),
    ],
    ids=str,
)
def test_damaged_records_are_refused(change: dict[str, object], message: str) -> None:
    record, weight = record_and_weight()
    with pytest.raises(ArtifactError) as caught:
        replace(record, **change).weight(weight, 4, None, "fc")  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_layer_on_wide_input_is_fitted() -> None:
    """A linear layer behind a sum of floats: no integers are known yet when its weights are rounded."""
    rng = np.random.default_rng(6)
    graph = Graph()
    graph.add_input("image", real((5,), 0, 255))
    graph.add("first", Linear(Weight(rng.normal(0, 0.01, (6, 5)))), "image")
    graph.add("last", Linear(Weight(rng.normal(0, 1, (3, 6)))), "first")
    graph.outputs = ["last"]
    images = rng.integers(0, 256, (300, 5)).astype(np.uint8)
    x = interpret(graph, {"image": images}, keep=["first"]).tensors["first"]
    moments = {"last": InputMoments(x.mean(0)[None], np.cov(x.T, bias=True)[None])}
    options = LayerOptions(4)
    record = fit_edge_weights(graph, options, moments)
    real_graph = quantize_layers(graph, replace(options, edge_weights=record))
    errors = [
        _layer_behind(g, "last")(x) - x @ graph.node("last").op.weight.array.T
        for g in (real_graph, quantize_layers(graph, options))
    ]  # type: ignore[operator,attr-defined]
    assert np.square(errors[0]).sum() < 0.7 * np.square(errors[1]).sum()
    lower(real_graph)
