"""Convolution and linear layers whose weight, and possibly input, passes through a quantizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class QuantConv2d(nn.Conv2d):
    """y = |output_scale| * (conv(input_quantizer(x), weight_quantizer(weight)) + bias).

    The weight quantizer is called with the Parameter itself; freezing recognises weight quantizers by that. Both
    quantizers are submodules, so freezing replaces them; None leaves the operand float.

    Args:
        input_quantizer: applied to the input, or None.
        weight_quantizer: applied to the weight, or None.
        output_scale: whether a learned scalar (parameter `output_scale`, shape []) multiplies the result, as DAQ does.
        Other arguments: those of nn.Conv2d, zero padding only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        input_quantizer: nn.Module | None = None,
        weight_quantizer: nn.Module | None = None,
        output_scale: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.input_quantizer = input_quantizer
        self.weight_quantizer = weight_quantizer
        self.output_scale = nn.Parameter(torch.ones(())) if output_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] float32 -> [N, C_out, H', W'] float32."""
        x = x if self.input_quantizer is None else self.input_quantizer(x)
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        y = self._conv_forward(x, weight, self.bias)
        return y if self.output_scale is None else torch.abs(self.output_scale) * y

    def unquantized(self, x: Tensor) -> Tensor:
        """What a float layer of these weights gives: no quantizer, no output scale."""
        return self._conv_forward(x, self.weight, self.bias)


class QuantLinear(nn.Linear):
    """y = |output_scale| * (linear(input_quantizer(x), weight_quantizer(weight)) + bias); see QuantConv2d.

    Args:
        input_quantizer: applied to the input, or None.
        weight_quantizer: applied to the weight, or None.
        output_scale: whether a learned scalar multiplies the result.
        Other arguments: those of nn.Linear.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        input_quantizer: nn.Module | None = None,
        weight_quantizer: nn.Module | None = None,
        output_scale: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.input_quantizer = input_quantizer
        self.weight_quantizer = weight_quantizer
        self.output_scale = nn.Parameter(torch.ones(())) if output_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] float32 -> [N, out_features] float32."""
        x = x if self.input_quantizer is None else self.input_quantizer(x)
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        y = functional.linear(x, weight, self.bias)
        return y if self.output_scale is None else torch.abs(self.output_scale) * y

    def unquantized(self, x: Tensor) -> Tensor:
        """What a float layer of these weights gives: no quantizer, no output scale."""
        return functional.linear(x, self.weight, self.bias)


class QuantReLU(nn.ReLU):
    """ReLU, or ReLU6, with the activation quantizer that follows it: one module, so that numbered layers keep their
    numbers.

    Args:
        quantizer: applied to the result, or None.
        limit: the largest value, None for a plain ReLU.
    """

    def __init__(self, quantizer: nn.Module | None = None, *, limit: float | None = None) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x) if self.limit is None else functional.hardtanh(x, 0.0, self.limit)
        return x if self.quantizer is None else self.quantizer(x)


class QuantMaxPool2d(nn.MaxPool2d):
    """Maximum pooling with the activation quantizer that follows it.

    Args:
        quantizer: applied to the result, or None.
        Other arguments: those of nn.MaxPool2d.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        *,
        ceil_mode: bool = False,
        quantizer: nn.Module | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.quantizer is None else self.quantizer(x)
