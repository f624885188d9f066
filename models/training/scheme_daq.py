"""Distance-aware Quantization (Kim, Lee, Ham, ICCV 2021): the recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qexport.errors import DataError
from qexport.models.quantizers import DAQActivationQuantizer, QuantConv2d, QuantLinear
from qexport.models.quantizers.daq import GAMMA
from qexport.models.training.scheme import Phase, share_epochs

FLOAT_SHARE = 0.3
"""Part of the epochs that trains the float network."""

UPPER_BOUND_STDS = 3.0
"""An activation's upper bound starts at so many standard deviations; behind a ReLU, of the Gaussian that its half would
come from."""


class DAQScheme:
    """Train a float network, then quantize weights and activations together; the temperature adapts by itself.

    Args:
        weight_bits: 1..8, or None for float weights.
        act_bits: 1..8, or None for float activations.
    """

    family = "daq"
    quantizer_rate = 0.1

    def __init__(self, weight_bits: int | None, act_bits: int | None) -> None:
        self.arguments: Mapping[str, Any] = {"weight_bits": weight_bits, "act_bits": act_bits}

    def phases(self, epochs: int) -> list[Phase]:
        n_float, n_quantized = share_epochs(epochs, (FLOAT_SHARE, 1 - FLOAT_SHARE))
        no_quantizers = dict.fromkeys(self.arguments)
        return [
            Phase("float", no_quantizers, n_float, lambda epoch: GAMMA),
            Phase("quantized", self.arguments, n_quantized, lambda epoch: GAMMA),
        ]

    def initialise(self, model: nn.Module, fresh: frozenset[str], images: Tensor) -> None:
        """Upper bounds from the activations, output scales so that the layer's mean magnitude stays that of floats.

        The weights' bounds keep their +-3 standard deviations. All from one pass in which nothing is quantized yet, as
        in the public code.
        """
        layers = [
            module
            for name, module in model.named_modules()
            if isinstance(module, QuantConv2d | QuantLinear) and f"{name}.output_scale" in fresh
        ]
        hooks = [layer.register_forward_hook(_initialise_and_pass) for layer in layers]
        with torch.no_grad():
            model(images)
        for hook in hooks:
            hook.remove()


def _initialise_and_pass(layer: QuantConv2d | QuantLinear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook: initialise the layer's quantizers and hand on what the layer gives without them.

    Raises:
        DataError: the layer reads or gives nothing but one value.
    """
    x, unquantized = inputs[0], layer.unquantized(inputs[0])
    quantizer = layer.input_quantizer
    if isinstance(quantizer, DAQActivationQuantizer):
        spread = x.std() if quantizer.signed else x.std() / math.sqrt(1 - 2 / math.pi)  # std of a half-normal variable
        quantizer.upper.fill_(_usable(UPPER_BOUND_STDS * spread))
    if layer.output_scale is not None:
        layer.output_scale.fill_(1.0)
        layer.output_scale.fill_(_usable(unquantized.abs().mean() / layer.forward(x).abs().mean()))
    return unquantized


def _usable(value: Tensor) -> Tensor:
    if not torch.isfinite(value) or value <= 0:
        raise DataError(
            "a quantizer cannot be initialised from these samples",
            got=f"a scale of {float(value)}",
            expected="activations that are finite and not all equal",
        )
    return value
