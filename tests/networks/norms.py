"""SSD's L2 norm across channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from networks.parts import TERNARY, Lambda, batch_norm, conv, float_conv, quantizer, stem, unsigned
from networks.table import case


def l2_norm(rng: np.random.Generator, act: nn.Module, norm: Callable[[Tensor], Tensor], tail: nn.Module) -> nn.Module:
    """SSD's layer between a quantizer and a head: vectors of unit length times a gain per channel."""
    gain = torch.tensor(rng.uniform(0.5, 3, (1, 6, 1, 1)), dtype=torch.float32)
    gain[0, 1] *= -1
    return Lambda(
        lambda m, x: m.tail(norm(m.q(m.bn(m.c(m.s(x))))) * gain), s=stem(rng), c=conv(rng, 6, 6),
        bn=batch_norm(rng, 6), q=act, tail=tail,
    )  # fmt: skip


def _added_eps(x: Tensor) -> Tensor:
    return x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10)


case("l2-norm-codes", needs=("l2_norm",))(
    lambda rng: l2_norm(rng, unsigned(3), F.normalize, nn.Sequential(unsigned(2, 0.4), conv(rng, 6, 4)))
)


case("l2-norm-signed-added", needs=("l2_norm",))(
    lambda rng: l2_norm(rng, quantizer(TERNARY, 0.5), _added_eps, nn.Sequential(unsigned(4, 0.1), conv(rng, 6, 4)))
)


case("l2-norm-into-float-layer", float_layers=1, needs=("l2_norm",))(
    lambda rng: l2_norm(rng, unsigned(8, 1 / 64), F.normalize, float_conv(rng, 6, 4, padding=1))
)


case("l2-norm-output", needs=("l2_norm",))(lambda rng: l2_norm(rng, unsigned(2), F.normalize, nn.Identity()))


case("l2-norm-of-float-activations", float_layers=1, needs=("l2_norm",))(
    lambda rng: l2_norm(rng, nn.ReLU(), F.normalize, float_conv(rng, 6, 4, padding=1))
)


case("l2-norm-calibrated", float_layers=1, calibrate=True, needs=("l2_norm",))(
    lambda rng: l2_norm(rng, nn.ReLU(), F.normalize, float_conv(rng, 6, 4, padding=1))
)
