"""The float network with one thing changed: what the outputs of the layers concerned, and its predictions, become."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.calibration.choices import largest_level
from qexport.calibration.data import Images, Pixels
from qexport.calibration.observers import Range
from qexport.calibration.output_error import layers_reading, rounded
from qexport.calibration.ranges import each_image
from qexport.ir import Graph
from qexport.reference import interpret

Evaluate = Callable[..., NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Change:
    """One integer choice.

    Attributes:
        kind, name, bits: see `Cost`.
        nodes: node -> what computes it instead, from the node's own inputs.
    """

    kind: str
    name: str
    bits: int
    nodes: Mapping[str, Evaluate]


@dataclass(eq=False)
class Effect:
    """What a change did to all images; sums are exact, so their order does not matter.

    Attributes:
        noise, energy: sum of squares of what changed, and of what was there, for every changed node.
        output_noise: the same for the network's outputs, relative to their energy in that image, summed over images.
        same, images: images whose prediction stayed, and all images.
    """

    noise: dict[str, Fraction] = field(default_factory=dict)
    energy: dict[str, Fraction] = field(default_factory=dict)
    output_noise: Fraction = Fraction(0)
    same: int = 0
    images: int = 0

    def sqnr_db(self) -> float | None:
        """Of the changed node it is worst for; None where nothing changed."""
        ratios = [noise / self.energy[name] for name, noise in self.noise.items() if noise and self.energy[name]]
        return _decibels(max(ratios)) if ratios else None

    def output_db(self) -> float | None:
        """Signal to noise of the network's outputs, noise averaged over images; None where they stay as they are."""
        return _decibels(self.output_noise / self.images) if self.output_noise else None


def _decibels(noise: Fraction) -> float:
    return -10 * math.log10(float(noise))


def quantize_activation(graph: Graph, name: str, span: Range, bits: int) -> Change:
    """The calibrated quantizer in front of the layers that read a tensor; whatever else reads it sees no change."""
    top, peak, signed = largest_level(span, bits), max(-span[0], span[1]), span[0] < 0

    def behind(evaluate: Evaluate) -> Evaluate:
        return lambda x: evaluate(rounded(x, peak, top, signed=signed))

    return Change("activation", name, bits, {n.name: behind(n.op.evaluate) for n in layers_reading(graph, name)})


def effects(graph: Graph, changes: list[Change], images: Images, stage: str) -> list[Effect]:
    """Run every image once as it is and once more with each change by itself.

    Args:
        graph: captured real graph.
        changes: what to try.
        images: read once.
        stage: what the progress bar calls it.
    """
    found = [Effect() for _ in changes]
    place = {node.name: i for i, node in enumerate(graph.nodes)}

    def visit(index: int, image: Pixels) -> None:
        tensors = interpret(graph, {next(iter(graph.inputs)): image}, keep=["*"]).tensors
        for change, effect in zip(changes, found, strict=True):
            first = min(place[name] for name in change.nodes)
            _add(effect, graph, change, tensors, _changed(graph, change, tensors, first))

    each_image(images, stage, visit)
    return found


def _changed(
    graph: Graph, change: Change, tensors: Mapping[str, NDArray], first: int
) -> dict[str, NDArray[np.float64]]:
    """Every tensor that differs with the change, from node number `first` on."""
    values: dict[str, NDArray[np.float64]] = {}
    for node in graph.nodes[first:]:
        if node.name in change.nodes or not values.keys().isdisjoint(node.inputs):
            evaluate: Evaluate = change.nodes.get(node.name, node.op.evaluate)
            values[node.name] = evaluate(*(values.get(tensor, tensors[tensor]) for tensor in node.inputs))
    return values


def _add(
    effect: Effect, graph: Graph, change: Change, before: Mapping[str, NDArray], after: Mapping[str, NDArray]
) -> None:
    effect.images += 1
    for name in change.nodes:
        effect.noise[name] = effect.noise.get(name, Fraction(0)) + _energy(after[name] - before[name])
        effect.energy[name] = effect.energy.get(name, Fraction(0)) + _energy(before[name])
    for name in graph.outputs:
        energy = _energy(before[name])
        if name in after and energy:
            effect.output_noise += _energy(after[name] - before[name]) / energy
    (output, *_) = graph.outputs
    effect.same += int(after.get(output, before[output]).argmax() == before[output].argmax())


def _energy(values: NDArray[np.float64]) -> Fraction:
    return Fraction(float(np.square(values).sum()))
