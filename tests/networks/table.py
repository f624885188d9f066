"""The table every backend runs: a network a row, and how it is converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Case:
    """A network and how it is converted.

    Attributes:
        build: seed generator -> network; input "image" of `shape`.
        exact: the whole network is computed without any error, so every code must be equal.
        ties: values on a threshold occur, by choice of dyadic parameters (implies exact).
        calibrate: give every float activation of a layer an 8-bit quantizer.
        float_layers: how many convolutions and linear layers training left float.
        needs: attributes and ops of the IR that only some networks have: "dilation" (maximum pooling), "factors" (means
            whose windows count different numbers of pixels), "transpose", "reshape" (across channels), "concat axis",
            "l2_norm". A backend without one of them leaves these rows out.
    """

    build: Callable[[np.random.Generator], nn.Module]
    shape: tuple[int, ...] = (3, 8, 8)
    exact: bool = False
    ties: bool = False
    calibrate: bool = False
    float_layers: int = 0
    edge_bits: int | None = 16
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    needs: tuple[str, ...] = ()


CASES: dict[str, Case] = {}


"""Every network of the matrix by name; backends run the same table."""


def case(name: str, **options: object) -> Callable[[Callable[[np.random.Generator], nn.Module]], None]:
    def enter(build: Callable[[np.random.Generator], nn.Module]) -> None:
        assert name not in CASES, name
        CASES[name] = Case(build, **options)  # type: ignore[arg-type]

    return enter
