"""Concatenation, splitting, transposition, and the heads of detectors."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from networks.parts import POWERS, TERNARY, Lambda, batch_norm, conv, float_conv, quantizer, stem, unsigned
from networks.table import case


def _head(x: Tensor, values: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


@case("detector-heads", float_layers=4, needs=("transpose",))
def _(rng: np.random.Generator) -> nn.Module:
    """Two feature maps with float heads of per-channel scales, joined along the anchors; boxes and classes."""

    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        a = m.q(m.c(m.s(x)))  # type: ignore[operator]
        b = m.q2(m.c2(a))  # type: ignore[operator]
        boxes = torch.cat([_head(m.box(a), 4), _head(m.box2(b), 4)], 1)  # type: ignore[operator]
        return boxes, torch.cat([_head(m.cls(a), 3), _head(m.cls2(b), 3)], 1)  # type: ignore[operator]

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 8, padding=1), q=unsigned(2), c2=conv(rng, 8, 8, stride=2),
        q2=unsigned(2), box=float_conv(rng, 8, 8, padding=1), box2=float_conv(rng, 8, 8), cls=float_conv(rng, 8, 6),
        cls2=float_conv(rng, 8, 6, padding=1),
    )  # fmt: skip


@case("detector-heads-five-axes", float_layers=1, needs=("transpose", "reshape"))
def _(rng: np.random.Generator) -> nn.Module:
    """The same rearrangement by a view with one axis for the anchors, on codes: nothing is rounded."""

    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.s(x)  # type: ignore[operator]
        n, _, rows, cols = x.shape
        codes = x.view(n, 2, 3, rows, cols).permute(0, 3, 4, 1, 2).reshape(n, -1, 3)
        return codes, m.box(x).view(n, 2, 4, rows, cols).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)  # type: ignore[operator]

    return Lambda(forward, s=stem(rng), box=float_conv(rng, 6, 8, padding=1))


@case("transpose-before-quantizer", needs=("transpose",))
def _(rng: np.random.Generator) -> nn.Module:
    """Batch norm of different gains, channels turned into columns and back, then a quantizer."""
    return Lambda(
        lambda m, x: m.last(m.q(F.relu(m.bn(m.c(m.s(x))).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))), s=stem(rng),
        c=conv(rng, 6, 6), bn=batch_norm(rng, 6), q=unsigned(2), last=conv(rng, 6, 4),
    )  # fmt: skip


@case("transpose-rows-and-columns", exact=True, needs=("transpose",))
def _(rng: np.random.Generator) -> nn.Module:
    """Channels stay where they are, so affine and clip stay owed."""
    return Lambda(
        lambda m, x: m.q(m.bn2(F.relu(m.bn(m.c(m.s(x)))).transpose(2, 3))), s=stem(rng),
        c=conv(rng, 6, 6, padding=(0, 1)), bn=batch_norm(rng, 6), bn2=batch_norm(rng, 6), q=unsigned(2),
    )  # fmt: skip


@case("concat-rows", needs=("concat axis",))
def _(rng: np.random.Generator) -> nn.Module:
    """Different affines side by side in each channel: one step for both."""
    return Lambda(
        lambda m, x: m.q(torch.cat([m.a(m.s(x)), m.b(m.s(x))], 2)), s=stem(rng), q=unsigned(2, 0.7),
        a=nn.Sequential(conv(rng, 6, 4), batch_norm(rng, 4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS), batch_norm(rng, 4)),
    )  # fmt: skip


@case("concat-columns-of-codes", exact=True, needs=("concat axis",))
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(m.c(torch.cat([m.qa(m.a(m.s(x))), m.s(x)], -1))), s=stem(rng), q=unsigned(2),
        a=conv(rng, 6, 6, padding=1), qa=unsigned(2), c=conv(rng, 6, 4),
    )  # fmt: skip


@case("split-channels", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    """Chunks in another order, uneven parts, single channels."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.bn(m.c(m.s(x)))  # type: ignore[operator]
        first, second = x.chunk(2, 1)
        part, rest = second.split([1, 2], 1)
        one = x[:, 4].unsqueeze(1)
        return m.last(m.q(torch.cat([rest, first, one, part, x.unbind(1)[0].unsqueeze(1)], 1)))  # type: ignore[operator]

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 6), bn=batch_norm(rng, 6), q=unsigned(2), last=conv(rng, 8, 4, POWERS)
    )


def concat(rng: np.random.Generator, scales: tuple[float, float], tail: nn.Module) -> nn.Module:
    return Lambda(
        lambda m, x: m.tail(torch.cat([m.qa(m.a(m.s(x))), m.qb(m.b(m.s(x)))], 1)),
        s=stem(rng),
        a=nn.Sequential(conv(rng, 6, 4, padding=1), batch_norm(rng, 4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS, 1), batch_norm(rng, 4)),
        qa=unsigned(2, scales[0]),
        qb=quantizer(TERNARY, scales[1]),
        tail=tail,
    )


case("concat-equal-low-bit", exact=True)(
    lambda rng: concat(rng, (0.5, 0.5), nn.Sequential(conv(rng, 8, 4), unsigned(2)))
)


case("concat-unequal-low-bit")(lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(conv(rng, 8, 4), unsigned(2))))


case("concat-unequal-float", float_layers=1)(lambda rng: concat(rng, (0.5, 0.3), float_conv(rng, 8, 4, padding=1)))


case("concat-unequal-affine-float", float_layers=1)(
    lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(batch_norm(rng, 8, "positive"), float_conv(rng, 8, 4, padding=1)))
)


case("concat-relu-float", float_layers=1)(
    lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(nn.ReLU(), float_conv(rng, 8, 4, padding=1)))
)


case("concat-unequal-grouped")(
    lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(conv(rng, 8, 4, POWERS, groups=2), unsigned(2)))
)


@case("concat-unequal-shifted-low-bit")
def _(rng: np.random.Generator) -> nn.Module:
    """2 x + 0.25 on channels of two units in front of a padded low-bit layer: the border needs each channel's unit."""
    return concat(
        rng, (0.5, 0.3), Lambda(lambda m, x: m.q(m.c(x * 2 + 0.25)), c=conv(rng, 8, 4, padding=1), q=unsigned(2))
    )


@case("concat-before-quantizer", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(torch.cat([m.a(m.s(x)), m.b(m.s(x)), m.s(x)], 1)),
        s=stem(rng),
        a=nn.Sequential(conv(rng, 6, 4, padding=1), batch_norm(rng, 4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS, 1), batch_norm(rng, 4)),
        q=unsigned(2, 0.7),
    )


@case("concat-prelu")
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(torch.cat([m.a(m.s(x)), m.b(m.s(x))], 1)),
        s=stem(rng),
        a=nn.Sequential(conv(rng, 6, 4, padding=1), batch_norm(rng, 4), nn.PReLU(4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS, 1), batch_norm(rng, 4), nn.Hardtanh(-0.7, 0.9)),
        q=unsigned(2, 0.7),
    )
