"""Networks whose quantizers are used in a way that cannot be frozen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from qexport.errors import FreezeError
from qexport.freeze.model import freeze

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class UserSign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class Module(nn.Module):
    """Any function of (module, x) with a quantizer inside."""

    def __init__(self, quantizer: nn.Module, function: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self.quantizer, x)


class Initialising(nn.Module):
    """Sets its scale from its first input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == 0:
            self.scale.copy_(x.abs().max())
        return (x / self.scale).clamp(0, 1).round()


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(0, 1).round_()


REFUSALS = {
    "class that does not occur": (
        lambda q, x: q(x),
        nn.ReLU(),
        UserSign,
        "no module of the network is a UserSign",
    ),
    "two arguments": (
        lambda q, x: q(x, x),
        nn.Bilinear(8, 8, 8),
        nn.Bilinear,
        r"quantizer: .* not called as a function",
    ),
    "initialises itself": (lambda q, x: q(x), Initialising(), Initialising, "quantizer: .* changes its own state"),
    "no step function": (lambda q, x: q(x), nn.ReLU(), nn.ReLU, "quantizer: .* not piecewise constant"),
    "wrong image size": (
        lambda q, x: q(x.reshape(2, 3, 9, 9)),
        UserSign(),
        UserSign,
        r"failed on an input of shape \[2, 3, 8, 8\]",
    ),
    "changes its input": (lambda q, x: q(x) + x, InPlace(), InPlace, "gives another output than the original"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    function, quantizer, kind, message = REFUSALS[case]
    with pytest.raises(FreezeError, match=message) as error:
        freeze(Module(quantizer, function), EXAMPLE, quantizer_types=(kind,))
    assert error.value.remedy
