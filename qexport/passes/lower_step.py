"""Lowering of quantizers: thresholds on the integers, or a saturating rescale where there are many uniform steps."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from qexport.ir import Node
from qexport.ops import Affine, Clip, PRelu, Step
from qexport.passes.fixed import Carrier
from qexport.passes.fixedpoint import fit_rescale
from qexport.passes.folding import Fold, fold_thresholds
from qexport.passes.pending import Pending, rationals
from qexport.stepfunction import StepFunction

MAX_COMPARISONS = 15
"""Above this many steps a uniform quantizer is computed by a rescale (measured: docs/decisions/)."""


ROUNDING_ULPS = 4
"""float32 steps a threshold may lie off the middle of its levels: the rounding of x / scale and of the scale itself
leave up to two. The distance is part of the claimed error."""


def lower_step(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Fold a quantizer behind what its input owes; its output is exact integers times the quantizer's scale."""
    assert isinstance(node.op, Step)
    (state,) = sources
    function = node.op.function
    coded = function.n_steps > MAX_COMPARISONS and _is_rounding(function)
    error = state.error * lipschitz(state)
    if coded:
        state = _without_chain(carrier, node, state, function)
        x = carrier.out.types[state.tensor]
        scale = rationals([function.scale], x.channels)
        lo, hi = int(function.levels[0]), int(function.levels[-1])
        op, units = fit_rescale(state, x, scale, lo=lo, hi=hi)
        carrier.out.add(node.name, op, state.tensor, source=node.source)
        # The rounding of the rescale is the quantizer itself; what remains is the error of the multipliers.
        error = state.error + max(units - 0.5, 0.0) * float(function.scale) + _off_middle(function)
    else:
        x = carrier.out.types[state.tensor]
        carrier.out.add(node.name, fold_thresholds(state, function, x), state.tensor, source=node.source)
    carrier.folds[node.name] = Fold(node.name, state, function, x, coded, error)
    channels = carrier.real.types[node.name].channels
    scale = rationals([function.scale], channels)
    return Pending(node.name, scale, scale * 0)


def lipschitz(state: Pending) -> float:
    """How much the chain can enlarge an error: the product of the largest slopes of its functions."""
    factor = 1.0
    for op in state.chain:
        if isinstance(op, Affine):
            factor *= max(abs(float(g)) for g in op.gain)
        elif isinstance(op, PRelu):
            factor *= max(1.0, *(float(s) for s in op.slope))
    return factor


def _is_rounding(function: StepFunction) -> bool:
    """Whether the thresholds are (level - 1/2) * scale of consecutive levels."""
    levels = function.levels.astype(np.float64)
    middles = (levels[1:] - 0.5) * float(function.scale)
    close = np.abs(function.thresholds - middles) <= ROUNDING_ULPS * np.spacing(np.abs(function.thresholds))
    return bool(np.all(np.diff(levels) == 1) and np.all(close))


def _off_middle(function: StepFunction) -> float:
    """How far float32 rounding moved a threshold from the middle between its levels."""
    pairs = zip(function.thresholds.tolist(), function.levels[1:].tolist(), strict=True)
    return float(max(abs(Fraction(t) - (level - Fraction(1, 2)) * function.scale) for t, level in pairs))


def _without_chain(carrier: Carrier, node: Node, state: Pending, function: StepFunction) -> Pending:
    """Drop a ReLU that the saturation of the codes repeats; settle any other chain."""
    if not state.chain:
        return state
    (only, *more) = state.chain
    if not more and isinstance(only, Clip) and only.lo == 0 and only.hi is None and function.levels[0] == 0:
        return replace(state, chain=())
    return carrier.fixed(node.inputs[0], carrier.own_step(node.inputs[0]))
