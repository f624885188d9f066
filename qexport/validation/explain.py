"""Every difference between the frozen, the edge-quantized and the integer network, explained (DESIGN 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qexport.ir import Graph
from qexport.passes.fixed import FixedPoint
from qexport.passes.folding import Fold
from qexport.passes.lower import Lowered
from qexport.reference import Run, interpret
from qexport.stepfunction import StepFunction
from qexport.validation.report import FixedPointResult, LayerResult

FLOAT_TOLERANCE = 2.0**-36
"""Rounding of the float64 evaluation, as a share of the largest value of the tensor."""


@dataclass
class _LayerCount:
    codes: int = 0
    differing: int = 0
    ties: int = 0
    propagated: int = 0
    unexplained: int = 0
    bound: float = 0.0
    largest: float = 0.0
    frozen_differing: int = 0
    edges: int = 0


@dataclass
class _FixedCount:
    largest: float = 0.0
    bound: float = 0.0
    unexplained: int = 0
    saturated: int = 0
    signal: float = 0.0
    noise: float = 0.0
    carried: float = 0.0
    product: float = 0.0


@dataclass
class Explainer:
    """Accumulates, batch by batch, what became of every code and every fixed-point value.

    The float network is run twice: freely, to see which codes differ, and with the integer network's codes put in at
    every quantizer, so that each layer is judged on equal inputs. A code that differs there must have its real value
    within the proven bound of the threshold (a tie); one that differs only in the free run is propagated.

    The frozen network is run twice in the same way. What differs from it, and not from the edge-quantized network, on
    equal inputs is the work of the edges: float layers whose weights were rounded, and calibrated quantizers.

    Attributes:
        lowered: the lowered network.
        frozen: the captured one, whose float layers are still float.
    """

    lowered: Lowered
    frozen: Graph
    layers: dict[str, _LayerCount] = field(default_factory=dict)
    fixed: dict[str, _FixedCount] = field(default_factory=dict)

    def run_free(self, feeds: dict[str, NDArray]) -> Run:
        """The edge-quantized network on one batch of images, by input name; what `add` judges may differ from it."""
        return interpret(self.lowered.real, feeds, keep={*self._compared.values(), *self.lowered.fixed_points})

    def run_frozen(self, feeds: dict[str, NDArray]) -> Run:
        """The frozen network on one batch, in float64."""
        return interpret(self.frozen, feeds, keep=self._trained.values())

    def add(self, feeds: dict[str, NDArray], integers: dict[str, NDArray], free: Run, frozen: Run) -> None:
        """Explain one batch.

        Args:
            feeds: the images, by input name.
            integers: every tensor of the integer graph on them.
            free, frozen: what `run_free` and `run_frozen` give on them.
        """

        def force(name: str, value: NDArray) -> NDArray:
            return self._force(name, value, integers)

        folds = self.lowered.folds
        forced = interpret(self.lowered.real, feeds, keep=free.tensors, override=force)
        for name, tensor in self._compared.items():
            count = self.layers.setdefault(name, _LayerCount())
            code = _code(folds[name].function, integers[name])
            _count_codes(count, folds[name], code, forced.tensors[tensor], free.tensors[tensor])
        for name, point in self.lowered.fixed_points.items():
            count_fixed = self.fixed.setdefault(name, _FixedCount())
            _count_fixed(count_fixed, point, integers[point.tensor], forced.tensors[name], free.tensors[name])
        frozen_forced = interpret(self.frozen, feeds, keep=frozen.tensors, override=force)
        for name, tensor in self._trained.items():
            function = folds[name].function
            differing = _code(function, integers[name]) != function.codes(frozen.tensors[tensor])
            moved = function.codes(forced.tensors[self._compared[name]]) != function.codes(
                frozen_forced.tensors[tensor]
            )
            self.layers[name].frozen_differing += int(differing.sum())
            self.layers[name].edges += int((differing & moved).sum())

    @cached_property
    def _compared(self) -> dict[str, str]:
        """Quantizer -> the real tensor it reads."""
        return {node.name: node.inputs[0] for node in self.lowered.real.nodes if node.name in self.lowered.folds}

    @cached_property
    def _trained(self) -> dict[str, str]:
        """The same in the frozen network, which has the trained quantizers only."""
        return {node.name: node.inputs[0] for node in self.frozen.nodes if node.name in self.lowered.folds}

    def _force(self, name: str, value: NDArray, integers: dict[str, NDArray]) -> NDArray:
        """The integer network's value of a quantizer, or of a saturated stream, in place of the float one."""
        fold = self.lowered.folds.get(name)
        if fold is not None:
            return integers[name] * float(fold.function.scale)
        point = self.lowered.fixed_points.get(name)
        if point is not None and point.bits < 32:
            carried = integers[point.tensor] * float(point.step)
            return np.where(_saturated(point, integers[point.tensor]), carried, value)
        return value

    def results(self) -> tuple[list[LayerResult], list[FixedPointResult]]:
        """What was found, in graph order."""
        layers = [LayerResult(name, **vars(count)) for name, count in self.layers.items()]
        fixed = [self._fixed_result(name, count) for name, count in self.fixed.items()]
        return layers, fixed

    def _fixed_result(self, name: str, count: _FixedCount) -> FixedPointResult:
        point = self.lowered.fixed_points[name]
        sqnr = cosine = None
        if count.signal > 0:
            sqnr = 10 * math.log10(count.signal / count.noise) if count.noise > 0 else math.inf
            cosine = count.product / math.sqrt(count.signal * count.carried) if count.carried > 0 else 0.0
        return FixedPointResult(
            name,
            float(point.step),
            point.bits,
            count.largest,
            count.bound,
            count.unexplained,
            count.saturated,
            sqnr,
            cosine,
        )


