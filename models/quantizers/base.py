"""What every quantizer of ours shares: a soft form to train with, a hard form to deploy."""

from __future__ import annotations

from torch import Tensor, nn


class SoftQuantizer(nn.Module):
    """Soft in training mode, hard in evaluation mode.

    A subclass writes `hard` in the float32 arithmetic of the public code it stands for, operation by operation:
    freezing probes that function, so a rounding that differs moves a threshold.

    Attributes:
        soft_in_eval: evaluate the soft form at its present temperature even in evaluation mode; validation compares
            that network with the frozen one (the quantizer gap).
        temperature: sharpness of the soft form.
    """

    soft_in_eval: bool = False
    temperature: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Quantize `x` (float32, any shape); the result has the shape of `x`."""
        return self.soft(x) if self.training or self.soft_in_eval else self.hard(x)

    def soft(self, x: Tensor) -> Tensor:
        """The differentiable form."""
        raise NotImplementedError(f"{type(self).__name__} has no soft form")

    def hard(self, x: Tensor) -> Tensor:
        """The step function."""
        raise NotImplementedError(f"{type(self).__name__} has no hard form")

    def near_threshold(self, x: Tensor, tolerance: float) -> int:
        """How many elements of `x` lie within `tolerance` of a threshold, in the units the thresholds are defined in.

        For weights this counts those whose code a different summation order or a fused multiply-add could change.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot say where its thresholds are")


def set_soft(model: nn.Module, enabled: bool) -> int:
    """Switch every SoftQuantizer in `model` to its soft (or back to its hard) form in evaluation mode.

    Returns:
        How many quantizers were switched.
    """
    quantizers = [module for module in model.modules() if isinstance(module, SoftQuantizer)]
    for quantizer in quantizers:
        quantizer.soft_in_eval = enabled
    return len(quantizers)


def set_temperature(model: nn.Module, temperature: float) -> int:
    """Set the temperature of every SoftQuantizer in `model`; returns how many there are."""
    quantizers = [module for module in model.modules() if isinstance(module, SoftQuantizer)]
    for quantizer in quantizers:
        quantizer.temperature = temperature
    return len(quantizers)
