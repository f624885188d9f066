"""Where a scheme puts its quantizers: what an architecture asks for its inner layers and behind its activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from qexport.models.quantizers.daq import DAQActivationQuantizer, DAQWeightQuantizer
from qexport.models.quantizers.layers import QuantConv2d, QuantLinear
from qexport.models.quantizers.qn import QNQuantizer, checked_levels


class Placement(Protocol):
    """A scheme with its settings. Layers without quantizers are those of torch, with the same parameters."""

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        signed_input: bool = False,
        **settings: Any,
    ) -> nn.Module:
        """A convolution inside the network.

        Args:
            in_channels, out_channels, kernel_size, bias, settings: those of nn.Conv2d.
            signed_input: whether its input goes below zero.
        """
        ...

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """A fully connected layer inside the network."""
        ...

    def after_activation(self) -> nn.Module | None:
        """What follows a ReLU (and the pooling behind it), or None."""
        ...

    def after_sum(self) -> nn.Module | None:
        """What follows a layer or sum without a ReLU, whose values have both signs, or None."""
        ...


class QNPlacement:
    """Quantization Networks: weights of inner layers, and every activation behind its ReLU and pooling.

    So shortcuts carry quantized values. (Section 4.1 of the paper and its public code; first and last layer float.)

    Args:
        weight_levels: integer levels, or None for float weights.
        act_levels: integer levels from 0, or None for float activations.

    Raises:
        OptionError: levels that do not ascend.
    """

    def __init__(self, weight_levels: Sequence[int] | None, act_levels: Sequence[int] | None) -> None:
        self._weight = None if weight_levels is None else checked_levels(weight_levels)
        self._act = None if act_levels is None else checked_levels(act_levels)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        signed_input: bool = False,
        **settings: Any,
    ) -> nn.Module:
        if self._weight is None:
            return nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias, **settings)
        settings["weight_quantizer"] = QNQuantizer(self._weight)
        return QuantConv2d(in_channels, out_channels, kernel_size, bias=bias, **settings)

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        if self._weight is None:
            return nn.Linear(n_in, n_out)
        return QuantLinear(n_in, n_out, weight_quantizer=QNQuantizer(self._weight))

    def after_activation(self) -> nn.Module | None:
        return None if self._act is None else QNQuantizer(self._act)

    def after_sum(self) -> nn.Module | None:
        return None if self._act is None else QNQuantizer(both_signs(self._act))


def both_signs(levels: Sequence[int]) -> tuple[int, ...]:
    """As many consecutive levels round zero: -2..1 for four of them, -1 and 1 for two."""
    count = len(levels)
    return (-1, 1) if count == 2 else tuple(range(-(count // 2), count - count // 2))


class DAQPlacement:
    """DAQ: the input and the weight of every inner layer, whose result a learned scalar multiplies; real shortcuts.

    Args:
        weight_bits: 1..8, or None for float weights.
        act_bits: 1..8, or None for float activations.

    Raises:
        OptionError: bit widths out of range.
    """

    def __init__(self, weight_bits: int | None, act_bits: int | None) -> None:
        self._weight_bits, self._act_bits = weight_bits, act_bits

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        signed_input: bool = False,
        **settings: Any,
    ) -> nn.Module:
        if self._weight_bits is None and self._act_bits is None:
            return nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias, **settings)
        settings |= self._quantizers(signed_input)
        return QuantConv2d(in_channels, out_channels, kernel_size, bias=bias, **settings)

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        if self._weight_bits is None and self._act_bits is None:
            return nn.Linear(n_in, n_out)
        return QuantLinear(n_in, n_out, **self._quantizers(False))

    def _quantizers(self, signed: bool) -> dict[str, Any]:
        act, weight = self._act_bits, self._weight_bits
        return {
            "input_quantizer": None if act is None else DAQActivationQuantizer(act, signed=signed),
            "weight_quantizer": None if weight is None else DAQWeightQuantizer(weight),
            "output_scale": True,
        }

    def after_activation(self) -> nn.Module | None:
        return None

    def after_sum(self) -> nn.Module | None:
        return None
