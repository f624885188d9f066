"""Bits of each activation where the network's output says they matter most, under a budget of mean bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qexport.calibration.choices import squared_errors
from qexport.calibration.data import Images
from qexport.calibration.observers import Histogram, Range
from qexport.calibration.output_error import layers_reading
from qexport.calibration.perturb import effects, quantize_activation
from qexport.errors import OptionError
from qexport.ir import Graph
from qexport.ops import Conv2d, Linear

FEWEST_BITS, MOST_BITS = 2, 8
PROBE_BITS = 4
"""Width at which the effect of each activation on the network's output is measured; errors of other widths scale it."""


def allocate_bits(
    graph: Graph,
    histograms: Mapping[str, Histogram],
    choose: Callable[[Histogram, int], Range],
    budget: float,
    images: Images,
) -> dict[str, int]:
    """Bits for every tensor; their mean, weighted by the multiplications that read the tensor, keeps to the budget.

    The noise a tensor adds to the network's output is measured at PROBE_BITS, with everything else float, and taken
    as proportional to the squared error of its quantizer at other widths. From 2 bits everywhere, the next bit goes
    where it removes most noise for its cost, while one fits.

    Args:
        graph: captured real graph.
        histograms: of the tensors.
        choose: the range of a quantizer from histogram and bits.
        budget: mean bits.
        images: read once.

    Raises:
        OptionError: the budget is below 2 or above 8.
    """
    check_budget(budget)
    widths = range(FEWEST_BITS, MOST_BITS + 1)
    changes = [quantize_activation(graph, t, choose(h, PROBE_BITS), PROBE_BITS) for t, h in histograms.items()]
    probed = effects(graph, changes, images, "measuring activations")
    noise: dict[str, dict[int, float]] = {}
    for (name, histogram), effect in zip(histograms.items(), probed, strict=True):
        errors = {b: _error(histogram, choose(histogram, b), b) for b in widths}
        per_error = float(effect.output_noise) / errors[PROBE_BITS] if errors[PROBE_BITS] else 0.0
        noise[name] = {b: per_error * error for b, error in errors.items()}
    return _spend(noise, {name: _macs(graph, name) for name in histograms}, budget)


def check_budget(budget: float) -> None:
    """Raises OptionError where no widths meet the budget, or all do."""
    if not FEWEST_BITS <= budget <= MOST_BITS:
        raise OptionError(
            "the budget is out of range",
            where="--act-budget",
            got=budget,
            expected=f"mean bits of activations, {FEWEST_BITS} to {MOST_BITS}",
        )


def _spend(noise: Mapping[str, Mapping[int, float]], macs: Mapping[str, int], budget: float) -> dict[str, int]:
    bits = dict.fromkeys(noise, FEWEST_BITS)
    left = (budget - FEWEST_BITS) * sum(macs.values())
    while True:
        open_ = [name for name in bits if bits[name] < MOST_BITS and macs[name] <= left]
        if not open_:
            return bits
        best = max(open_, key=lambda name: (noise[name][bits[name]] - noise[name][bits[name] + 1]) / macs[name])
        bits[best] += 1
        left -= macs[best]


def _error(histogram: Histogram, span: Range, bits: int) -> float:
    return float(squared_errors(histogram, np.array([max(-span[0], span[1])]), bits)[0])


def _macs(graph: Graph, tensor: str) -> int:
    """Multiply-accumulates of one image in the layers that read a tensor."""
    total = 0
    for node in layers_reading(graph, tensor):
        assert isinstance(node.op, Conv2d | Linear)
        total += int(node.op.weight.array.size * np.prod(graph.types[node.name].shape[1:], dtype=np.int64))
    return total
