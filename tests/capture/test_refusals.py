"""What has no integer form is refused by name, with its place in the user's source."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from qexport.capture import capture
from qexport.errors import OptionError, UnsupportedOperatorError

Forward = Callable[[nn.Module, Tensor], object]


class User(nn.Module):
    """A network of this file, so that the place in the source can be told from the library's and torch's own."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._forward, self.c, self.l, self.sigmoid = forward, nn.Conv2d(3, 4, 3), nn.Linear(6, 2), nn.Sigmoid()

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def network(forward: Forward) -> nn.Module:
    return User(forward).eval()


def _branches(m: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def _slice_assignment(m: nn.Module, x: Tensor) -> Tensor:
    y = m.c(x)  # type: ignore[operator]
    y[:, :2] = 0
    return y


TABLE: dict[str, tuple[Forward, str]] = {
    "sigmoid": (lambda m, x: torch.sigmoid(m.c(x)), "operator aten.sigmoid.default"),
    "softmax": (lambda m, x: m.c(x).softmax(1), "operator aten.softmax.int"),
    "two activations": (lambda m, x: m.c(x) * m.c(x), "the product of two activations"),
    "division by an activation": (lambda m, x: 1 / m.c(x), "operator aten.reciprocal.default"),
    "quotient of activations": (lambda m, x: m.c(x) / m.c(x), "the product of two activations"),
    "dynamic weight": (lambda m, x: F.conv2d(x[:1], x[:1]), "a slice of the batch axis"),
    "negative slope": (lambda m, x: F.leaky_relu(m.c(x), -0.1), "PReLU with negative slope -0.1: not monotone"),
    "constant along the width": (lambda m, x: m.c(x) + torch.arange(6.0), "a constant of shape (6,) that is no scalar"),
    "own divisor": (lambda m, x: F.avg_pool2d(m.c(x), 3, divisor_override=7), "average pooling with divisor_override"),
    "where the maxima are": (
        lambda m, x: F.max_pool2d(m.c(x), 2, return_indices=True), "operator aten.max_pool2d_with_indices.default"
    ),
    "uneven adaptive maximum": (
        lambda m, x: F.adaptive_max_pool2d(m.c(x), (2, 5)), "adaptive pooling of (6, 6) to (2, 5) with unequal windows"
    ),
    "uneven adaptive pool": (lambda m, x: F.adaptive_avg_pool2d(m.c(x), 4), "adaptive pooling of (6, 6) to (4, 4)"),
    "mean over channels": (lambda m, x: m.c(x).mean(1), "a mean over axes [1]"),
    "linear on images": (lambda m, x: m.l(m.c(x)), "linear on a tensor of shape (4, 6, 6)"),
    "reflect padding": (lambda m, x: F.pad(m.c(x), (1, 1, 1, 1), "reflect"), "padding of mode 'reflect'"),
    "padding with ones": (lambda m, x: F.pad(m.c(x), (1, 1, 1, 1), value=1.0), "padding of mode 'constant' with value"),
    "cropping pad": (lambda m, x: F.pad(m.c(x), (-1, 0, 0, 0)), "padding by [-1, 0, 0, 0]"),
    "concat of batches": (lambda m, x: torch.cat([m.c(x), m.c(x)], 0), "a concatenation of the batch axis"),
    "one sample": (lambda m, x: m.c(x)[0], "an element of the batch axis"),
    "batch behind the channels": (lambda m, x: m.c(x).transpose(0, 1), "a permutation [1, 0, 2, 3] of the batch axis"),
    "batch among the anchors": (lambda m, x: m.c(x).reshape(-1, 4), "a reshape of (4, 6, 6) to (4,) per sample"),
    "one value a sample": (lambda m, x: m.c(x).flatten(1)[:, 0], "an output without an axis beside the batch"),
    "repeated rows": (lambda m, x: m.c(x)[:, :, :1].expand(-1, -1, 6, -1), "an activation of shape (4, 1, 6) repeated"),
    "norm of order 1": (lambda m, x: F.normalize(m.c(x), 1.0), "a norm of order 1.0"),
    "norm over rows": (lambda m, x: F.normalize(m.c(x), dim=2), "a norm over axes [2]"),
    "norm as a result": (lambda m, x: m.c(x).norm(dim=1, keepdim=True), "an output that does not depend"),
    "norm of another": (lambda m, x: m.c(x) / m.c(x + 1).norm(dim=1, keepdim=True), "division by another norm"),
    "norm through a layer": (lambda m, x: F.relu(m.c(x).norm(dim=1, keepdim=True)), "a norm of activations"),
    "limited norm": (lambda m, x: m.c(x) / m.c(x).norm(dim=1, keepdim=True).clamp(0.1, 2), "a norm that is limited"),
    "scaled norm": (lambda m, x: m.c(x) / (m.c(x).norm(dim=1, keepdim=True) - 0.5), "a norm that is changed"),
    "squares": (lambda m, x: F.relu(m.c(x).pow(2)), "a norm of activations"),
    "cubes": (lambda m, x: m.c(x).pow(3), "the power 3 of an activation"),
    "root": (lambda m, x: m.c(x).abs().sqrt(), "operator aten.abs.default"),
    "root of an activation": (lambda m, x: m.c(x).sqrt(), "the square root of an activation"),
    "sum": (lambda m, x: m.c(x).sum(1, keepdim=True), "a sum of activations"),
    "maximum over channels": (lambda m, x: m.c(x).amax(1), "a maximum over axes [1]"),
    "slice assignment": (_slice_assignment, "operator aten."),
    "constant output": (lambda m, x: (m.c(x), m.c.weight * 2), "an output that does not depend on the input"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_refused_with_its_place(name: str) -> None:
    forward, message = TABLE[name]
    with pytest.raises(UnsupportedOperatorError) as caught:
        capture(network(forward), (3, 8, 8))
    assert f"unsupported: {message}" in str(caught.value)
    if name not in ("constant output", "norm as a result"):
        line = inspect.getsourcelines(User.forward)[1] + 1
        assert f'{Path(__file__).name}", line {line}, in forward' in str(caught.value)
        assert "/torch/" not in str(caught.value)


def test_module_is_named() -> None:
    with pytest.raises(UnsupportedOperatorError) as caught:
        capture(network(lambda m, x: m.sigmoid(m.c(x))), (3, 8, 8))  # type: ignore[operator]
    assert "module 'sigmoid'" in str(caught.value)
    assert "--quantizer package.Class" in str(caught.value)


@pytest.mark.parametrize("forward", [_branches, lambda m, x: m.c(x[:, :2])])
def test_export_failure_is_a_message(forward: Forward) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"torch\.export cannot capture the network"):
        capture(network(forward), (3, 8, 8))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((0.1, 0.2), None, "--mean does not fit the input"), (None, (1.0, 1.0), "--std does not fit the input"),
     (None, (0.0,), "--std must be positive"), (None, (1.0, -1.0, 1.0), "--std must be positive")],
)  # fmt: skip
def test_bad_normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        capture(network(lambda m, x: m.c(x)), (3, 8, 8), mean, std)  # type: ignore[operator]
