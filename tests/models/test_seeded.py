"""Seeded networks are reproducible, and their quantizers and batch norms fit what arrives at them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.quantizers import DAQActivationQuantizer, QNQuantizer
from qexport.models.registry import architecture, architectures
from qexport.models.seeded import random_images, seeded

NAMES = ["alexnet", "mobilenet_v2", "resnet18", "ssd_small"]


def make(name: str, pair: str, seed: int = 0) -> nn.Module:
    chosen, small = PAIRS[pair], SMALL_INPUTS[name]
    arguments = {**small.arguments, **chosen.arguments}
    return seeded(f"{chosen.scheme}-{name}", input_shape=small.input_shape, seed=seed, **arguments)


def test_same_seed_same_bytes() -> None:
    before = torch.random.get_rng_state()
    first, again, other = make("ssd_small", "qn-w2a2"), make("ssd_small", "qn-w2a2"), make("ssd_small", "qn-w2a2", 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.conv1.weight, other.conv1.weight)  # type: ignore[arg-type]
    assert not first.training


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pair", ["qn-w2a2", "daq-w2a2", "qn-w1a1"])
def test_codes_occur(name: str, pair: str) -> None:
    """Every activation quantizer gives two values or more, all together three quarters of what they can."""
    model = make(name, pair)
    codes: list[tuple[int, int]] = []

    def count(quantizer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        possible = quantizer.n_steps + 1 if isinstance(quantizer, DAQActivationQuantizer) else len(quantizer.levels)
        codes.append((output.unique().numel(), possible))

    for module_name, module in model.named_modules():
        if isinstance(module, DAQActivationQuantizer | QNQuantizer) and "weight" not in module_name:
            module.register_forward_hook(count)
    data = architecture(f"{PAIRS[pair].scheme}-{name}").preprocessing
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (data.mean, data.std))
    torch.manual_seed(1)
    with torch.no_grad():
        outputs = model((random_images(SMALL_INPUTS[name].input_shape, 4).float() / 255 - mean) / std)
    assert codes and all(found >= 2 for found, _ in codes)
    assert sum(found for found, _ in codes) >= 0.75 * sum(possible for _, possible in codes)
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        assert torch.isfinite(output).all() and output.std(0).max() > 0


def test_small_inputs_cover_the_registry() -> None:
    """Every architecture has its row; those that stand for a family with any blocks, and the demo's, have none."""
    names = {name.split("-", 1)[1] for name in architectures()}
    assert names == set(SMALL_INPUTS) | {"resnet", "digits"}
    assert all(f"{pair.scheme}-resnet18" in architectures() for pair in PAIRS.values())
