"""Maxima and means, before and behind the quantizer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from networks.parts import TERNARY, Lambda, batch_norm, conv, float_conv, float_linear, quantizer, stem, unsigned
from networks.table import case

for _kind, _pool in (("max", nn.MaxPool2d(2)), ("max-padded", nn.MaxPool2d(3, 2, 1)), ("avg", nn.AvgPool2d(2)),
                     ("avg-padded", nn.AvgPool2d(3, 2, 1))):  # fmt: skip

    @case(f"pool-{_kind}-before", exact=_kind != "avg-padded")
    def _(rng: np.random.Generator, pool: nn.Module = _pool) -> nn.Module:
        return nn.Sequential(
            stem(rng), conv(rng, 6, 6, padding=1), batch_norm(rng, 6), pool, unsigned(2), conv(rng, 6, 4, padding=1)
        )

    @case(f"pool-{_kind}-after", exact=True)
    def _(rng: np.random.Generator, pool: nn.Module = _pool) -> nn.Module:
        act = quantizer(TERNARY, 0.5)
        return nn.Sequential(
            stem(rng),
            conv(rng, 6, 6, padding=1),
            batch_norm(rng, 6),
            act,
            pool,
            conv(rng, 6, 4, padding=1),
            unsigned(2),
        )


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max-dilated": lambda x: F.max_pool2d(x, 3, 1, 1, dilation=2),
    "max-ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max-ceil-padded-dilated": lambda x: F.max_pool2d(x, (2, 3), (3, 2), (1, 1), (1, 2), ceil_mode=True),
    "max-adaptive": lambda x: F.adaptive_max_pool2d(x, 2),
    "avg-ceil": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "avg-ceil-padded": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg-inside": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg-inside-ceil": lambda x: F.avg_pool2d(x, (5, 3), (3, 2), (2, 1), ceil_mode=True, count_include_pad=False),
    "avg-adaptive": lambda x: F.adaptive_avg_pool2d(x, (2, 4)),
}


WITH_FACTORS = ("avg-ceil", "avg-ceil-padded", "avg-inside", "avg-inside-ceil")


for _kind, _function in POOLS.items():
    _needs = ("dilation",) * ("dilated" in _kind) + ("factors",) * (_kind in WITH_FACTORS)

    @case(f"pool-{_kind}-before", exact=_kind != "avg-ceil-padded", needs=_needs)
    def _(rng: np.random.Generator, function: Callable[[Tensor], Tensor] = _function) -> nn.Module:
        """Behind a batch norm: the bias must not be averaged with padding that counts."""
        return Lambda(
            lambda m, x: m.last(m.q(function(m.bn(m.c(m.s(x)))))), s=stem(rng), c=conv(rng, 6, 6, padding=1),
            bn=batch_norm(rng, 6), q=unsigned(2), last=conv(rng, 6, 4, padding=1),
        )  # fmt: skip

    @case(f"pool-{_kind}-after", exact=True, needs=_needs)
    def _(rng: np.random.Generator, function: Callable[[Tensor], Tensor] = _function) -> nn.Module:
        return Lambda(
            lambda m, x: m.q2(m.last(function(m.q(m.bn(m.c(m.s(x))))))), s=stem(rng), c=conv(rng, 6, 6, padding=1),
            bn=batch_norm(rng, 6), q=quantizer(TERNARY, 0.5), last=conv(rng, 6, 4, padding=1), q2=unsigned(2),
        )  # fmt: skip


@case("pool-max-two-readers", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    """Two quantizers read the pool, so it stays in front of them."""

    def forward(m: Lambda, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(m.bn(m.c(m.s(x))), 2)
        return torch.cat((m.left(m.q(pooled)), m.right(m.r(pooled))), 1)

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 6, padding=1), bn=batch_norm(rng, 6), q=unsigned(2),
        r=quantizer(TERNARY, 0.5), left=conv(rng, 6, 4, padding=1), right=conv(rng, 6, 3, padding=1),
    )  # fmt: skip


@case("pool-avg-inside-float", float_layers=1, needs=("factors",))
def _(rng: np.random.Generator) -> nn.Module:
    """A float layer reads the mean's integers in units of scale / L."""
    return Lambda(
        lambda m, x: m.f(F.avg_pool2d(m.s(x), 3, 2, 1, count_include_pad=False)), s=stem(rng), f=float_conv(rng, 6, 4)
    )


@case("pool-max-prelu", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    """Negative gains, then a PReLU, then the maximum: exact only if the falling channels are turned round."""
    return nn.Sequential(
        stem(rng), conv(rng, 6, 6), batch_norm(rng, 6), nn.LeakyReLU(0.125), nn.MaxPool2d(2), unsigned(2)
    )


@case("pool-avg-prelu")
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(stem(rng), conv(rng, 6, 6), batch_norm(rng, 6), nn.PReLU(6), nn.AvgPool2d(2), unsigned(2))


@case("pool-avg-relu")
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(stem(rng), conv(rng, 6, 6), batch_norm(rng, 6), nn.ReLU(), nn.AvgPool2d(2), unsigned(2))


@case("global-average", float_layers=1)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.fc(m.q(m.c(m.s(x))).mean([2, 3])), s=stem(rng), c=conv(rng, 6, 8), q=unsigned(3),
        fc=float_linear(rng, 8, 10),
    )  # fmt: skip
