"""Proof of folded thresholds: every reachable integer gets the code of the exact real chain (DESIGN 4.3, eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.errors import ProofError
from qexport.ir import Graph
from qexport.ops import Affine, Op, PRelu, Rescale, Threshold
from qexport.passes.folding import Fold, fold_thresholds

ENUMERATION_LIMIT = 2**26
"""Layers with more reachable (channel, integer) pairs are proven interval by interval instead of one by one."""

WINDOW = 512
"""Around every threshold of an interval proof, so many integers on both sides are enumerated all the same."""

FLOAT_MARGIN = 2.0**-44
"""float64 decides a comparison only where the distance exceeds this share of the magnitudes; else rationals."""


@dataclass(frozen=True)
class Proof:
    """What was checked for one folded quantizer.

    Attributes:
        name: the threshold node.
        values: reachable (channel, integer) pairs whose code is proven.
        enumerated: how many of them were evaluated one by one.
        exact: how many of those float64 could not decide and rationals did.
        ties: thresholds whose integer form is off; always 0 for comparisons. A rescale with saturation may be off
            where the real value lies within the stated error of the threshold.
    """

    name: str
    values: int
    enumerated: int
    exact: int
    ties: int = 0

    @property
    def is_exhaustive(self) -> bool:
        """Whether every value was evaluated one by one."""
        return self.enumerated >= self.values


def prove(graph: Graph, folds: dict[str, Fold]) -> list[Proof]:
    """Prove every folded quantizer of an integer graph.

    Where a layer has at most ENUMERATION_LIMIT reachable pairs, all are evaluated. Otherwise the exact code is
    compared at both ends of every interval between neighbouring thresholds - both sides are monotone, so the
    ends decide the inside - and a window around each threshold is enumerated.

    Raises:
        ProofError: a value whose code differs, with layer, channel, integer and both codes.
    """
    return [_prove_fold(graph.node(name).op, fold) for name, fold in folds.items() if name in graph.types]


def _prove_fold(op: Op, fold: Fold) -> Proof:
    if fold.coded:
        assert isinstance(op, Rescale)
        return _prove_coded(op, fold)
    assert isinstance(op, Threshold)
    x = fold.input_type
    channels = range(x.channels)
    lo, hi = x.lo.astype(np.int64), x.hi.astype(np.int64)
    if op.thresholds.shape[0] == 1 and _is_uniform(fold):
        channels, lo, hi = range(1), lo.min(keepdims=True), hi.max(keepdims=True)
    total = int((hi - lo + 1).sum())
    enumerated = exact = 0
    for c in channels:
        if total <= ENUMERATION_LIMIT:
            integers = np.arange(lo[c], hi[c] + 1)
        else:
            integers = _interval_points(op, c, int(lo[c]), int(hi[c]))
        for chunk in np.array_split(integers, max(1, integers.size // 2**20)):
            exact += _compare(op, fold, c, chunk)
        enumerated += integers.size
    return Proof(fold.name, total, enumerated, exact)


def _is_uniform(fold: Fold) -> bool:
    """Whether all channels owe the same, so that one stands for all."""
    p = fold.pending
    same = p.uniform_gain is not None and all(b == p.bias[0] for b in p.bias)
    return same and not any(hasattr(op, "slope") or hasattr(op, "gain") for op in p.chain)


def _interval_points(op: Threshold, c: int, lo: int, hi: int) -> NDArray[np.int64]:
    """Both ends of the range and a window around every threshold, in integers of the compared tensor."""
    row = c if op.thresholds.shape[0] > 1 else 0
    sign = int(op.sign[row])
    around = np.arange(-WINDOW, WINDOW)
    near = (sign * (op.thresholds[row][:, None] + around)).reshape(-1)
    return np.unique(np.clip(np.concatenate([near, [lo, hi]]), lo, hi))


def _compare(op: Threshold, fold: Fold, c: int, integers: NDArray[np.int64]) -> int:
    """Check the codes of some integers of one channel; returns how many needed rationals."""
    row = c if op.thresholds.shape[0] > 1 else 0
    code = np.searchsorted(op.thresholds[row], int(op.sign[row]) * integers, side="right")
    values, margin = _float_values(fold, c, integers)
    targets = fold.function.thresholds.astype(np.float64)
    # A value is doubtful when a threshold lies within its margin: then the codes at both margins differ.
    below = np.searchsorted(targets, values - margin, side="right")
    above = np.searchsorted(targets, values + margin, side="right")
    doubtful = np.flatnonzero(below != above)
    wrong = np.flatnonzero((below == above) & (below != code))
    for i in doubtful:
        if _exact_code(fold, c, int(integers[i])) != code[i]:
            wrong = np.append(wrong, i)
    if wrong.size:
        first = int(wrong[0])
        raise ProofError(
            "a folded threshold gives another code than the exact real chain",
            where=f"{fold.name}, channel {c}",
            got=f"code {int(code[first])} for accumulator {int(integers[first])} ({wrong.size} values wrong)",
            expected=f"code {_exact_code(fold, c, int(integers[first]))}",
        )
    return int(doubtful.size)


def _exact_code(fold: Fold, c: int, integer: int) -> int:
    value = fold.pending.value(c, integer)
    return sum(value >= (t if np.isinf(t) else Fraction(t)) for t in fold.function.thresholds.tolist())


def _float_values(fold: Fold, c: int, integers: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """float64 values of one channel and a bound on their rounding error."""
    p = fold.pending
    magnitude = np.abs(integers * float(p.gain[c])) + abs(float(p.bias[c]))
    for op in p.chain:
        if isinstance(op, Affine):
            magnitude = magnitude * abs(float(op.gain[c])) + abs(float(op.bias[c]))
        elif isinstance(op, PRelu):
            magnitude = magnitude * max(1.0, float(op.slope[c]))
    values = p.float_values(integers[None, :], slice(c, c + 1))[0]
    return values, magnitude * FLOAT_MARGIN + np.finfo(np.float64).tiny


def _prove_coded(op: Rescale, fold: Fold) -> Proof:
    """A saturating rescale is monotone: compare it at T - 1 and T of every exact threshold T."""
    x, p = fold.input_type, fold.pending
    exact = fold_thresholds(p, fold.function, x)
    rows = np.broadcast_to(exact.thresholds, (x.channels, fold.function.n_steps))
    sign = np.broadcast_to(exact.sign, (x.channels,)).astype(np.int64)[:, None]
    first = int(fold.function.levels[0])
    steps = np.arange(1, fold.function.n_steps + 1) + first
    ties = 0
    for at, wanted in ((rows, steps), (rows - 1, steps - 1)):
        lo, hi = np.sort(np.stack([sign[:, 0] * x.lo, sign[:, 0] * x.hi]), axis=0)
        reachable = (at >= lo[:, None]) & (at <= hi[:, None])
        integers = np.clip(at, lo[:, None], hi[:, None]) * sign
        codes = op.evaluate(integers[None])[0]
        off = reachable & (codes < wanted if wanted is steps else codes > wanted)
        _check_ties(fold, off, integers, codes)
        ties += int(off.sum())
    total = int((x.hi - x.lo + 1).sum())
    return Proof(fold.name, total, 2 * rows.size, 0, ties)


def _check_ties(fold: Fold, off: NDArray[np.bool_], integers: NDArray[np.int64], codes: NDArray[np.int64]) -> None:
    """A rescale may only be off where the exact value lies within the stated error of the threshold.

    float64 decides where it is sure, rationals the rest.
    """
    targets = fold.function.thresholds.astype(np.float64)
    allowed = fold.error + 1e-6 * abs(float(fold.function.scale))
    for c in np.flatnonzero(off.any(axis=1)).tolist():
        steps = np.flatnonzero(off[c])
        values, margin = _float_values(fold, c, integers[c, steps])
        for i in steps[np.abs(values - targets[steps]) + margin > allowed].tolist():
            value = fold.pending.value(c, int(integers[c, i]))
            distance = abs(float(value - Fraction(float(targets[i]))))
            if distance > allowed:
                raise ProofError(
                    "a rescaled quantizer is off by more than its stated error",
                    where=f"{fold.name}, channel {c}",
                    got=f"code {int(codes[c, i])} for accumulator {int(integers[c, i])}, "
                    f"{distance:.3g} from the threshold",
                    expected=f"at most {fold.error:.3g}",
                )
