"""The numpy semantics of every op that has a torch twin, in float64."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Reshape,
    Slice,
    SumPool,
    Transpose,
    Weight,
)

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (3, 4, 7, 9))
GAIN, SLOPE = RNG.normal(0, 1, 4), RNG.uniform(0, 2, 4)


def fractions(values: np.ndarray) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in values)


def conv(
    shape: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int
):
    weight = RNG.normal(0, 1, shape)
    op = Conv2d(Weight(weight), stride, ((padding[0],) * 2, (padding[1],) * 2), dilation, groups)
    return op, lambda x: F.conv2d(x, torch.tensor(weight), None, stride, padding, dilation, groups)


MATRIX = RNG.normal(0, 1, (5, 252))
TABLE: dict[str, tuple[Op, Callable[[Tensor], Tensor]]] = {
    "conv": conv((6, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "conv strided": conv((6, 4, 3, 2), (2, 3), (0, 1), (1, 1), 1),
    "conv dilated": conv((6, 4, 3, 3), (1, 2), (2, 2), (2, 3), 1),
    "conv grouped": conv((6, 2, 5, 3), (1, 1), (2, 0), (1, 1), 2),
    "conv depthwise": conv((8, 1, 3, 3), (2, 2), (1, 1), (1, 1), 4),
    "conv pointwise": conv((6, 4, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "max pool": (MaxPool((3, 2), (2, 1), ((1, 1), (1, 1))), lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 1))),
    "average pool": (AvgPool((3, 2), (2, 1), ((1, 1), (1, 1))), lambda x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 1))),
    "max pool dilated": (
        MaxPool((3, 2), (2, 1), ((1, 1), (1, 1)), (1, 3)),
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 1), (1, 3)),
    ),
    "average of pixels": (
        AvgPool((3, 2), (2, 1), ((1, 1), (1, 1)), ((2, 3, 3, 2), (1, 2, 2, 2, 2, 2, 2, 2, 2, 1))),
        lambda x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 1), count_include_pad=False),
    ),
    "l2 norm": (L2Norm(Fraction(1e-12)), lambda x: F.normalize(x)),
    "transpose": (Transpose((4, 7, 9), (1, 2, 0)), lambda x: x.permute(0, 2, 3, 1)),
    "reshape of pixels": (Reshape((4, 7, 9), (126, 2)), lambda x: x.reshape(-1, 126, 2)),
    "pad": (Pad(((1, 0), (2, 3), (0, 1))), lambda x: F.pad(x, (0, 1, 2, 3, 1, 0))),
    "slice": (Slice(((1, 3, 1), (0, 7, 2), (2, 9, 3))), lambda x: x[:, 1:3, ::2, 2::3]),
    "reshape": (Reshape((4, 7, 9), (252,)), lambda x: x.flatten(1)),
    "relu": (Clip(Fraction(0), None), F.relu),
    "hardtanh": (Clip(Fraction(-1, 4), Fraction(3, 4)), lambda x: F.hardtanh(x, -0.25, 0.75)),
    "prelu": (PRelu(fractions(SLOPE)), lambda x: F.prelu(x, torch.tensor(SLOPE))),
    "affine": (
        Affine(fractions(GAIN), fractions(SLOPE)),
        lambda x: x * torch.tensor(GAIN).view(4, 1, 1) + torch.tensor(SLOPE).view(4, 1, 1),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_op(name: str) -> None:
    op, twin = TABLE[name]
    expected = twin(torch.tensor(X)).numpy()
    got = op.evaluate(X)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("name", [n for n in TABLE if n.startswith("conv")])
def test_integer_convolution(name: str) -> None:
    """Integer products equal torch's float64 convolution of the same integers, exactly."""
    op, _ = TABLE[name]
    assert isinstance(op, Conv2d)
    levels = RNG.integers(-128, 128, op.weight.array.shape).astype(np.int32)
    x = RNG.integers(-128, 256, X.shape)
    padding = (op.pads[0][0], op.pads[1][0])
    twin = F.conv2d(
        torch.tensor(x).double(), torch.tensor(levels).double(), None, op.stride, padding, op.dilation, op.groups
    )
    got = Conv2d(Weight(levels), op.stride, op.pads, op.dilation, op.groups).evaluate(x)
    assert got.dtype == np.int64
    assert np.array_equal(got, twin.numpy().astype(np.int64))


def test_integer_convolution_near_int32() -> None:
    """Sums of 31 bits come out to the last bit."""
    levels = np.full((1, 64, 1, 1), 2**17 + 1, np.int32)
    x = np.full((1, 64, 1, 1), 255)
    assert Conv2d(Weight(levels)).evaluate(x).tolist() == [[[[64 * 255 * (2**17 + 1)]]]]
    assert Linear(Weight(levels.reshape(1, 64))).evaluate(x.reshape(1, 64)).tolist() == [[64 * 255 * (2**17 + 1)]]


def test_linear() -> None:
    flat = X.reshape(3, 252)
    assert np.abs(Linear(Weight(MATRIX)).evaluate(flat) - flat @ MATRIX.T).max() <= 1e-12


def test_two_operands() -> None:
    assert np.array_equal(Add().evaluate(X, X[::-1]), X + X[::-1])
    assert np.array_equal(Concat().evaluate(X, X[:, :1]), np.concatenate([X, X[:, :1]], 1))
    assert np.array_equal(Concat(2).evaluate(X, X[..., :2]), torch.cat([torch.tensor(X), torch.tensor(X[..., :2])], 3))


def test_sum_times_factors() -> None:
    """Factor times sum is the common multiple times the mean over what lies inside the image."""
    mean = TABLE["average of pixels"][0]
    assert isinstance(mean, AvgPool)
    common, factors = mean.integer_form()
    assert common == 6 * 2 and factors == ((3, 2, 2, 3), (2, 1, 1, 1, 1, 1, 1, 1, 1, 2))
    x = RNG.integers(-99, 99, X.shape)
    twin = F.avg_pool2d(torch.tensor(x).double(), (3, 2), (2, 1), (1, 1), count_include_pad=False)
    assert np.array_equal(SumPool(mean.kernel, mean.stride, mean.pads, factors).evaluate(x), (common * twin).round())


def test_weight_over_input_units() -> None:
    """Levels fitted to integer inputs: the real weight is scale * level / unit of the channel, within its group."""
    units = (Fraction(1, 2), Fraction(2), Fraction(4), Fraction(8))
    weight = Weight(np.ones((4, 2, 1, 1), np.int32), (Fraction(1),) * 4, input_unit=units)
    assert weight.real().reshape(4, 2).tolist() == [[2.0, 0.5], [2.0, 0.5], [0.25, 0.125], [0.25, 0.125]]


@pytest.mark.parametrize(
    ("levels", "level_set", "bits"),
    [((-1, 1), (-1, 1), 1), ((-1, 0, 1), (-1, 0, 1), 2), ((-4, 4), (-4, -2, -1, 0, 1, 2, 4), 3), ((-127, 5), None, 8),
     ((-128, 5), None, 9)],
)  # fmt: skip
def test_weight_bits(levels: tuple[int, ...], level_set: tuple[int, ...] | None, bits: int) -> None:
    """Known level sets need their code's bits, free levels those of the largest magnitude and a sign."""
    assert Weight(np.array([levels], np.int32), level_set=level_set).bits == bits
