"""How many weights lie so near a threshold that other arithmetic would give them another code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qexport.errors import FreezeError
from qexport.freeze.probe import probe
from qexport.levels import QuantizedWeight
from qexport.models.quantizers.base import SoftQuantizer
from qexport.stepfunction import StepFunction

NEAR = 1e-6
"""A weight this near a threshold counts; about ten float32 roundings of the largest weight."""


def count_near_thresholds(quantizer: nn.Module, weight: Tensor, quantized: QuantizedWeight, name: str) -> int:
    """Weights within NEAR of a threshold of their quantizer.

    One of our quantizers answers itself, in the units of its thresholds. Any other that is elementwise is probed, and
    NEAR is relative to the largest |weight|. What is left, such as a standardisation over the tensor, is counted by
    experiment: every weight is moved by NEAR up or down, in random directions that leave mean and deviation alone,
    then the other way, and those that change their level in one of the two are counted.

    Args:
        quantizer: in evaluation mode.
        weight: float32, as the quantizer is given it.
        quantized: what the quantizer makes of it.
        name: of the quantizer.
    """
    if isinstance(quantizer, SoftQuantizer):
        try:
            return quantizer.near_threshold(weight, NEAR)
        except NotImplementedError:
            pass  # a user's subclass need not have it
    try:
        return count_near_steps(probe(quantizer, tuple(weight.shape), name), weight)
    except FreezeError:
        return _count_by_moving(quantizer, weight, quantized)


def count_near_steps(step: StepFunction, weight: Tensor) -> int:
    """Elements of `weight` within NEAR * max|weight| of a threshold of `step`."""
    exact = weight.detach().numpy().astype(np.float64)
    distance = NEAR * np.max(np.abs(exact), initial=0.0)
    thresholds = step.thresholds.astype(np.float64)
    crossed = np.searchsorted(thresholds, exact + distance, "right") - np.searchsorted(thresholds, exact - distance)
    return int(np.count_nonzero(crossed))


def _count_by_moving(quantizer: nn.Module, weight: Tensor, quantized: QuantizedWeight) -> int:
    distance = NEAR * weight.detach().abs().max()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randint(0, 2, weight.shape, generator=generator).to(weight.dtype) * 2 - 1
    values = torch.from_numpy(quantized.values)
    scales = quantized.scale if isinstance(quantized.scale, tuple) else (quantized.scale,)
    # Levels are integers, so a changed level moves the value by a scale; a scale taken from the tensor moves it less.
    half_step = torch.tensor([float(s) / 2 for s in scales]).reshape(-1, *(1,) * (values.ndim - 1))
    changed = torch.zeros(values.shape, dtype=torch.bool)
    with torch.no_grad():
        for sign in (1.0, -1.0):
            changed |= (quantizer(weight.detach() + sign * distance * direction) - values).abs() > half_step
    return int(changed.sum())
