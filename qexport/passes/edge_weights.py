"""Integer levels for the weights of layers that training left float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError
from qexport.ir.types import INT32_MAX
from qexport.ops import Weight
from qexport.ops.weight import spread_over_groups
from qexport.passes.rounding import round_to_moments

MAX_EDGE_BITS = 24
"""Widest weight: three planes of 8 bits."""

ACCUMULATOR_SHARE = 0.9
"""Share of int32 a float layer may fill; the rest is for border corrections and plane sums."""

PIXEL_CHANNELS = 4
PIXEL_CORRELATION = 0.95
COLOUR_CORRELATION = 0.9
"""Second-order statistics of natural images, as image coding assumes them."""

SCALES_TRIED = 20

PROVEN_SLACK_BITS = 4
"""A proven range is wider than what data reach; a wide input gets this many bits more than the weight."""


def fit_edge_levels(
    weight: NDArray[np.float64],
    reach: NDArray[np.float64],
    bits: int | None,
    name: str,
    asked: int | None,
    *,
    signed: bool = False,
) -> Weight:
    """Symmetric per-output-channel levels of at most `bits` bits whose accumulator is proven in int32.

    Args:
        weight: [O, I/groups, ...] real weights per integer step of the input.
        reach: largest |integer| of each input channel, [I].
        bits: width, None for as many as int32 allows (DESIGN 4.7, docs/arithmetic.md, eq. 10).
        name: layer, for the message.
        asked: the width the user asked for, kept as `Weight.edge_bits`.
        signed: whether inputs go below zero, as behind a batch norm; there plain rounding is best, elsewhere errors
            of a kernel's sum count most.

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
    ratios = weight * (steps / np.where(peak > 0, peak, 1.0)).reshape(-1, *(1,) * (weight.ndim - 1))
    if signed:
        levels, steps = _search_scale(ratios, steps, np.rint, lambda error: np.einsum("ok,ok->o", error, error))
    elif weight.shape[1] <= PIXEL_CHANNELS and weight.ndim == 4:
        levels, steps = fit_to_pixels(ratios, steps)
    else:
        levels = round_keeping_sums(ratios)
    scale = [Fraction(float(p)) / int(s) if p > 0 else Fraction(1) for p, s in zip(peak, steps, strict=True)]
    return Weight(levels, tuple(scale), edge_bits=asked or MAX_EDGE_BITS)


def refine_levels(
    weight: NDArray[np.float64], fitted: Weight, reach: NDArray[np.float64], covariance: NDArray, largest: int
) -> Weight:
    """Levels and scales with less error of the layer's output than the given ones (`round_to_moments`), as provable.

    Args:
        weight: [O, I/groups, ...] real weights per integer step of the input.
        fitted: levels and scales to start from.
        reach: largest |integer| of each input channel, [I].
        covariance: of the input integers under the kernel, [groups, K, K].
        largest: highest level allowed.
    """
    flat = weight.reshape(len(weight), -1)
    beside = np.broadcast_to(spread_over_groups(reach, weight), weight.shape).reshape(flat.shape)
    start = fitted.array.reshape(flat.shape)
    first = np.array([float(s) for s in fitted.scale or ()])
    levels, scale = start.copy(), first.copy()
    for rows, metric in zip(np.split(np.arange(len(flat)), len(covariance)), covariance, strict=True):
        around = beside[rows]

        def fits(found: NDArray[np.float64], around: NDArray[np.float64] = around) -> NDArray[np.bool_]:
            return (np.abs(found) * around).sum(1) <= INT32_MAX * ACCUMULATOR_SHARE

        top = np.full(len(rows), float(largest))
        levels[rows], scale[rows] = round_to_moments(flat[rows], metric, top, (start[rows], first[rows]), fits)
    # A scale that stayed keeps its exact value.
    exact = [Fraction(s) if s != f else e for s, f, e in zip(scale.tolist(), first, fitted.scale or (), strict=True)]
    return replace(fitted, array=levels.astype(np.int32).reshape(weight.shape), scale=tuple(exact))


def round_keeping_sums(ratios: NDArray[np.float64]) -> NDArray[np.int32]:
    """Round weights so that every output channel keeps its sum to half a step, and every kernel to under one step.

    The inputs of float layers (pixels, post-ReLU features) are strongly correlated between neighbours and far from
    zero mean, so an error of a kernel's sum costs far more than errors that cancel within it. Largest remainders
    decide who rounds up, first among the kernels of an output channel, then within each kernel.

    Args:
        ratios: [O, I/groups, ...] weights in steps.
    """
    flat = ratios.reshape(*ratios.shape[:2], -1)
    kernel_sums = flat.sum(-1)
    targets = _largest_remainders(kernel_sums, np.rint(kernel_sums.sum(-1)))
    return _largest_remainders(flat, targets).reshape(ratios.shape).astype(np.int32)


