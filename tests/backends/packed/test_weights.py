"""Weights as bits: every coding gives back what was put in, is as small as it says, and refuses stray bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.packed.format import MAX_WEIGHT
from qexport.backends.packed.weights import Coding, choose_coding, decode_rows, encode_rows
from qexport.errors import ArtifactError, GraphError
from qexport.ops import Weight


def bits_of(row: np.ndarray, coding: Coding) -> bytes:
    """A row by the words of the specification: weight by weight, bit by bit."""
    codes = [coding.codebook.index(int(w)) if coding.codebook else int(w) for w in row]
    if coding.base3:
        padded = codes + [0] * (-len(codes) % 5)
        return bytes(sum(c * 3**i for i, c in enumerate(padded[k : k + 5])) for k in range(0, len(padded), 5))
    total = sum((code % (1 << coding.bits)) << (k * coding.bits) for k, code in enumerate(codes))
    return total.to_bytes(-(-len(codes) * coding.bits // 8), "little")


@st.composite
def weights(draw: st.DrawFn) -> Weight:
    o, k = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        levels = sorted(draw(st.sets(st.integers(-(2**20), 2**20), min_size=1, max_size=260)))
        array = rng.choice(np.array(levels), (o, k))
        return Weight(array.astype(np.int32), level_set=tuple(levels))
    bits = draw(st.integers(1, 30))
    return Weight(rng.integers(-(1 << bits), 1 << bits, (o, k)).astype(np.int32), edge_bits=bits)


@given(weights())
@settings(max_examples=200, deadline=None)
def test_every_coding_gives_the_weights_back(weight: Weight) -> None:
    coding = choose_coding(weight)
    data = encode_rows(weight.array, coding)
    o, k = weight.array.shape
    assert len(data) == o * coding.row_bytes(k)
    assert data == b"".join(bits_of(row, coding) for row in weight.array)
    assert np.array_equal(decode_rows(np.frombuffer(data, np.uint8), (o, k), coding), weight.array)


@pytest.mark.parametrize(
    ("values", "levels", "expected"),
    [
        ([-1, 1] * 4, (-1, 1), Coding(1, (-1, 1))),
        ([-1, 0, 1] * 3, (-1, 0, 1), Coding(2, (-1, 0, 1), base3=True)),
        ([0, 1], (-1, 0, 1), Coding(2, (-1, 0, 1))),  # one byte either way: plain codes are simpler
        ([0] * 8, tuple(range(-4, 4)), Coding(3, tuple(range(-4, 4)))),
        ([-4, -2, 4, 1], (-4, -2, -1, 0, 1, 2, 4), Coding(3, (-4, -2, -1, 0, 1, 2, 4))),
        ([5], (5,), Coding(1, (5,))),
        ([0, 1], None, Coding(2)),
        ([-2, 1], None, Coding(2)),
        ([-2, 2], None, Coding(3)),
        ([-129, 127], None, Coding(9)),
        ([300] * 2, tuple(range(300, 600)), Coding(10)),
    ],
)
def test_the_smallest_coding_is_chosen(values: list[int], levels: tuple[int, ...] | None, expected: Coding) -> None:
    assert choose_coding(Weight(np.array([values], np.int32), level_set=levels)) == expected


def test_ternary_weights_take_1_6_bits() -> None:
    coding = choose_coding(Weight(np.zeros((1, 1000), np.int32), level_set=(-1, 0, 1)))
    assert coding.row_bytes(1000) * 8 == 1600


@pytest.mark.parametrize(
    ("coding", "data", "message"),
    [
        (Coding(2, (-1, 0, 1)), [0b00_11_00_01], "no level"),
        (Coding(2, (-1, 0, 1, 2)), [0b01_00_00_00], "not zero"),
        (Coding(2, (-1, 0, 1), base3=True), [243], "no five ternary"),
        (Coding(2, (-1, 0, 1), base3=True), [27], "not zero"),
        (Coding(3), [0, 0b10], "not zero"),
        (Coding(32), list(((MAX_WEIGHT + 1) << 32).to_bytes(12, "little")), "out of range"),
    ],
)
def test_stray_bits_are_refused(coding: Coding, data: list[int], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        decode_rows(np.array(data, np.uint8), (1, 3), coding)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GraphError, match="too large"):
        choose_coding(Weight(np.array([[MAX_WEIGHT + 1]], np.int32)))
    with pytest.raises(GraphError, match="no level"):
        choose_coding(Weight(np.array([[2]], np.int32), level_set=(-1, 1)))
