"""Keys are the float32 numbers in order, without gaps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qexport.freeze.float_keys import INFINITY_KEY, floats_of_keys, keys_of_floats

KEYS = st.integers(-INFINITY_KEY, INFINITY_KEY)


@given(st.lists(KEYS, min_size=1))
def test_round_trip(keys: list[int]) -> None:
    array = np.array(keys, np.int64)
    assert np.array_equal(keys_of_floats(floats_of_keys(array)), array)


@given(st.integers(-INFINITY_KEY, INFINITY_KEY - 1))
def test_next_key_is_next_float(key: int) -> None:
    x, successor = floats_of_keys(np.array([key, key + 1], np.int64))
    with np.errstate(over="ignore"):
        assert np.nextafter(x, np.float32(np.inf)) == successor


def test_special_values() -> None:
    x = np.array([-np.inf, -1e-45, -0.0, 0.0, 1e-45, np.inf], np.float32)
    assert keys_of_floats(x).tolist() == [-INFINITY_KEY, -1, 0, 0, 1, INFINITY_KEY]
    assert not np.signbit(floats_of_keys(np.array([0]))[0])
