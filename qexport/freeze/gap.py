"""The quantizer gap: how far a soft quantizer at its last temperature is from the step function it freezes to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qexport.models.quantizers.base import SoftQuantizer
from qexport.stepfunction import StepFunction

MOST_WEIGHTS = 1 << 20
"""So many weights of a layer are looked at, evenly chosen: they cost as much memory as a forward pass otherwise."""

GRID_POINTS = 4097


@dataclass(frozen=True)
class QuantizerGap:
    """|soft - hard| of one quantizer, in units of the mean distance between neighbouring values.

    Attributes:
        of: "weights", measured on the layer's own; or "activations", measured evenly from one step below the first
            threshold to one above the last, since what a layer reads is not known without data.
        mean, largest: of that gap.
    """

    of: str
    mean: float
    largest: float


def weight_gap(quantizer: nn.Module, weight: Tensor) -> QuantizerGap | None:
    """The gap on a weight tensor, any shape; None for a quantizer without a soft form."""
    flat = weight.detach().flatten()
    return _gap(quantizer, flat[:: max(1, -(-flat.numel() // MOST_WEIGHTS))], "weights")


def activation_gap(quantizer: nn.Module, function: StepFunction) -> QuantizerGap | None:
    """The gap round the thresholds of `function`, what the quantizer freezes to; None without a soft form."""
    thresholds = function.thresholds.astype(float)
    first, last = float(thresholds[0]), float(thresholds[-1])
    # One threshold alone has no distance to a next one: the quantizers here put it in the middle of a step from 0 on.
    width = (last - first) / (len(thresholds) - 1) if len(thresholds) > 1 else 2 * abs(first) or 1.0
    return _gap(quantizer, torch.linspace(first - width, last + width, GRID_POINTS), "activations")


def _gap(quantizer: nn.Module, x: Tensor, of: str) -> QuantizerGap | None:
    if not isinstance(quantizer, SoftQuantizer) or not x.numel():
        return None
    with torch.no_grad():
        try:
            soft = quantizer.soft(x)
        except NotImplementedError:
            return None
        hard = quantizer.hard(x)
    values = torch.unique(hard)
    step = float(values[-1] - values[0]) / max(1, len(values) - 1)
    gap = (soft - hard).abs() / (step or 1.0)
    return QuantizerGap(of, float(gap.double().mean()), float(gap.max()))