def _saturated(point: FixedPoint, integers: NDArray) -> NDArray[np.bool_]:
    limit = 2 ** (point.bits - 1)
    return (integers >= limit - 1) | (integers <= -limit)


def _code(function: StepFunction, levels: NDArray) -> NDArray[np.int64]:
    """The codes that levels of the integer network stand for."""
    lowest = int(function.levels.min())
    table = np.zeros(int(function.levels.max()) - lowest + 1, np.int64)
    table[function.levels - lowest] = np.arange(len(function.levels))
    return table[levels - lowest]


def _count_codes(count: _LayerCount, fold: Fold, code: NDArray, forced: NDArray, free: NDArray) -> None:
    """Classify the codes of one quantizer on one batch; `forced` and `free` are its real inputs."""
    function = fold.function
    judged, running = function.codes(forced), function.codes(free)
    t = np.concatenate([[-np.inf], function.thresholds.astype(np.float64), [np.inf]])
    # Distance from the farthest threshold between the two codes: t[code] below, t[code + 1] above in this padding.
    distance = np.where(code > judged, t[code] - forced, np.where(code < judged, forced - t[code + 1], 0.0))
    tolerance = FLOAT_TOLERANCE * max(
        float(np.abs(forced).max(initial=0.0)), float(np.abs(function.thresholds).max(initial=0))
    )
    bound = fold.error + tolerance
    off = code != judged
    unexplained = off & (distance > bound)
    differing = code != running
    count.codes += code.size
    count.differing += int(differing.sum())
    count.ties += int((differing & off & ~unexplained).sum())
    count.propagated += int((differing & ~off).sum())
    count.unexplained += int(unexplained.sum())
    count.bound = max(count.bound, bound)
    count.largest = max(count.largest, float(distance[off & ~unexplained].max(initial=0.0)))


def _count_fixed(count: _FixedCount, point: FixedPoint, integers: NDArray, forced: NDArray, free: NDArray) -> None:
    """Compare one fixed-point tensor with its real value on one batch."""
    carried = integers * float(point.step)
    bound = point.error + FLOAT_TOLERANCE * float(np.abs(forced).max(initial=0.0))
    error = np.abs(carried - forced)
    saturated = _saturated(point, integers) if point.bits < 32 else np.zeros(integers.shape, bool)
    count.saturated += int(saturated.sum())
    count.unexplained += int(((error > bound) & ~saturated).sum())
    count.largest = max(count.largest, float(error[~saturated].max(initial=0.0)))
    count.bound = max(count.bound, bound)
    count.signal += float((free * free).sum())
    count.noise += float(((free - carried) ** 2).sum())
    count.carried += float((carried * carried).sum())
    count.product += float((free * carried).sum())
