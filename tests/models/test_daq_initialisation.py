"""DAQ quantizers and output scales start from what their layers see, in linear layers too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.errors import DataError
from qexport.models.papers import SMALL_INPUTS
from qexport.models.quantizers import DAQActivationQuantizer, QuantConv2d, QuantLinear
from qexport.models.registry import build
from qexport.models.training import DAQScheme

torch.set_num_threads(1)

SMALL_ALEXNET = SMALL_INPUTS["alexnet"].arguments
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "daq-alexnet": (dict(SMALL_ALEXNET), (3, 64, 64)),
    "daq-vgg16": ({"num_classes": 3, "pooled": 1, "hidden": 16}, (3, 32, 32)),
    "daq-mobilenet_v2": ({"num_classes": 3, "width": 0.25}, (3, 64, 64)),
}


def initialised(name: str, images: Tensor, bits: int = 2) -> nn.Module:
    torch.manual_seed(0)
    model = build(name, **NETWORKS[name][0], weight_bits=bits, act_bits=bits).eval()
    for module in model.modules():  # torch's own initialisation lets a deep network without batch norm fade out
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    DAQScheme(bits, bits).initialise(model, frozenset(model.state_dict()), images)
    return model


def layers_of(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}


def scales_of(model: nn.Module) -> dict[str, float]:
    return {n: layer.output_scale.item() for n, layer in layers_of(model).items() if layer.output_scale is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_keeps_its_magnitude(name: str) -> None:
    """On the float network's values: the mean magnitude of each result, upper bounds of some standard deviations."""
    torch.manual_seed(1)
    images = torch.randn(4, *NETWORKS[name][1])
    model = initialised(name, images)
    layers = layers_of(model)
    assert {type(layer) for layer in layers.values()} == (
        {QuantConv2d} if "mobilenet" in name else {QuantConv2d, QuantLinear}
    )
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def look(name: str, layer: QuantConv2d | QuantLinear, x: Tensor) -> Tensor:
        plain = torch.nn.Conv2d.forward(layer, x) if isinstance(layer, nn.Conv2d) else nn.Linear.forward(layer, x)
        seen[name] = (x, layer.forward(x), plain)
        return plain

    for layer_name, layer in layers.items():
        layer.register_forward_hook(lambda m, inputs, _, name=layer_name: look(name, m, inputs[0]))
    with torch.no_grad():
        model(images)
    assert seen.keys() == layers.keys()
    for layer_name, (x, quantized, plain) in seen.items():
        torch.testing.assert_close(quantized.abs().mean(), plain.abs().mean(), rtol=1e-4, atol=0, msg=layer_name)
        quantizer = layers[layer_name].input_quantizer
        assert isinstance(quantizer, DAQActivationQuantizer)
        assert quantizer.signed == bool(x.min() < 0), layer_name
        assert 2.9 <= quantizer.upper.item() / x.std().item() <= 5.1, layer_name


def test_linear_layers_learn_with_the_others() -> None:
    """A few steps on a few images: the loss falls, and every scale stays a finite number away from zero."""
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 4
    model = initialised("daq-alexnet", images).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = scales_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses
    after = scales_of(model)
    assert all(0.5 < after[name] / before[name] < 2 for name in before), (before, after)
    assert all(after[name] != before[name] for name in before), "a scale that nothing moved"


def test_activations_without_spread_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be initialised from these samples"):
        initialised("daq-alexnet", torch.zeros(2, 3, 64, 64) + float("nan"))
