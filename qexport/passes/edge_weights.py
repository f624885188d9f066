"""Integer levels for the weights of layers that training left float."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError
from qexport.ir.types import INT32_MAX
from qexport.ops import Weight
from qexport.ops.weight import spread_over_groups

MAX_EDGE_BITS = 24
"""Widest weight: three planes of 8 bits."""

ACCUMULATOR_SHARE = 0.9
"""Share of int32 a float layer may fill; the rest is for border corrections and plane sums."""

PROVEN_SLACK_BITS = 4
"""A proven range is wider than what data reach; a wide input gets this many bits more than the weight."""


def fit_edge_levels(
    weight: NDArray[np.float64], reach: NDArray[np.float64], bits: int | None, name: str, asked: int | None
) -> Weight:
    """Symmetric per-output-channel levels of at most `bits` bits whose accumulator is proven in int32.

    Args:
        weight: [O, I/groups, ...] real weights per integer step of the input.
        reach: largest |integer| of each input channel, [I].
        bits: width, None for as many as int32 allows (DESIGN 4.7, docs/arithmetic.md, eq. 10).
        name: layer, for the message.
        asked: the width the user asked for, kept as `Weight.edge_bits`.

    Raises:
        AccumulatorError: not even 4-bit weights fit.
    """
    flat = weight.reshape(weight.shape[0], weight.shape[1], -1)
    beside = spread_over_groups(reach, weight).reshape(flat.shape[:2])
    peak = np.abs(flat).max(axis=(1, 2))
    mass = (np.abs(flat).sum(-1) * beside).sum(-1)
    rounding = flat.shape[2] * beside.sum(-1) / 2  # each level may round up by half a step
    room = np.maximum(INT32_MAX * ACCUMULATOR_SHARE - rounding, 1.0)
    largest = 2 ** ((bits or MAX_EDGE_BITS) - 1) - 1
    # Widest step count per channel: bounded by the width and by the accumulator.
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.where(mass > 0, room * peak / np.where(mass > 0, mass, 1.0), largest)
    steps = np.minimum(largest, np.floor(limit))
    if steps.min() < 7:
        raise AccumulatorError(
            "a float layer's accumulator cannot be proven in int32",
            where=name,
            got=f"{int(reach.max())} as largest input integer, {flat[0].size} products a sum",
            remedy="use fewer --act-bits",
        )
    scale = [Fraction(float(p)) / int(s) if p > 0 else Fraction(1) for p, s in zip(peak, steps, strict=True)]
    floats = np.array([float(s) for s in scale]).reshape(-1, *(1,) * (weight.ndim - 1))
    levels = np.rint(weight / floats).astype(np.int32)
    return Weight(levels, tuple(scale), edge_bits=asked or MAX_EDGE_BITS)


def wide_bits(weight: NDArray[np.float64], edge_bits: int | None) -> int:
    """Weight bits of a float layer whose input is wide fixed point: half of what int32 leaves after the fan-in."""
    fan_in = max(weight[0].size, 1)
    budget = 31 - int(np.ceil(np.log2(fan_in)))
    return max(4, min(edge_bits or MAX_EDGE_BITS, (budget - PROVEN_SLACK_BITS) // 2))
