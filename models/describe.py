"""What a network costs: parameters, multiply-accumulates, outputs; found without allocating its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qexport.models.registry import Preprocessing, architecture, build


@dataclass(frozen=True)
class Description:
    """One architecture with its default arguments, or those given.

    Attributes:
        name: as in the registry.
        preprocessing: input size and normalisation.
        parameters: of the float network, quantizers left out.
        macs: multiply-accumulates of convolutions and linear layers for one image.
        outputs: per-sample shape of every output.
    """

    name: str
    preprocessing: Preprocessing
    parameters: int
    macs: int
    outputs: tuple[tuple[int, ...], ...]


def describe(name: str, input_shape: tuple[int, int, int] | None = None, **arguments: Any) -> Description:
    """Parameters, multiply-accumulates and outputs of an architecture.

    Args:
        name: one of `architectures()`.
        input_shape: (C, H, W) instead of the default one.
        arguments: of the architecture.

    Raises:
        OptionError: unknown name or arguments.
    """
    data = architecture(name).preprocessing
    shape = input_shape or data.input_shape
    counted: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        counted.append(output[0].numel() * layer.weight[0].numel())

    with torch.device("meta"):
        model = build(name, **arguments).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        found = model(torch.empty(1, *shape))
    outputs = found if isinstance(found, tuple | list) else (found,)
    return Description(
        name=name,
        preprocessing=Preprocessing(shape, data.mean, data.std),
        parameters=sum(p.numel() for p in model.parameters()),
        macs=sum(counted),
        outputs=tuple(tuple(int(n) for n in output.shape[1:]) for output in outputs),
    )
