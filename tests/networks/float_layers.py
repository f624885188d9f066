"""Layers and activations that training left float, and several outputs."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from networks.parts import POWERS, Lambda, batch_norm, conv, float_conv, float_linear, stem, unsigned
from networks.table import case


@case("layers-without-quantizer", float_layers=1)
def _(rng: np.random.Generator) -> nn.Module:
    """Per-channel scales straight into the next layer: wide fixed point, not one product a channel."""
    return nn.Sequential(
        stem(rng), conv(rng, 6, 8, per_channel=True), conv(rng, 8, 12, POWERS, 1), nn.AvgPool2d(6), nn.Flatten(),
        float_linear(rng, 12, 10),
    )  # fmt: skip


def edges(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        float_conv(rng, 3, 6, padding=1, bias=False), batch_norm(rng, 6), unsigned(2, 0.4),
        conv(rng, 6, 8, padding=1, stride=2), batch_norm(rng, 8), nn.ReLU(), unsigned(2, 0.4),
        nn.AvgPool2d(4), nn.Flatten(), float_linear(rng, 8, 10),
    )  # fmt: skip


for _edge in (8, 16, None):
    case(
        f"edges-{_edge or 'max'}",
        edge_bits=_edge,
        float_layers=2,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )(edges)


@case("weight-only", calibrate=True, float_layers=2, mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.2))
def _(rng: np.random.Generator) -> nn.Module:
    """Float activations throughout: every layer gets a calibrated 8-bit quantizer."""
    return Lambda(
        lambda m, x: m.fc(m.body(m.first(x)).mean([2, 3])),
        first=nn.Sequential(float_conv(rng, 3, 6, padding=1), batch_norm(rng, 6), nn.ReLU()),
        body=nn.Sequential(
            conv(rng, 6, 6, padding=1),
            batch_norm(rng, 6),
            conv(rng, 6, 8, POWERS, groups=2),
            batch_norm(rng, 8),
            nn.ReLU6(),
        ),
        fc=float_linear(rng, 8, 10),
    )


@case("weight-only-uncalibrated", float_layers=2)
def _(rng: np.random.Generator) -> nn.Module:
    """The same without data: layers read 16-bit fixed point."""
    return Lambda(
        lambda m, x: m.fc(m.body(m.first(x)).mean([2, 3])),
        first=nn.Sequential(float_conv(rng, 3, 6, padding=1), batch_norm(rng, 6), nn.ReLU()),
        body=nn.Sequential(conv(rng, 6, 6, padding=1), batch_norm(rng, 6), nn.ReLU()),
        fc=float_linear(rng, 6, 10),
    )


@case("two-outputs", float_layers=2)
def _(rng: np.random.Generator) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = m.q(m.c(m.s(x)))  # type: ignore[operator]
        return m.box(features), m.fc(features.mean([2, 3])), features  # type: ignore[operator]

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 8), q=unsigned(2), box=float_conv(rng, 8, 4, 1), fc=float_linear(rng, 8, 3)
    )
