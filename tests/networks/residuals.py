"""Sums: residual blocks of every kind of shortcut."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from networks.parts import (
    POWERS,
    TERNARY,
    Lambda,
    batch_norm,
    conv,
    float_conv,
    float_linear,
    linear,
    quantizer,
    stem,
    unsigned,
)
from networks.table import case


def residual(rng: np.random.Generator, *, shortcut: nn.Module) -> nn.Module:
    """A stem left as float stream, then one block whose shortcut is given, then a quantizer and a layer."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.s(x)  # type: ignore[operator]
        return m.last(m.q2(F.relu(m.bn(m.c(m.q(x))) + m.short(x))))  # type: ignore[operator]

    return Lambda(
        forward,
        s=nn.Sequential(conv(rng, 3, 6, padding=1, scale=0.125), batch_norm(rng, 6)),
        q=quantizer(TERNARY, 0.7),
        c=conv(rng, 6, 6, padding=1, scale=0.3),
        bn=batch_norm(rng, 6),
        short=shortcut,
        q2=unsigned(2, 0.4),
        last=conv(rng, 6, 4, POWERS),
    )


case("residual-float-stream")(lambda rng: residual(rng, shortcut=nn.Identity()))


case("residual-quantized-shortcut")(lambda rng: residual(rng, shortcut=unsigned(2, 0.3)))


case("residual-relu-shortcut")(lambda rng: residual(rng, shortcut=nn.Sequential(nn.ReLU(), nn.ReLU6())))


case("residual-conv-shortcut", float_layers=1)(
    lambda rng: residual(rng, shortcut=nn.Sequential(unsigned(2, 0.3), float_conv(rng, 6, 6, 1)))
)


case("residual-steep-prelu-shortcut")(lambda rng: residual(rng, shortcut=nn.LeakyReLU(3.0)))


case("residual-flat-prelu-shortcut")(
    lambda rng: residual(rng, shortcut=Lambda(lambda m, x: m.p(x * 1000 - 1500), p=nn.LeakyReLU(2.0**-12)))
)


case("residual-prelu-shortcut")(lambda rng: residual(rng, shortcut=nn.LeakyReLU(0.1)))


@case("residual-chain", float_layers=2)
def _(rng: np.random.Generator) -> nn.Module:
    """Three blocks on one stream, pre-activation, float first and last layer."""
    blocks = [
        nn.Sequential(batch_norm(rng, 6), unsigned(2, 0.4), conv(rng, 6, 6, padding=1, scale=0.2)) for _ in range(3)
    ]

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.first(x)  # type: ignore[operator]
        for block in (m.b0, m.b1, m.b2):
            x = x + block(x)  # type: ignore[operator]
        return m.fc(torch.flatten(F.adaptive_avg_pool2d(F.relu(m.bn(x)), 1), 1))  # type: ignore[operator]

    return Lambda(
        forward, first=float_conv(rng, 3, 6, padding=1), b0=blocks[0], b1=blocks[1], b2=blocks[2],
        bn=batch_norm(rng, 6), fc=float_linear(rng, 6, 10),
    )  # fmt: skip


def option_a(rng: np.random.Generator, stem: nn.Module, quantizer: nn.Module) -> nn.Module:
    """Strided block whose shortcut drops pixels and pads channels."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.s(x)  # type: ignore[operator]
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return m.last(m.q2(F.relu(m.bn(m.c(m.q(x))) + shortcut)))  # type: ignore[operator]

    return Lambda(
        forward, s=stem, q=quantizer, c=conv(rng, 4, 8, stride=2, padding=1), bn=batch_norm(rng, 8),
        q2=unsigned(2, 0.4), last=conv(rng, 8, 4),
    )  # fmt: skip


case("option-a-codes")(lambda rng: option_a(rng, stem(rng, 4), nn.Identity()))


case("option-a-stream", float_layers=1)(
    lambda rng: option_a(
        rng, nn.Sequential(float_conv(rng, 3, 4, padding=1), batch_norm(rng, 4), nn.ReLU()), unsigned(2, 0.2)
    )
)


@case("inverted-residual")
def _(rng: np.random.Generator) -> nn.Module:
    """MobileNet-V2's block: pointwise, depthwise and linear pointwise convolution, ReLU6, sum, dropout at the end."""
    body = nn.Sequential(
        unsigned(2, 0.5), conv(rng, 4, 12, POWERS, 1), batch_norm(rng, 12, "positive"), nn.ReLU6(), unsigned(2, 1.5),
        conv(rng, 12, 12, groups=12, padding=1), batch_norm(rng, 12, "positive"), nn.ReLU6(), unsigned(2, 1.5),
        conv(rng, 12, 4, kernel=1), batch_norm(rng, 4, "positive"),
    )  # fmt: skip
    return Lambda(
        lambda m, x: m.fc(m.drop(m.q((x := m.s(x)) + m.body(x)).mean([2, 3]))), body=body, drop=nn.Dropout(0.2),
        s=nn.Sequential(conv(rng, 3, 4, padding=1, scale=0.125), batch_norm(rng, 4)), q=unsigned(3, 0.5),
        fc=linear(rng, 4, 6),
    )  # fmt: skip
