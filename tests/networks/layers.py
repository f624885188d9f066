"""Strides, padding, dilation, groups and linear layers."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import nn

from networks.parts import (
    BINARY,
    POWERS,
    TERNARY,
    Lambda,
    batch_norm,
    conv,
    float_conv,
    linear,
    quantizer,
    stem,
    unsigned,
)
from networks.table import case

for _stride, _padding, _dilation, _groups, _kernel in (
    (2, 1, 1, 1, 3),
    (1, 0, 1, 1, 3),
    (2, 0, 1, 2, 3),
    (1, 2, 2, 3, 3),
    (1, 1, 1, 6, 3),
    (2, 2, 1, 6, 5),
    (2, 0, 1, 1, 1),
):

    @case(f"conv-s{_stride}p{_padding}d{_dilation}g{_groups}k{_kernel}", exact=True)
    def _(
        rng: np.random.Generator,
        s: int = _stride,
        p: int = _padding,
        d: int = _dilation,
        g: int = _groups,
        k: int = _kernel,
    ) -> nn.Module:
        return nn.Sequential(
            stem(rng),
            conv(rng, 6, 6, POWERS, k, stride=s, padding=p, dilation=d, groups=g, per_channel=True),
            batch_norm(rng, 6),
            unsigned(2),
        )


@case("conv-same-even-kernel", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(stem(rng), conv(rng, 6, 4, TERNARY, 4, padding="same", dilation=1), unsigned(2))


@case("pad-asymmetric", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(m.c(F.pad(m.s(x), (0, 1, 2, 1)))), s=stem(rng), c=conv(rng, 6, 4, stride=2), q=unsigned(3)
    )


@case("pad-image-asymmetric", float_layers=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.t(m.q(m.c(F.pad(x, (0, 1, 0, 1))))),
        c=float_conv(rng, 3, 6, stride=2),
        q=unsigned(2),
        t=conv(rng, 6, 4),
    )


@case("linear-stack", shape=(12,), exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        linear(rng, 12, 16), quantizer(TERNARY, 9.0), linear(rng, 16, 16, POWERS), nn.ReLU(), unsigned(4, 0.3),
        linear(rng, 16, 8, BINARY),
    )  # fmt: skip


@case("flatten-linear", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        stem(rng, 4), nn.MaxPool2d(2), nn.Flatten(), linear(rng, 64, 10), unsigned(2), linear(rng, 10, 6)
    )


@case("shared-module", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(lambda m, x: m.q(m.c(m.q(m.c(m.s(x))))), s=stem(rng), c=conv(rng, 6, 6, padding=1), q=unsigned(2))
