"""Networks with seeded weights whose quantizers and batch norms fit their activations: to try conversions with.

Nothing is trained; but every layer's activations have the spread that training would leave, so that codes of every
value occur and thresholds lie where data are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.models.quantizers import (
    DAQActivationQuantizer,
    QNQuantizer,
    QuantConv2d,
    QuantLinear,
    SoftQuantizer,
    initialise_from_samples,
)
from qexport.models.registry import architecture, build

N_IMAGES = 4
SAMPLES = 50_000
"""Activations a quantizer is initialised from."""

UPPER_STDS = 2.5
"""An activation's upper bound, in root mean squares."""

COARSE_PIXELS = 8
"""Random images are smooth: noise of every COARSE_PIXELS-th pixel, with finer noise on top."""


def seeded(name: str, *, input_shape: tuple[int, int, int] | None = None, seed: int = 0, **arguments: Any) -> nn.Module:
    """A network of the registry with random weights; the same for the same seed.

    Args:
        name: one of `architectures()`.
        input_shape: (C, H, W) instead of the default one.
        seed: of weights and images.
        arguments: of the architecture.

    Returns:
        the network in evaluation mode.

    Raises:
        OptionError: unknown name or arguments.
    """
    data = architecture(name).preprocessing
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build(name, **arguments).eval()
        for module in model.modules():
            _draw(module)
        images = random_images(input_shape or data.input_shape, N_IMAGES).float() / 255
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (data.mean, data.std))
        x = (images - mean) / std
        with _batch_statistics(model):
            with _initialising(model):
                model(x)
            model(x)  # once more, now that codes and not floats arrive
    return model


def random_images(shape: tuple[int, int, int], count: int) -> Tensor:
    """Smooth noise, uint8 [count, *shape], from torch's generator."""
    channels, rows, cols = shape
    coarse = torch.rand(count, channels, -(-rows // COARSE_PIXELS) + 1, -(-cols // COARSE_PIXELS) + 1)
    smooth = functional.interpolate(coarse, size=(rows, cols), mode="bilinear", align_corners=True)
    return ((0.8 * smooth + 0.2 * torch.rand(count, *shape)) * 255).round().to(torch.uint8)


def _draw(module: nn.Module) -> None:
    """He initialisation, small biases, batch-norm gains round 1."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            module.bias.normal_(0, 0.1)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(0, 0.3)


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch and remember it; quantizers stay hard."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


@contextmanager
def _initialising(model: nn.Module) -> Iterator[None]:
    """Every quantizer is initialised from what it is given first, weights before the activations that follow."""
    hooks = []
    for module in model.modules():
        if isinstance(module, SoftQuantizer):
            hooks.append(module.register_forward_pre_hook(_initialise))
        elif isinstance(module, QuantConv2d | QuantLinear) and module.output_scale is not None:
            hooks.append(module.register_forward_hook(_fit_output_scale))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _initialise(quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (x,) = inputs
    if isinstance(quantizer, QNQuantizer):
        flat = x.flatten()
        chosen = flat if isinstance(x, nn.Parameter) else flat[torch.randint(flat.numel(), (SAMPLES,))]
        initialise_from_samples(quantizer, chosen)
    elif isinstance(quantizer, DAQActivationQuantizer):
        quantizer.upper.fill_(UPPER_STDS * float(x.square().mean().sqrt()))


def _fit_output_scale(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The learned scalar that gives a DAQ layer's result the spread of the float layer's."""
    assert isinstance(layer, QuantConv2d | QuantLinear) and layer.output_scale is not None
    (x,) = inputs
    factor = layer.unquantized(x).std() / output.std()
    layer.output_scale.mul_(factor)
    return output * factor