def fit_to_pixels(ratios: NDArray[np.float64], steps: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray]:
    """Scale and rounding of a layer that reads an image, with the smallest error on natural images.

    Minimises e' C e per output channel over roundings e and over SCALES_TRIED scales, with C the covariance of
    neighbouring pixels: a first-order Markov field, correlation PIXEL_CORRELATION per step of distance and
    COLOUR_CORRELATION between colour planes. Coordinate descent from the sum-keeping rounding; needs no data.

    Args:
        ratios: [O, I, kh, kw] weights in steps of peak / steps.
        steps: [O] steps up to the peak.

    Returns:
        (levels [O, I, kh, kw], steps [O] of the chosen scales, at most those given).
    """
    covariance = _pixel_covariance(ratios.shape[1:])

    def rounded(target: NDArray[np.float64]) -> NDArray[np.float64]:
        start = round_keeping_sums(target.reshape(ratios.shape)).reshape(target.shape)
        return _descend(target, covariance, start)

    return _search_scale(
        ratios, steps, rounded, lambda error: np.einsum("ok,kl,ol->o", error, covariance, error, optimize=True)
    )


def _search_scale(
    ratios: NDArray[np.float64],
    steps: NDArray[np.float64],
    rounded: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    cost: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Per output channel, the scale with the smallest rounding error of SCALES_TRIED between 3/4 and 1 of the steps.

    Args:
        ratios: [O, ...] weights in steps of peak / steps.
        steps: [O] steps up to the peak.
        rounded: [O, K] weights in steps -> integers.
        cost: [O, K] errors, relative to the peak -> [O].

    Returns:
        (levels, shape of ratios; steps [O] of the chosen scales).
    """
    flat = ratios.reshape(len(ratios), -1)
    best_cost = np.full(len(flat), np.inf)
    best_levels, best_steps = np.zeros(flat.shape, np.int32), steps.copy()
    for share in np.linspace(1.0, 0.75, SCALES_TRIED):
        tried = np.maximum(np.floor(steps * share), 1.0)
        target = flat * (tried / steps)[:, None]
        levels = rounded(target)
        found = cost((target - levels) / tried[:, None])
        better = (found < best_cost) & (np.abs(levels).max(1) <= steps)
        best_cost = np.where(better, found, best_cost)
        best_levels[better], best_steps[better] = levels[better].astype(np.int32), tried[better]
    return best_levels.reshape(ratios.shape), best_steps


def _pixel_covariance(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Covariance [K, K] of the pixels under a kernel of shape (I, kh, kw)."""
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    position = np.stack([g.reshape(-1) for g in grids], axis=-1)
    distance = np.abs(position[:, None, 1:] - position[None, :, 1:]).sum(-1)
    same_plane = position[:, None, 0] == position[None, :, 0]
    return PIXEL_CORRELATION**distance * np.where(same_plane, 1.0, COLOUR_CORRELATION)


def _descend(target: NDArray[np.float64], covariance: NDArray[np.float64], start: NDArray) -> NDArray[np.float64]:
    """Coordinate descent on e' C e, e = target - levels, one weight a row and round; [O, K]."""
    levels = start.astype(np.float64)
    for _ in range(4 * target.shape[1]):
        # Moving weight k by d changes the cost by d^2 C_kk - 2 d pull_k.
        pull = (target - levels) @ covariance
        gain = 2 * np.abs(pull) - np.diag(covariance)
        best = gain.argmax(1)
        rows = np.flatnonzero(gain[np.arange(len(gain)), best] > 1e-12)
        if not rows.size:
            break
        levels[rows, best[rows]] += np.sign(pull[rows, best[rows]])
    return levels


def _largest_remainders(values: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integers floor(v) or floor(v) + 1 along the last axis that sum to `targets` wherever that is possible."""
    floors = np.floor(values)
    missing = targets - floors.sum(-1)
    order = np.argsort(floors - values, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    return floors + (rank < missing[..., None])


def wide_bits(weight: NDArray[np.float64], edge_bits: int | None) -> int:
    """Weight bits of a float layer whose input is wide fixed point: half of what int32 leaves after the fan-in."""
    fan_in = max(weight[0].size, 1)
    budget = 31 - int(np.ceil(np.log2(fan_in)))
    return max(4, min(edge_bits or MAX_EDGE_BITS, (budget - PROVEN_SLACK_BITS) // 2))
