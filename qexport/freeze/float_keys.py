"""The float32 numbers as consecutive integers, so that bisection over them is exact.

key(0) = 0, key(x) = the bit pattern of x for x > 0, and key(-x) = -key(x). Keys ascend with the number, neighbouring
keys are neighbouring floats, and -0.0 shares the key of 0.0, as it compares equal to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INFINITY_KEY = 0x7F80_0000
"""The key of +inf; every key lies in [-INFINITY_KEY, INFINITY_KEY]."""

_SIGN_BIT = 0x8000_0000


def floats_of_keys(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """The float32 each key stands for; key 0 is +0.0.

    Args:
        keys: int64, any shape, within [-INFINITY_KEY, INFINITY_KEY].
    """
    return np.where(keys >= 0, keys, _SIGN_BIT - keys).astype(np.uint32).view(np.float32)


def keys_of_floats(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """The key of each float32, int64 of the same shape; NaN is not allowed."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.int64)
    return np.where(bits < _SIGN_BIT, bits, _SIGN_BIT - bits)
