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
    "ceil mode": (lambda m, x: F.max_pool2d(m.c(x), 4, ceil_mode=True), "max pooling with ceil_mode or dilation"),
    "dilated pool": (lambda m, x: F.max_pool2d(m.c(x), 2, 1, dilation=2), "max pooling with ceil_mode or dilation"),
    "average without padding": (
        lambda m, x: F.avg_pool2d(m.c(x), 3, 1, 1, count_include_pad=False), "average pooling with ceil_mode"
    ),
    "uneven adaptive pool": (lambda m, x: F.adaptive_avg_pool2d(m.c(x), 4), "adaptive pooling of (6, 6) to (4, 4)"),
    "mean over channels": (lambda m, x: m.c(x).mean(1), "a mean over axes [1]"),
    "linear on images": (lambda m, x: m.l(m.c(x)), "linear on a tensor of shape (4, 6, 6)"),
    "reflect padding": (lambda m, x: F.pad(m.c(x), (1, 1, 1, 1), "reflect"), "padding of mode 'reflect'"),
    "padding with ones": (lambda m, x: F.pad(m.c(x), (1, 1, 1, 1), value=1.0), "padding of mode 'constant' with value"),
    "cropping pad": (lambda m, x: F.pad(m.c(x), (-1, 0, 0, 0)), "padding by [-1, 0, 0, 0]"),
    "concat of rows": (lambda m, x: torch.cat([m.c(x), m.c(x)], 2), "concatenation along axis 2"),
    "channels last reshape": (lambda m, x: m.c(x).reshape(x.shape[0], 6, 24), "a reshape of (4, 6, 6) to (6, 24)"),
    "permute": (lambda m, x: m.c(x).permute(0, 2, 3, 1), "operator aten.permute.default"),
    "slice assignment": (_slice_assignment, "operator aten."),
    "constant output": (lambda m, x: (m.c(x), m.c.weight * 2), "an output that does not depend on the input"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_refused_with_its_place(name: str) -> None:
    forward, message = TABLE[name]
    with pytest.raises(UnsupportedOperatorError) as caught:
        capture(network(forward), (3, 8, 8))
    assert f"unsupported: {message}" in str(caught.value)
    if name != "constant output":
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
