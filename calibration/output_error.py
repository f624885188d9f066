"""The range that leaves the layer behind an activation the least error, by trying ranges on the images."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.calibration.choices import cut, largest_level
from qexport.calibration.data import Images, Pixels
from qexport.calibration.observers import Range
from qexport.calibration.ranges import each_image
from qexport.ir import Graph, Node, prune
from qexport.ops import Conv2d, Linear
from qexport.reference import interpret

STEPS_PER_OCTAVE = 4
TRIED = np.arange(-4, 5)
"""Peaks tried: an octave round the given one, in quarters of an octave."""


def refine_on_outputs(
    graph: Graph, spans: Mapping[str, Range], ranges: Mapping[str, Range], bits: Mapping[str, int], images: Images
) -> dict[str, Range]:
    """Move every range to where the outputs of the layers that read the tensor have the least squared error.

    Each tensor is judged by itself, everything before it float. A tensor read by several layers is judged by the sum
    of their errors, each relative to the layer's own energy. Sums are exact, so the order of images does not matter.

    Args:
        graph: captured real graph.
        spans: tensor -> extremes of what was seen; no range leaves them.
        ranges: tensor -> where the search starts.
        bits: tensor -> bits of its quantizer.
        images: read once.
    """
    trials = {name: _Trial(graph, name, spans[name], ranges[name], bits[name]) for name in ranges}
    part = prune(Graph(graph.inputs, graph.nodes, list(trials), graph.types))

    def show(index: int, image: Pixels) -> None:
        run = interpret(part, {next(iter(graph.inputs)): image})
        for name, trial in trials.items():
            trial.update(run.outputs[name])

    each_image(images, "calibrating, second pass", show)
    return {name: trial.best() for name, trial in trials.items()}


def layers_reading(graph: Graph, tensor: str) -> list[Node]:
    """Convolutions and linear layers whose input is `tensor`."""
    return [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear) and n.inputs[0] == tensor]


def rounded(x: NDArray[np.float64], peak: float, top: int, *, signed: bool) -> NDArray[np.float64]:
    """The calibrated quantizer in real arithmetic: multiples of peak / top from 0, or -top, to top."""
    step = peak / top
    return step * np.clip(np.floor(x / step + 0.5), -top if signed else 0, top)


class _Trial:
    """Errors of all candidates for one tensor."""

    def __init__(self, graph: Graph, name: str, span: Range, start: Range, bits: int) -> None:
        self._layers = [node.op for node in layers_reading(graph, name)]
        self._span = span
        self._top = largest_level(span, bits)
        self._given = start
        peak, largest = max(-start[0], start[1]), max(-span[0], span[1])
        candidates = peak * 2.0 ** (TRIED / STEPS_PER_OCTAVE)
        # Where only zeros were seen there is nothing to try.
        self._peaks = sorted({peak, *np.minimum(candidates, largest).tolist()}) if largest > 0 else []
        self._errors = [[Fraction(0)] * len(self._layers) for _ in self._peaks]
        self._energy = [Fraction(0)] * len(self._layers)

    def update(self, x: NDArray[np.float64]) -> None:
        # Layers are linear: the error of the output is the layer applied to the error of the input.
        off = [rounded(x, peak, self._top, signed=self._span[0] < 0) - x for peak in self._peaks]
        together = np.concatenate([x, *off])
        for i, op in enumerate(self._layers):
            energies = [float(np.square(y).sum()) for y in op.evaluate(together)]
            self._energy[i] += Fraction(energies[0])
            for errors, energy in zip(self._errors, energies[1:], strict=True):
                errors[i] += Fraction(energy)

    def best(self) -> Range:
        if not self._peaks:
            return self._given
        costs = [sum(e / g for e, g in zip(errors, self._energy, strict=True) if g) for errors in self._errors]
        return cut(self._span, self._peaks[costs.index(min(costs))])
