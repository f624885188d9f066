"""Compares an integer graph with the quantized real graph it was lowered from, error bounds included."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.ops import Step
from qexport.passes.folding import Fold
from qexport.passes.lower import Lowered
from qexport.reference import interpret

FLOAT_SLACK = 1e-11
"""float64 rounding of the real graph, relative to the largest value of the tensor."""


@dataclass
class Agreement:
    """What was seen: codes compared, how many differ from the float64 real graph, values exactly on a threshold."""

    codes: int = 0
    differing: int = 0
    ties: int = 0


def images(shape: tuple[int, ...], rng: np.random.Generator, count: int = 4) -> NDArray[np.int64]:
    """Random and corner images: all 0, all 255, a checkerboard of both."""
    corners = np.stack([np.zeros(shape), np.full(shape, 255), np.indices(shape).sum(0) % 2 * 255])
    return np.concatenate([corners, rng.integers(0, 256, (count, *shape))]).astype(np.int64)


def check_agreement(low: Lowered, x: NDArray[np.int64]) -> Agreement:
    """Every code, fixed-point tensor and output of the integer graph lies within its claimed bound.

    The real graph runs in float64 with each Step replaced by the integer graph's own level * scale, so that every
    comparison is made for equal codes upstream.
    """
    whole = interpret(low.graph, {"image": x}, keep=["*"]).tensors
    steps = {node.name: node for node in low.real.nodes if isinstance(node.op, Step)}

    def force(name: str, value: NDArray) -> NDArray:
        return whole[name] * float(low.folds[name].function.scale) if name in steps else value

    real = interpret(low.real, {"image": x}, keep=["*"], override=force).tensors
    seen = Agreement()
    for name, node in steps.items():
        _check_codes(low.folds[name], real[node.inputs[0]], whole[name], seen)
        _check_pending(low.folds[name], real[node.inputs[0]], whole)
    for name, fixed in low.fixed_points.items():
        _check_close(name, real[name], whole[fixed.tensor], fixed.step, fixed.error)
    for name, unit in zip(low.real.outputs, low.outputs, strict=True):
        _check_close(f"output {name}", real[name], whole[unit.tensor], unit.scale, unit.error)
    return seen


def _slack(values: NDArray) -> float:
    return FLOAT_SLACK * max(1.0, float(np.abs(values).max(initial=0.0)))


def _check_close(name: str, real: NDArray, integers: NDArray, step: Fraction, error: float) -> None:
    off = float(np.abs(real - integers * float(step)).max(initial=0.0))
    assert off <= error + _slack(real), f"{name}: off by {off}, claimed {error}"


def _check_codes(fold: Fold, v: NDArray, level: NDArray, seen: Agreement) -> None:
    """A code may differ from that of `v` only where every threshold between the two is within the claimed error."""
    levels = fold.function.levels
    assert np.all(np.diff(levels) > 0)
    code = np.searchsorted(levels, level)
    assert np.array_equal(levels[code], level), f"{fold.name}: an integer that is no level"
    thresholds = fold.function.thresholds.astype(np.float64)
    for i, t in enumerate(thresholds):
        wrong = (code > i) != (v >= t)
        far = np.abs(v - t)[wrong].max(initial=0.0)
        assert far <= fold.error + _slack(v), (
            f"{fold.name}: step {i} wrong {far} from the threshold, claimed {fold.error}"
        )
    seen.codes += v.size
    seen.differing += int((code != fold.function.codes(v)).sum())
    seen.ties += int(np.isin(v, thresholds).sum())


def _check_pending(fold: Fold, v: NDArray, whole: dict[str, NDArray]) -> None:
    """What the compared integers owe gives the real value within the error; exact folds give the exact code."""
    p = fold.pending
    accumulators = whole[p.tensor]
    values = np.moveaxis(p.float_values(np.moveaxis(accumulators, 1, 0)), 0, 1)
    if not fold.coded:  # a coded fold may have dropped a ReLU that saturation repeats
        assert np.abs(values - v).max() <= fold.error + _slack(v), fold.name
    if fold.coded or fold.error:
        return
    targets = [Fraction(float(t)) for t in fold.function.thresholds]
    for c in range(accumulators.shape[1]):
        found, where = np.unique(accumulators[:, c], return_index=True)
        produced = whole[fold.name][:, c].reshape(-1)[where]
        for n, level in list(zip(found.tolist(), produced.tolist(), strict=True))[:: max(1, len(found) // 64)]:
            exact = p.value(c, n)
            assert level == fold.function.levels[sum(exact >= t for t in targets)], f"{fold.name}: channel {c}, {n}"
