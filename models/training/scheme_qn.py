"""Quantization Networks (Yang et al., CVPR 2019), section 3: the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qexport.models.quantizers import QNQuantizer, QuantConv2d, QuantLinear, initialise_from_samples
from qexport.models.training.scheme import Phase, share_epochs

MAX_TEMPERATURE = 2000.0
"""The public code's limit."""

PHASE_SHARES = {1: (1.0,), 2: (0.3, 0.7), 3: (0.2, 0.3, 0.5)}
"""How the epochs are divided, by number of phases."""


class QNScheme:
    """Train a float network, quantize its weights, then its activations too; in each phase T = k * epoch.

    The paper starts from a trained float network; here that is the first phase. Its middle step, activations with
    the weights fixed, is left out: the last one trains both anyway.

    Args:
        weight_levels: integer levels, or None for float weights.
        act_levels: integer levels from 0, or None for float activations.
        temperature_step: k.
    """

    family = "qn"
    quantizer_rate = 0.1

    def __init__(
        self, weight_levels: Sequence[int] | None, act_levels: Sequence[int] | None, temperature_step: float
    ) -> None:
        self.arguments: Mapping[str, Any] = {"weight_levels": weight_levels, "act_levels": act_levels}
        self.temperature_step = temperature_step

    def temperature(self, epoch: int) -> float:
        """T in epoch 1, 2, ... of a phase."""
        return min(self.temperature_step * epoch, MAX_TEMPERATURE)

    def phases(self, epochs: int) -> list[Phase]:
        arguments: dict[str, Any] = dict.fromkeys(self.arguments)
        networks = [("float", dict(arguments))]
        for name in ("weight_levels", "act_levels"):
            if self.arguments[name] is not None:
                arguments[name] = self.arguments[name]
                networks.append((f"+ {name.split('_')[0]}s", dict(arguments)))
        shares = share_epochs(epochs, PHASE_SHARES[len(networks)])
        return [Phase(name, args, n, self.temperature) for (name, args), n in zip(networks, shares, strict=True)]

    def initialise(self, model: nn.Module, fresh: frozenset[str], images: Tensor) -> None:
        """Section 3.4: weights from themselves, activations from one pass, in which they are not yet quantized."""
        quantizers = {n: m for n, m in model.named_modules() if isinstance(m, QNQuantizer) and f"{n}.alpha" in fresh}
        for layer in model.modules():
            if not isinstance(layer, QuantConv2d | QuantLinear):
                continue
            quantizer = layer.weight_quantizer
            if isinstance(quantizer, QNQuantizer) and quantizer in quantizers.values():
                initialise_from_samples(quantizer, layer.weight)
        hooks = [
            quantizer.register_forward_hook(_initialise_and_pass)
            for name, quantizer in quantizers.items()
            if not name.endswith("weight_quantizer")
        ]
        with torch.no_grad():
            model(images)
        for hook in hooks:
            hook.remove()


def _initialise_and_pass(quantizer: QNQuantizer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook: initialise the quantizer from its input and hand that on, so that those behind it see floats."""
    initialise_from_samples(quantizer, inputs[0])
    return inputs[0]
