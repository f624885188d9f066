"""Three uneven thresholds on bytes as a uniform quantizer of a sum that bends."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from qexport.backends.onnx.qdq_bend import CODE_ZERO, find_bend

BYTES = np.arange(256)


def float32_codes(bend, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes: both terms, their sum and the rounding in float32."""
    bent = np.minimum(x, bend.knot) if bend.below else np.maximum(x, bend.knot)
    terms = [
        np.float32(float(scale)) * (v - zero).astype(np.float32)
        for scale, v, zero in zip(bend.scales, (x, bent), bend.zero_points, strict=True)
    ]
    return np.clip(np.rint(terms[0] + terms[1]) + CODE_ZERO, 0, 3)


def test_every_byte_of_many_bars_in_float32():
    rng = np.random.default_rng(0)
    found = 0
    for bars in rng.permutation(list(combinations(range(1, 256, 3), 3)))[:1500].tolist():
        bend = find_bend(bars)
        if bend is None:
            continue
        found += 1
        assert min(bend.zero_points) >= 0 and max(bend.zero_points) <= 255
        np.testing.assert_array_equal(float32_codes(bend, BYTES), (BYTES[:, None] >= bars).sum(1), err_msg=str(bars))
    assert found > 1000


@pytest.mark.parametrize("bars", [[5, 9], [10, 20, 30], [1, 2, 3, 4], [7, 7, 9]])
def test_no_bend(bars):
    """Other numbers of bars, even ones, and two at the same byte."""
    assert find_bend(bars) is None
