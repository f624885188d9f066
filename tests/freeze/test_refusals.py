"""What is no scalar monotone step function is refused by name, with a counter-example and a remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from qexport.errors import FreezeError
from qexport.freeze.probe import probe
from qexport.models.quantizers import DAQWeightQuantizer, QNQuantizer, set_soft

SHAPE = (2, 8, 5, 5)


class Elementwise(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def round_clamped(x: Tensor) -> Tensor:
    return x.clamp(0, 3).round()


def soft_quantizer() -> nn.Module:
    module = QNQuantizer([0, 1, 2, 3])
    set_soft(module, True)
    return module


def fail(x: Tensor) -> Tensor:
    raise ValueError("needs 8 channels")


def bump(x: Tensor) -> Tensor:
    """Monotone but for a dent of 40 floats just above 0.5."""
    dent = (x > 0.5 + 10 * 2**-23) & (x < 0.5 + 50 * 2**-23)
    return (x >= 0.5).float() - dent.float()


CASES: dict[str, tuple[nn.Module, str, str]] = {
    "ReLU": (nn.ReLU(), "not piecewise constant", "f(1"),
    "identity": (nn.Identity(), "not piecewise constant", "f("),
    "257 levels": (Elementwise(lambda x: x.clamp(0, 256).round()), "not piecewise constant", "f("),
    "soft in evaluation": (soft_quantizer(), "not piecewise constant", "f("),
    "sine": (Elementwise(torch.sin), "not monotone", "f("),
    "triangle": (Elementwise(lambda x: x.abs().clamp(0, 2).round()), "not monotone", "f("),
    "straight-through": (
        Elementwise(lambda x: x + (x.clamp(0, 1).mul(3).round() / 3 - x).detach()),
        "not monotone",
        "f(",
    ),
    "dent beside a threshold": (Elementwise(bump), "not monotone", "f(0.5"),
    "sign bit": (
        Elementwise(lambda x: torch.where(torch.signbit(x), -1.0, 1.0)),
        "distinguishes -0.0",
        "f(-0.0) = -1.0",
    ),
    "NaN": (Elementwise(lambda x: x.sqrt().round().clamp(0, 3)), "NaN", "f(-"),
    "NaN parameter": (Elementwise(lambda x: round_clamped(x / torch.nan)), "NaN", "nan"),
    "NaN at infinity": (Elementwise(lambda x: round_clamped(x - x + 1)), "NaN", "f(-inf) = nan"),
    "infinite": (Elementwise(lambda x: torch.where(x > 1, torch.inf, 0.0)), "infinite output", "f(1.00"),
    "infinite at infinity": (
        Elementwise(lambda x: torch.where(x.isinf(), x, 0.0)),
        "infinite output",
        "f(-inf) = -inf",
    ),
    "random": (Elementwise(lambda x: (x + torch.rand_like(x)).clamp(0, 3).round()), "two results", "once gives"),
    "dropout": (Elementwise(lambda x: nn.functional.dropout(round_clamped(x))), "two results", "once gives"),
    "range of the batch": (Elementwise(lambda x: (x / x.abs().max() * 7).round()), "other values", "once gives"),
    "standardised": (DAQWeightQuantizer(2), "other values", "once gives"),
    "range of the image": (
        Elementwise(lambda x: (x / x.abs().amax((1, 2, 3), keepdim=True) * 7).round()),
        "neighbours",
        "once gives",
    ),
    "equal channels only": (
        Elementwise(lambda x: round_clamped(x * (1 + torch.arange(x.shape[1])[:, None, None]))),
        "position",
        "once gives",
    ),
    "per channel": (
        Elementwise(lambda x: round_clamped(x / torch.arange(1, 9)[:, None, None])),
        "per channel",
        "[192, 1, 1, 1] -> output [192, 8, 1, 1]",
    ),
    "reduces": (Elementwise(lambda x: round_clamped(x.mean((2, 3)))), "per channel or per position", "output [192, 1]"),
    "raises": (Elementwise(fail), "failed on a float32 tensor", "ValueError: needs 8 channels"),
    "double": (Elementwise(lambda x: round_clamped(x).double()), "no float32 tensor", "torch.float64"),
    "no tensor": (Elementwise(lambda x: (x, x)), "no float32 tensor", "tuple"),
    "irregular values": (
        Elementwise(lambda x: (x > 0) * 0.1234 + (x > 1) * 0.6537 + (x > 2) * 0.2229),
        "no small integers times a scale",
        "values",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refusal(case: str) -> None:
    module, what, got = CASES[case]
    with pytest.raises(FreezeError) as error:
        probe(module, SHAPE, "layer1.quan")
    assert str(error.value).startswith("layer1.quan: ")
    assert what in error.value.what
    assert got in str(error.value.got)
    assert error.value.remedy


def test_straight_through_is_told_what_to_return() -> None:
    with pytest.raises(FreezeError, match=r"return the quantized value itself; x \+ \(quantized - x\)"):
        probe(CASES["straight-through"][0], SHAPE, "quan")


def test_256_values_are_not_refused() -> None:
    assert probe(Elementwise(lambda x: x.clamp(0, 255).round()), SHAPE, "byte").n_steps == 255
