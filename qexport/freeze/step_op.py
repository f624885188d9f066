"""Frozen quantizers as modules: one opaque torch operator for activations, a constant for weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qexport.stepfunction import StepFunction


@torch.library.custom_op("qexport::step", mutates_args=())
def step(x: Tensor, thresholds: Tensor, values: Tensor) -> Tensor:
    """values[#{i : x >= thresholds[i]}], elementwise (docs/arithmetic.md, eq. 1).

    An operator of its own, so that torch.export keeps it whole and capture finds it by name.

    Args:
        x: float32, any shape and memory layout; the result has both.
        thresholds: float32 [n], ascending.
        values: float32 [n + 1].
    """
    codes = torch.searchsorted(thresholds, x.contiguous(), right=True)
    # empty_like keeps a channels-last layout, so that the next convolution sums in the order it did before freezing.
    return torch.empty_like(x).copy_(values[codes])


@step.register_fake
def _(x: Tensor, thresholds: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(x)


class FrozenActivation(nn.Module):
    """A quantizer replaced by its step function."""

    thresholds: Tensor
    values: Tensor

    def __init__(self, function: StepFunction) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.tensor(function.thresholds))
        self.register_buffer("values", torch.tensor(function.values))

    def forward(self, x: Tensor) -> Tensor:
        """float32, any shape -> the same shape."""
        y: Tensor = step(x, self.thresholds, self.values)
        return y


class FrozenWeight(nn.Module):
    """A weight quantizer replaced by its result, whatever it is called with."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, weight: Tensor) -> Tensor:
        """The stored float32 tensor, in the memory layout the original quantizer gave it."""
        return self.values
