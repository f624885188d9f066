"""Distance-aware Quantization (Kim, Lee, Ham, ICCV 2021): soft rounding whose temperature follows its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qexport.errors import OptionError
from qexport.models.quantizers.base import SoftQuantizer

GAMMA = 2.0
"""Numerator of the adaptive temperature; the value of the soft form does not depend on it, its gradient does."""

KERNEL_WIDTH = 2.0
"""Width sigma of the Gaussian kernel round the nearest integer."""

MAX_BITS = 8


class DAQWeightQuantizer(SoftQuantizer):
    """Standardise over the whole tensor, clip to [lower, upper], round to R = 2^bits - 1 steps.

    The values are (2q - R) / R for q = 0..R: -1 and 1 for one bit. The convolution multiplies by |beta| afterwards.

    Args:
        bits: 1..8.

    Raises:
        OptionError: `bits` is out of range.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.n_steps = n_steps_of(bits)
        self.temperature = GAMMA
        self.lower = nn.Parameter(torch.tensor(-3.0))
        self.upper = nn.Parameter(torch.tensor(3.0))

    def position(self, weight: Tensor) -> Tensor:
        """Where each weight lies between the integers 0..R: v = (clip(w_n) - l) / ((u - l) / R).

        The mean is summed in float64. In float32 its last bit depends on the memory layout, the thread count and the
        vector width, and a normalised weight may lie within that bit of a threshold: in the public W1A1 file
        channels-last summation flips 2 of 267,264 weights, which costs 3 points of accuracy. Summed in float64 and
        rounded once, the mean is the same everywhere, and on both public files every code equals the one that the
        original float32 arithmetic gives. (std already accumulates in float64.)
        """
        mean = weight.double().mean().to(weight.dtype)
        std = weight.contiguous().std()
        normalised = (weight - mean) / std
        clipped = torch.minimum(torch.maximum(normalised, self.lower), self.upper)
        return (clipped - self.lower) / ((self.upper - self.lower) / self.n_steps)

    def soft(self, x: Tensor) -> Tensor:
        return (2.0 * soft_round(self.position(x), self.temperature) - self.n_steps) / self.n_steps

    def hard(self, x: Tensor) -> Tensor:
        return (2.0 * hard_round(self.position(x)) - self.n_steps) / self.n_steps

    def near_threshold(self, x: Tensor, tolerance: float) -> int:
        """Counted on the standardised weight, in units of its standard deviation and in float64 throughout."""
        exact = x.detach().double()
        lower = float(self.lower.detach())
        return _near_middle(
            (exact - exact.mean()) / exact.std(), lower, float(self.upper.detach()), self.n_steps, tolerance
        )

    def extra_repr(self) -> str:
        return f"n_steps={self.n_steps}"


class DAQActivationQuantizer(SoftQuantizer):
    """Clip to [0, upper], round to R = 2^bits - 1 steps; the values are q / R for q = 0..R.

    Signed: clip to [-upper, upper], values (2q - R) / R, for the inputs of layers behind no ReLU (the linear
    bottlenecks of MobileNet-V2, which a quantizer from 0 on would cut in half). The paper has no such layers.

    Args:
        bits: 1..8.
        signed: whether values below 0 are kept.

    Raises:
        OptionError: `bits` is out of range.
    """

    def __init__(self, bits: int, *, signed: bool = False) -> None:
        super().__init__()
        self.n_steps = n_steps_of(bits)
        self.signed = signed
        self.temperature = GAMMA
        self.upper = nn.Parameter(torch.tensor(3.0))

    def position(self, x: Tensor) -> Tensor:
        """Where each activation lies between the integers 0..R."""
        if self.signed:
            clipped = torch.minimum(torch.maximum(x, -self.upper), self.upper)
            return (clipped + self.upper) / (2.0 * self.upper / self.n_steps)
        return torch.minimum(torch.relu(x), self.upper) / (self.upper / self.n_steps)

    def soft(self, x: Tensor) -> Tensor:
        return self._value(soft_round(self.position(x), self.temperature))

    def hard(self, x: Tensor) -> Tensor:
        return self._value(hard_round(self.position(x)))

    def near_threshold(self, x: Tensor, tolerance: float) -> int:
        """Counted in the units of `x`."""
        upper = float(self.upper.detach())
        return _near_middle(x.detach().double(), -upper if self.signed else 0.0, upper, self.n_steps, tolerance)

    def _value(self, q: Tensor) -> Tensor:
        return (2.0 * q - self.n_steps) / self.n_steps if self.signed else q / self.n_steps

    def extra_repr(self) -> str:
        return f"n_steps={self.n_steps}" + (", signed" if self.signed else "")


def _near_middle(x: Tensor, lower: float, upper: float, n_steps: int, tolerance: float) -> int:
    """How many elements lie within `tolerance` of lower + (c + 1/2) * step, for a code c below R."""
    step = (upper - lower) / n_steps
    nearest = torch.clamp(torch.floor((x - lower) / step), 0, n_steps - 1)
    return int(((x - lower - (nearest + 0.5) * step).abs() <= tolerance).sum())


def n_steps_of(bits: int) -> int:
    """R = 2^bits - 1.

    Raises:
        OptionError: `bits` is no integer of 1..8.
    """
    if not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise OptionError("bit width out of range", got=bits, expected=f"1 to {MAX_BITS}")
    return (1 << bits) - 1


def hard_round(v: Tensor) -> Tensor:
    """floor(v) + round_half_even(v - floor(v)): the fraction is 0.5 at a tie and goes down to 0, whatever floor(v) is.

    torch.round(v) would send 1.5 up; and where v - floor(v) rounds, only this order of operations gives the
    original's code.
    """
    base = torch.floor(v)
    return base + torch.round(v - base)


def soft_round(v: Tensor, gamma: float) -> Tensor:
    """Distance-aware soft rounding with the adaptive temperature (sections 3.2 and 3.3 of the paper).

    The two integers round v get the scores exp(-distance) times a Gaussian kernel centred on the nearer one. Their
    soft argmax has the temperature gamma / |score difference|, a constant for the gradient. Its argument is then
    +-gamma exactly, so the soft argmax can only be sigmoid(+-gamma), which a fixed affine map takes to 0 and 1:
    in real arithmetic the result *is* the rounded value, and only its gradient is soft.

    Args:
        v: float32, any shape, >= 0.
        gamma: > 0.
    """
    base = torch.floor(v).detach()
    fraction = v - base
    nearer_is_upper = (fraction > 0.5).to(v.dtype).detach()
    far = math.exp(-1.0 / KERNEL_WIDTH**2)
    kernel_lower = 1.0 - (1.0 - far) * nearer_is_upper
    kernel_upper = far + (1.0 - far) * nearer_is_upper
    difference = torch.exp(fraction - 1.0) * kernel_upper - torch.exp(-fraction) * kernel_lower
    # |difference| >= exp(-1/2) * (1 - far) > 0: no division by zero, not even at a tie.
    weight_of_upper = torch.sigmoid(gamma / difference.detach().abs() * difference)
    return base + 0.5 + (weight_of_upper - 0.5) / math.tanh(gamma / 2)
