"""Bits of weights and activations, thresholds that are met exactly, zero that is no level."""

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
    low_bit,
    quantizer,
    signed_levels,
    stem,
    unsigned,
)
from networks.table import case


def _bit_cases() -> None:
    weights = {f"w{b}": signed_levels(b) for b in (1, 2, 3, 4, 8)} | {"wt": TERNARY, "w4pow": POWERS}
    for i, (wname, levels) in enumerate(weights.items()):
        for per_channel in (False, True):
            bits = (1, 2, 3, 4, 2, 1, 4)[i]

            def build(
                rng: np.random.Generator, levels: tuple[int, ...] = levels, pc: bool = per_channel, bits: int = bits
            ) -> nn.Module:
                return low_bit(rng, levels, unsigned(bits), pc)

            case(f"{wname}-a{bits}-{'channel' if per_channel else 'tensor'}", exact=True)(build)
    case("w2-a8", exact=False)(lambda rng: low_bit(rng, signed_levels(2), unsigned(8, 1 / 64), False))
    case("w8-a8", exact=False)(lambda rng: low_bit(rng, signed_levels(8), unsigned(8, 0.0123), True))
    case("w2-a4-nonuniform", exact=True)(
        lambda rng: low_bit(rng, signed_levels(2), quantizer((0, 1, 2, 4, 8), 0.25, 1.3), False)
    )


_bit_cases()


@case("ties", exact=True, ties=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        conv(rng, 3, 6, TERNARY, padding=1, scale=0.125),
        batch_norm(rng, 6, dyadic=True),
        unsigned(2),
        conv(rng, 6, 6, POWERS, padding=1, scale=0.5),
        batch_norm(rng, 6, dyadic=True),
        quantizer(TERNARY, 1.0),
        conv(rng, 6, 4, TERNARY, padding=1, scale=0.5),
        batch_norm(rng, 4, dyadic=True),
        nn.ReLU6(),
        unsigned(3),
    )


@case("ties-relu6-negative-affine", exact=True, ties=True)
def _(rng: np.random.Generator) -> nn.Module:
    """A chain with a falling affine behind a clip: the comparison turns twice."""
    return Lambda(
        lambda m, x: m.q(m.bn(F.relu6(m.b(m.c(m.s(x)))))),
        s=stem(rng, 6, unsigned(2, 0.25)),
        c=conv(rng, 6, 6, TERNARY, scale=0.25),
        b=batch_norm(rng, 6, dyadic=True),
        bn=batch_norm(rng, 6, dyadic=True),
        q=unsigned(3, 0.25),
    )


@case("sign-zero-padding", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return low_bit(rng, BINARY, quantizer(BINARY, 1.0), False)


for _bits in (2, 4):

    @case(f"lsq-plus-offset-a{_bits}")
    def _(rng: np.random.Generator, bits: int = _bits) -> nn.Module:
        """Zero is no level, and offset and scale have no common step: padding needs the border correction."""
        return low_bit(rng, signed_levels(2), quantizer(tuple(range(2**bits)), 0.4, offset=-0.1734567), bits == 4)


@case("lsq-plus-offset-strided")
def _(rng: np.random.Generator) -> nn.Module:
    act = quantizer(tuple(range(4)), 0.4, offset=-0.1734567)
    return nn.Sequential(
        stem(rng, 6, act), conv(rng, 6, 6, POWERS, 5, stride=2, padding=2, groups=2), batch_norm(rng, 6), unsigned(2)
    )
