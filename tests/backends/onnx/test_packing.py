"""Codes, fields and bytes: golden literals and round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.packing import field_widths, pack_field, split_fields, unpack_field
from qexport.backends.onnx.weights import Levels, balanced_digits, code_levels, truncated_digits
from qexport.ops import Conv2d, Weight


@pytest.mark.parametrize(
    ("values", "width", "data"),
    [
        ([1, 0, 0, 0, 0, 0, 0, 1, 1], 1, b"\x81\x01"),
        ([0, 1, 2, 3, 3], 2, b"\xe4\x03"),
        ([1, 2, 15], 4, b"\x21\x0f"),
        ([7, 255], 8, b"\x07\xff"),
    ],
)
def test_golden_bytes(values, width, data):
    assert pack_field(np.array(values, np.uint8), width) == data


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_field_round_trip(width, data):
    values = data.draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=40))
    packed = pack_field(np.array(values, np.uint8), width)
    assert len(packed) == -(-len(values) * width // 8)
    assert unpack_field(packed, width, len(values)).tolist() == values


@given(st.integers(1, 30), st.data())
def test_fields_hold_the_code(bits, data):
    codes = np.array(data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=20)), np.int64)
    total, shift = np.zeros_like(codes), 0
    for width, values in split_fields(codes, bits):
        total, shift = total + (values.astype(np.int64) << shift), shift + width
    assert np.array_equal(total, codes)
    assert sum(field_widths(bits)) <= 1.35 * bits


@given(st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=10), st.sampled_from([4, 16, 64, 128, 256]))
def test_digits_sum_to_the_weight(values, radix):
    array = np.array(values, np.int64)
    for cut, base, largest in ((balanced_digits, radix, radix // 2), (truncated_digits, radix, radix - 1)):
        digits = cut(array, base)
        assert np.array_equal(sum(d * base**k for k, d in enumerate(digits)), array)
        assert all(np.abs(d).max() <= largest for d in digits)


@given(st.sets(st.integers(-127, 127), min_size=1, max_size=16), st.data())
def test_coding_round_trip(level_set, data):
    levels = tuple(sorted(level_set))
    array = np.array(data.draw(st.lists(st.sampled_from(levels), min_size=1, max_size=20)), np.int64)
    coding = code_levels(Levels(array, levels))
    decoded = coding.gap * coding.codes + coding.base if coding.table is None else coding.table[coding.codes]
    assert np.array_equal(decoded, array)
    assert np.array_equal(coding.codes & ((1 << coding.bits) - 1), coding.codes)


GOLDEN = {
    ("binary", 25): ((-1, 1), TensorProto.UINT8, b"\x96"),
    ("ternary", 25): ((-1, 0, 1), TensorProto.UINT2, b"\x18\x95"),
    ("ternary", 18): ((-1, 0, 1), TensorProto.UINT8, b"\x18\x95"),
    ("plus_minus_4", 25): ((-4, -2, -1, 0, 1, 2, 4), TensorProto.UINT4, b"\x20\x43\x65\x08"),
    ("int4", 20): (tuple(range(-8, 8)), TensorProto.UINT8, b"\x10\x32\x54\x76"),
}
"""Level set, stored element type and stored bytes of the eight weights picked below."""

PICKED = {
    "binary": [-1, 1, 1, -1, 1, -1, -1, 1],
    "ternary": [-1, 1, 0, -1, 0, 0, 0, 1],
    "plus_minus_4": [-4, -2, -1, 0, 1, 2, 4, -4],
    "int4": [-8, -7, -6, -5, -4, -3, -2, -1],
}


@pytest.mark.parametrize(("name", "opset"), GOLDEN)
def test_golden_initializers(one_op, name, opset):
    level_set, element, data = GOLDEN[name, opset]
    weight = Weight(np.array(PICKED[name], np.int32).reshape(1, 8, 1, 1), level_set=level_set)
    model = to_onnx(one_op(Conv2d(weight), (8, 2, 2), 0, 3), metadata={}, opset=opset)
    (stored,) = (t for t in model.graph.initializer if t.name.startswith("y/weight"))
    assert (stored.data_type, stored.raw_data) == (element, data)
