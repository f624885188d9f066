"""Chains of activations between a layer and its quantizer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from networks.parts import TERNARY, Lambda, batch_norm, conv, float_linear, quantizer, signed_levels, stem, unsigned
from networks.table import case


@case("relu-behind-signed-quantizer", float_layers=1)
def _(rng: np.random.Generator) -> nn.Module:
    """Units survive a ReLU on codes, pooling included: the float layer reads exact integers."""
    return Lambda(
        lambda m, x: m.fc(F.avg_pool2d(F.relu(m.q(m.c(m.s(x)))), 6).flatten(1)), s=stem(rng), c=conv(rng, 6, 8),
        q=quantizer(signed_levels(3), 0.3), fc=float_linear(rng, 8, 10),
    )  # fmt: skip


@case("relu-behind-signed-quantizer-low-bit", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        stem(rng), conv(rng, 6, 6), quantizer(TERNARY, 0.3), nn.ReLU(), conv(rng, 6, 4), batch_norm(rng, 4), unsigned(2)
    )


for _name, _chain in {
    "relu": (nn.ReLU(),),
    "relu6": (nn.ReLU6(inplace=True),),
    "hardtanh": (nn.Hardtanh(-0.3, 0.8),),
    "leaky": (nn.LeakyReLU(0.01, inplace=True),),
}.items():

    @case(f"chain-{_name}", exact=True)
    def _(rng: np.random.Generator, chain: tuple[nn.Module, ...] = _chain) -> nn.Module:
        return nn.Sequential(
            stem(rng), conv(rng, 6, 6, bias=True), *chain, batch_norm(rng, 6), quantizer(signed_levels(2), 0.2)
        )


@case("chain-prelu", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    prelu = nn.PReLU(6)
    prelu.weight.data = torch.tensor([0.0, 0.25, 1.0, 2.5, 0.3, 1e-6])
    return nn.Sequential(
        stem(rng), conv(rng, 6, 6, bias=True), batch_norm(rng, 6), prelu, batch_norm(rng, 6), nn.ReLU6(), unsigned(2)
    )
