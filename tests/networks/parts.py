"""What the networks are made of: layers with known integer levels, frozen quantizers, batch norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from qexport.freeze.step_op import FrozenActivation
from qexport.stepfunction import StepFunction

POWERS = (-4, -2, -1, 0, 1, 2, 4)


TERNARY = (-1, 0, 1)


BINARY = (-1, 1)


def signed_levels(bits: int) -> tuple[int, ...]:
    """-2^(b-1) .. 2^(b-1) - 1; the two signs for one bit."""
    return BINARY if bits == 1 else tuple(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))


def quantizer(
    levels: tuple[int, ...], scale: float = 0.5, spread: float | None = None, offset: float = 0.0
) -> nn.Module:
    """A frozen activation quantizer with thresholds half-way between its values, times `spread` where given."""
    values = np.array(levels, np.float64) * scale + offset
    thresholds = (values[1:] + values[:-1]) / 2 * (1.0 if spread is None else spread)
    function = StepFunction.from_values(thresholds.astype(np.float32), values.astype(np.float32))
    return FrozenActivation(function)


def unsigned(bits: int, scale: float = 0.5) -> nn.Module:
    return quantizer(tuple(range(2**bits)), scale)


def set_levels(
    layer: nn.Module, levels: tuple[int, ...], rng: np.random.Generator, scale: float = 0.25, per_channel: bool = False
) -> nn.Module:
    """Give a convolution or linear layer random integer levels times a scale (or one per output channel)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    drawn = rng.choice(np.array(levels), size=tuple(weight.shape))
    drawn.reshape(-1)[: len(levels)] = levels[: drawn.size]  # every level occurs
    if per_channel:
        drawn[:, 0].reshape(len(drawn), -1)[:, 0] = max(levels, key=abs)  # every channel has the common step
        scales = scale * 2.0 ** rng.integers(-2, 2, len(drawn)) * rng.choice([1.0, 1.25, 1.5], len(drawn))
    else:
        scales = np.full(len(drawn), scale)
    values = drawn * scales.reshape(-1, *(1,) * (drawn.ndim - 1))
    weight.data = torch.tensor(values, dtype=torch.float32)
    return layer


def conv(
    rng: np.random.Generator,
    inputs: int,
    outputs: int,
    levels: tuple[int, ...] = TERNARY,
    kernel: int = 3,
    *,
    scale: float = 0.25,
    per_channel: bool = False,
    bias: bool = False,
    **options: object,
) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, bias=bias, **options)  # type: ignore[arg-type]
    if bias:
        layer.bias.data = torch.tensor(rng.integers(-8, 9, outputs) / 8, dtype=torch.float32)  # type: ignore[union-attr]
    return set_levels(layer, levels, rng, scale, per_channel)


def float_conv(rng: np.random.Generator, inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]
    shape = tuple(layer.weight.shape)
    layer.weight.data = torch.tensor(rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape), dtype=torch.float32)
    if layer.bias is not None:
        layer.bias.data = torch.tensor(rng.normal(0, 0.2, outputs), dtype=torch.float32)
    return layer


def float_linear(rng: np.random.Generator, inputs: int, outputs: int) -> nn.Module:
    layer = nn.Linear(inputs, outputs)
    layer.weight.data = torch.tensor(rng.normal(0, 1 / np.sqrt(inputs), (outputs, inputs)), dtype=torch.float32)
    layer.bias.data = torch.tensor(rng.normal(0, 0.2, outputs), dtype=torch.float32)
    return layer


def linear(rng: np.random.Generator, inputs: int, outputs: int, levels: tuple[int, ...] = TERNARY) -> nn.Module:
    return set_levels(nn.Linear(inputs, outputs, bias=False), levels, rng)


def batch_norm(rng: np.random.Generator, channels: int, kind: str = "mixed", *, dyadic: bool = False) -> nn.BatchNorm2d:
    """Batch norm whose gains are "positive", or "mixed": negative, zero and 1e-7 among them.

    `dyadic`: variance 1, eps 0 and few-bit gains and means, so that thresholds meet reachable accumulators.
    """
    bn = nn.BatchNorm2d(channels, eps=0.0 if dyadic else 1e-5)
    if dyadic:
        gain = 2.0 ** rng.integers(-3, 1, channels)
        bias, mean, var = rng.integers(-4, 5, channels) / 4, rng.integers(-4, 5, channels) / 4, np.ones(channels)
    else:
        gain, bias = rng.uniform(0.2, 1.5, channels), rng.normal(0.3, 0.5, channels)
        mean, var = rng.normal(0, 0.5, channels), rng.uniform(0.3, 2.0, channels)
    if kind == "mixed":
        gain[0::3] *= -1
        gain[1] = 0.0
        if channels > 2 and not dyadic:
            gain[2] = 1e-7
    for tensor, value in ((bn.weight.data, gain), (bn.bias.data, bias), (bn.running_mean, mean), (bn.running_var, var)):
        assert tensor is not None
        tensor.copy_(torch.tensor(value))
    return bn


class Lambda(nn.Module):
    """A function of modules, as the forward of a user's network would have it."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def stem(rng: np.random.Generator, outputs: int = 6, act: nn.Module | None = None) -> nn.Sequential:
    """A low-bit first layer on the image, batch norm, quantizer: exact integers from the first pixel on."""
    first = conv(rng, 3, outputs, TERNARY, padding=1, scale=0.125)
    return nn.Sequential(first, batch_norm(rng, outputs, "positive"), act or unsigned(2))


def low_bit(rng: np.random.Generator, weights: tuple[int, ...], act: nn.Module, per_channel: bool) -> nn.Module:
    return nn.Sequential(
        stem(rng, 6, act),
        conv(rng, 6, 6, weights, padding=1, per_channel=per_channel),
        batch_norm(rng, 6),
        nn.ReLU(inplace=True),
        unsigned(2),
        conv(rng, 6, 5, weights, 1, per_channel=per_channel),
    )
