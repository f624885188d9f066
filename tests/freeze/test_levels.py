"""Integer levels of weight tensors: exact where a scheme has them, a reported fit where not, nothing for float."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.errors import FreezeError
from qexport.levels import QuantizedWeight, recover_weight
from qexport.stepfunction import LEVEL_TOLERANCE

SHAPE = (8, 4, 3, 3)
SCHEMES = {
    "binary": [-1, 1],
    "ternary": [-1, 0, 1],
    "thirds": [-3, -1, 1, 3],
    "powers of two": [-4, -2, -1, 0, 1, 2, 4],
    "APoT": [-10, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 10],
    "int8": list(range(-128, 128)),
}


def draw(levels: list[int], shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random levels, int64; every level occurs if there is room."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(levels, shape).reshape(-1)
    n_forced = min(len(levels), drawn.size)
    drawn[:n_forced] = levels[:n_forced]
    return rng.permutation(drawn).reshape(shape)


def random_weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def assert_reproduces(found: QuantizedWeight) -> None:
    """The claims of the docstring: shape, range, level set, error."""
    assert found.levels.dtype == np.int32
    assert found.levels.shape == found.values.shape
    assert found.levels.min() >= -128 and found.levels.max() <= 127
    assert found.level_set == tuple(sorted(set(found.levels.flatten().tolist())))
    scales = found.scale if isinstance(found.scale, tuple) else (found.scale,)
    assert all(s > 0 for s in scales)
    rows = found.values.reshape(len(scales), -1)
    levels = found.levels.reshape(len(scales), -1)
    for row, codes, scale in zip(rows, levels, scales, strict=True):
        peak = float(np.abs(row).max()) or 1.0
        assert np.max(np.abs(row - codes * float(scale))) / peak <= found.max_error


@pytest.mark.parametrize("scale", [1.0, 1 / 3, 0.0371, 1e-20])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_per_tensor(scheme: str, scale: float) -> None:
    levels = draw(SCHEMES[scheme])
    values = levels.astype(np.float32) * np.float32(scale)
    found = recover_weight(values, "conv")
    assert found is not None
    assert np.array_equal(found.levels, levels)
    assert np.array_equal((found.levels * float(found.scale)).astype(np.float32), values)
    assert not found.is_fitted
    assert_reproduces(found)


@pytest.mark.parametrize("scheme", ["ternary", "thirds", "powers of two", "APoT"])
def test_per_channel(scheme: str) -> None:
    levels = np.stack([draw(SCHEMES[scheme], SHAPE[1:], seed) for seed in range(SHAPE[0])])
    scales = np.random.default_rng(1).uniform(0.01, 1, SHAPE[0]).astype(np.float32)
    found = recover_weight(levels.astype(np.float32) * scales[:, None, None, None], "conv")
    assert found is not None
    assert np.array_equal(found.levels, levels)
    assert found.scale == tuple(Fraction(float(s)) for s in scales) or not found.is_fitted
    assert_reproduces(found)


def test_channel_that_lacks_levels_stays_inside_the_level_set() -> None:
    levels = np.stack([draw(SCHEMES["APoT"], (4, 3, 3), seed) for seed in range(4)])
    levels[2] = draw([-10, -8, -6], (4, 3, 3))
    scales = np.array([0.1, 0.23, 0.37, 0.41], np.float32)
    found = recover_weight(levels.astype(np.float32) * scales[:, None, None, None], "conv")
    assert found is not None
    assert found.level_set == tuple(SCHEMES["APoT"])
    assert np.array_equal(found.levels, levels)


def test_scales_that_are_powers_of_two_are_scales_not_levels() -> None:
    """IR-Net: signs times 2^k per channel."""
    signs = draw([-1, 1])
    scales = 2.0 ** np.arange(-4, 4, dtype=np.float32)
    found = recover_weight(signs.astype(np.float32) * scales[:, None, None, None], "conv")
    assert found is not None
    assert np.array_equal(found.levels, signs)
    assert found.scale == tuple(Fraction(float(s)) for s in scales)


def test_channels_of_zeros() -> None:
    levels = np.stack([draw([-1, 0, 1], (4, 3, 3), seed) for seed in range(4)])
    levels[1] = 0
    scales = np.array([0.1, 0.23, 0.37, 0.41], np.float32)
    found = recover_weight(levels.astype(np.float32) * scales[:, None, None, None], "conv")
    assert found is not None
    assert np.array_equal(found.levels, levels)
    assert found.level_set == (-1, 0, 1)


def test_tensor_of_zeros() -> None:
    found = recover_weight(np.zeros(SHAPE, np.float32), "conv")
    assert found is not None
    assert (found.level_set, found.scale, found.max_error, found.bits) == ((0,), Fraction(1), 0.0, 1)


def test_rare_level_that_a_sample_would_miss() -> None:
    values = np.ones((64, 64, 3, 3), np.float32)
    values[13, 7, 1, 2] = 0.25
    found = recover_weight(values, "conv")
    assert found is not None
    assert found.level_set == (1, 4)


def test_straight_through_rounding_is_absorbed() -> None:
    """w + (quantized - w) leaves values within a rounding of the level, hundreds of different ones."""
    latent = random_weight(*SHAPE)
    hard = np.clip(np.rint(latent / np.float32(0.37)), -3, 3).astype(np.float32) * np.float32(0.37)
    values = latent + (hard - latent)
    assert np.unique(values).size > 7
    found = recover_weight(values, "conv")
    assert found is not None
    assert np.array_equal(found.levels, np.rint(hard / np.float32(0.37)))


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 1, 1, 1), (16, 1, 1, 1), (2, 1), (1, 2), (4, 2), (3, 3), (2, 2, 1, 1), (64, 3, 7, 7), (10, 512)],
)
def test_float_weights_are_left_float(shape: tuple[int, ...]) -> None:
    assert recover_weight(random_weight(*shape), "conv") is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_small_random_tensors_are_left_float(seed: int, n_out: int, n_in: int) -> None:
    values = np.random.default_rng(seed).standard_normal((n_out, n_in)).astype(np.float32)
    assert recover_weight(values, "linear") is None


def test_small_tensor_known_to_be_quantized() -> None:
    values = np.array([[0.37], [-0.37]], np.float32)
    found = recover_weight(values, "conv", known_quantized=True)
    assert found is not None
    assert found.levels.tolist() == [[1], [-1]]


def test_float_result_of_a_quantizer_is_left_float() -> None:
    assert recover_weight(random_weight(*SHAPE), "conv", known_quantized=True) is None


@pytest.mark.parametrize("known_quantized", [False, True])
def test_codebook_where_there_is_no_common_step(known_quantized: bool) -> None:
    """TTQ: two learned values of unrelated size beside zero."""
    values = np.array([-0.7123456, 0.0, 0.5], np.float32)[draw([0, 1, 2])]
    found = recover_weight(values, "conv", known_quantized=known_quantized)
    assert found is not None
    assert len(found.level_set) == 3
    assert LEVEL_TOLERANCE < found.max_error < 1 / 1000
    assert found.is_fitted
    assert_reproduces(found)


def test_codebook_per_channel() -> None:
    asymmetric = np.random.default_rng(2).uniform(0.1, 1, (8, 2)).astype(np.float32)
    values = np.stack(
        [np.array([-n, 0, p], np.float32)[draw([0, 1, 2], SHAPE[1:], i)] for i, (n, p) in enumerate(asymmetric)]
    )
    found = recover_weight(values, "conv")
    assert found is not None
    assert isinstance(found.scale, tuple)
    assert found.max_error <= 1 / 127
    assert_reproduces(found)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.0078125, 10, width=32), min_size=3, max_size=8, unique=True),
    st.integers(0, 100),
)
def test_reported_error_is_kept(values: list[float], seed: int) -> None:
    weight = np.array(values, np.float32)[draw(list(range(len(values))), SHAPE, seed)]
    found = recover_weight(weight, "conv", known_quantized=True)
    assert found is not None
    assert found.max_error <= 0.5 / 64 + 1e-9
    assert_reproduces(found)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad: float) -> None:
    values = random_weight(*SHAPE)
    values[0, 1, 2, 0] = bad
    with pytest.raises(
        FreezeError, match=r"conv1: a weight is not finite\n  got:      1 NaN or infinite values of 288"
    ):
        recover_weight(values, "conv1")


@pytest.mark.parametrize(
    ("levels", "bits"), [([-1, 1], 1), ([-1, 0, 1], 2), (SCHEMES["APoT"], 4), (SCHEMES["int8"], 8)]
)
def test_bits(levels: list[int], bits: int) -> None:
    found = recover_weight(draw(levels).astype(np.float32), "conv")
    assert found is not None
    assert found.bits == bits


def test_needs_no_torch() -> None:
    code = "import sys, qexport.levels, qexport.freeze.float_keys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
