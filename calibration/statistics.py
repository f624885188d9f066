"""Ranges without data: batch norm remembers the mean and spread of what it saw in training, the graph carries them on.

Every channel is taken as Gaussian where batch norm, or the pixels, fix its moments; a clip gives the moments of the
clipped Gaussian, an addition those of independent summands. The image is a natural one: neighbouring pixels agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.ir import Graph, Node
from qexport.ops import Add, Affine, AvgPool, Clip, Concat, Conv2d, MaxPool, Op, Pad, PRelu, Reshape, Slice, Step

Statistics = dict[str, tuple[NDArray, NDArray]]
Floats = NDArray[np.float64]

FEWEST_DEVIATIONS = 3

PIXEL_MEAN, PIXEL_STD = 115.0, 64.0
"""Mean and standard deviation of the pixels 0..255 of natural images (those of ImageNet, all colours together)."""

NEIGHBOUR_CORRELATION = 0.95
"""Correlation of neighbouring pixels of natural images; it falls off as a power of the distance."""

COLOUR_CORRELATION = 0.9
"""Correlation of the colours of one pixel."""

_FAR = 40.0
"""Deviations that stand for infinity: the Gaussian is zero there in float64, and products with it stay finite."""


@dataclass(frozen=True, eq=False)
class Spread:
    """What is known of a tensor, per channel, float64 [C] each.

    Attributes:
        mean, std: moments over images and positions.
        lo, hi: values it hardly ever leaves.
    """

    mean: Floats
    std: Floats
    lo: Floats
    hi: Floats

    @classmethod
    def gaussian(cls, mean: NDArray, std: NDArray, deviations: float) -> Spread:
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        return cls(mean, std, mean - deviations * std, mean + deviations * std)

    def each(self, change: Callable[[Floats], Floats]) -> Spread:
        """The same change of all four."""
        return Spread(change(self.mean), change(self.std), change(self.lo), change(self.hi))

    def within(self, lo: NDArray | float, hi: NDArray | float) -> Spread:
        """The same moments with narrower limits."""
        return Spread(self.mean, self.std, np.clip(self.lo, lo, hi), np.clip(self.hi, lo, hi))


def deviations_for(bits: int) -> float:
    """How many standard deviations a range of `bits` reaches: as many as bits (measured: docs/calibration.md).

    A finer quantizer can afford a wider range, and values beyond it cost more than its coarser step.
    """
    return float(max(bits, FEWEST_DEVIATIONS))


def ranges_from_statistics(graph: Graph, statistics: Statistics, deviations: float) -> dict[str, tuple[float, float]]:
    """(lo, hi) of every real tensor whose distribution follows from batch-norm statistics.

    Tensors behind a layer whose output passes no batch norm are left out, save the first convolution on the image.

    Args:
        graph: captured real graph.
        statistics: batch-norm outputs: tensor -> (mean [C], standard deviation [C]).
        deviations: reach of a range in standard deviations, see `deviations_for`.
    """
    spreads: dict[str, Spread] = {}
    pixels = set(graph.inputs)
    for name, tensor_type in graph.inputs.items():
        ones = np.ones(tensor_type.channels)
        spreads[name] = Spread(PIXEL_MEAN * ones, PIXEL_STD * ones, tensor_type.lo, tensor_type.hi)
    for node in graph.nodes:
        found = _of_node(node, spreads, statistics, pixels, deviations)
        if found is not None:
            spreads[node.name] = found.within(graph.types[node.name].lo, graph.types[node.name].hi)
        if isinstance(node.op, Affine) and node.inputs[0] in pixels:
            pixels.add(node.name)
    return {name: (float(s.lo.min()), float(s.hi.max())) for name, s in spreads.items()}


def _of_node(
    node: Node, spreads: dict[str, Spread], statistics: Statistics, pixels: set[str], deviations: float
) -> Spread | None:
    if node.name in statistics:
        return Spread.gaussian(*statistics[node.name], deviations)
    if any(tensor not in spreads for tensor in node.inputs) or node.op.mixes_channels:
        return None
    inputs = [spreads[tensor] for tensor in node.inputs]
    if isinstance(node.op, Conv2d):
        return _stem(node.op, inputs[0], deviations) if node.inputs[0] in pixels else None
    if isinstance(node.op, Add):
        return _sum(inputs[0], inputs[1], deviations)
    rule = _RULES.get(type(node.op))
    return rule(node.op, *inputs) if rule is not None else None


def _stem(op: Conv2d, x: Spread, deviations: float) -> Spread:
    """Convolution of a natural image: var = w^T R w over the taps, with the correlations of pixels as R."""
    weight = op.weight.real()
    o, per_group, kh, kw = weight.shape
    per_input = (n.reshape(op.groups, 1, per_group, 1, 1) for n in (x.mean, x.std))
    grouped = weight.reshape(op.groups, o // op.groups, per_group, kh, kw)
    mean, spread = ((grouped * n).reshape(o, -1) for n in per_input)
    channel, row, col = (axis.reshape(-1) for axis in np.indices((per_group, kh, kw)))
    steps = np.abs(row[:, None] - row) + np.abs(col[:, None] - col)
    correlation = NEIGHBOUR_CORRELATION**steps * np.where(channel[:, None] == channel, 1.0, COLOUR_CORRELATION)
    variance = np.einsum("ok,kl,ol->o", spread, correlation, spread)
    return Spread.gaussian(mean.sum(1), np.sqrt(np.maximum(variance, 0.0)), deviations)


def _sum(a: Spread, b: Spread, deviations: float) -> Spread:
    """Independent summands: means and variances add; never beyond the sum of both limits."""
    joint = Spread.gaussian(a.mean + b.mean, np.hypot(a.std, b.std), deviations)
    return joint.within(a.lo + b.lo, a.hi + b.hi)


def _affine(op: Op, x: Spread) -> Spread:
    assert isinstance(op, Affine)
    gain, bias = op.floats()
    ends = np.stack([gain * x.lo + bias, gain * x.hi + bias])
    return Spread(gain * x.mean + bias, np.abs(gain) * x.std, ends.min(0), ends.max(0))


def _clip(op: Op, x: Spread) -> Spread:
    assert isinstance(op, Clip)
    lo, hi = (None if v is None else float(v) for v in (op.lo, op.hi))
    mean, std = _clipped_moments(x, lo, hi)
    return Spread(mean, std, op.evaluate(x.lo), op.evaluate(x.hi))


def _step(op: Op, x: Spread) -> Spread:
    """A quantizer is close to a clip at its outer values."""
    assert isinstance(op, Step)
    values = op.values()
    mean, std = _clipped_moments(x, float(values.min()), float(values.max()))
    ends = np.stack([op.evaluate(x.lo), op.evaluate(x.hi)])
    return Spread(mean, std, ends.min(0), ends.max(0))


def _prelu(op: Op, x: Spread) -> Spread:
    """x = x+ - x-, and x+ x- = 0, so second moments add."""
    assert isinstance(op, PRelu)
    slope = np.array([float(s) for s in op.slope])
    plus, plus_std = _clipped_moments(x, 0.0, None)
    minus, minus_std = _clipped_moments(x, None, 0.0)
    mean = plus + slope * minus
    second = plus_std**2 + plus**2 + slope**2 * (minus_std**2 + minus**2)
    std = np.sqrt(np.maximum(second - mean**2, 0.0))
    return Spread(mean, std, op.evaluate(x.lo[None])[0], op.evaluate(x.hi[None])[0])


def _pad(op: Op, x: Spread) -> Spread:
    """Added channels are zero; a border of zeros widens the limits and leaves the moments nearly as they are."""
    assert isinstance(op, Pad)
    if any(map(any, op.pads[1:])):
        x = Spread(x.mean, x.std, np.minimum(x.lo, 0), np.maximum(x.hi, 0))
    return x.each(op.map_channels)


def _move(op: Op, *inputs: Spread) -> Spread:
    parts = ([getattr(x, part) for x in inputs] for part in ("mean", "std", "lo", "hi"))
    return Spread(*(op.map_channels(*part) for part in parts))


def _pool(op: Op, x: Spread) -> Spread:
    """Limits hold for a maximum and for a mean; neighbours agree, so moments hardly change."""
    return x


_RULES: dict[type[Op], Callable[..., Spread]] = {
    Affine: _affine,
    AvgPool: _pool,
    Clip: _clip,
    Concat: _move,
    MaxPool: _pool,
    PRelu: _prelu,
    Pad: _pad,
    Reshape: _move,
    Slice: _move,
    Step: _step,
}


def _clipped_moments(x: Spread, lo: float | None, hi: float | None) -> tuple[Floats, Floats]:
    """Mean and standard deviation of a Gaussian clipped to [lo, hi]; None leaves a side open."""
    mean, std = x.mean, np.maximum(x.std, 1e-30)
    a = np.full_like(mean, -_FAR) if lo is None else np.clip((lo - mean) / std, -_FAR, _FAR)
    b = np.full_like(mean, _FAR) if hi is None else np.clip((hi - mean) / std, -_FAR, _FAR)
    below, inside, above = _cdf(a), _cdf(b) - _cdf(a), _cdf(-b)
    # Moments of the standard Gaussian clipped to [a, b], then back to mean and std.
    first = a * below + b * above + _density(a) - _density(b)
    second = a**2 * below + b**2 * above + inside + a * _density(a) - b * _density(b)
    return mean + std * first, x.std * np.sqrt(np.maximum(second - first**2, 0.0))


def _density(z: Floats) -> Floats:
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _cdf(z: Floats) -> Floats:
    return np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in z])
