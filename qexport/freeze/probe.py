"""Exact thresholds of any monotone, piecewise constant module, by bisection over the float32 numbers.

docs/arithmetic.md eq. 1 defines the step function; DESIGN 4.1 is the promise kept here: nothing is known about the
module but its outputs, and every threshold is the exact float32 at which they change.
"""

from __future__ import annotations

from functools import cache
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from torch import nn

from qexport.errors import FreezeError
from qexport.freeze.float_keys import INFINITY_KEY, floats_of_keys, keys_of_floats
from qexport.freeze.scalar_module import STEP_OR_FLOAT, ScalarModule, check_elementwise, evaluation_mode, single_thread
from qexport.stepfunction import StepFunction

MAX_VALUES = 256
"""Most distinct outputs a step function may have: codes are at most 8 bits."""

SWEEP_KEY_GAP = 2**15
"""Distance of the sweep's keys: 256 points per octave, 131,000 in all."""

RADIUS = 64
"""How many floats on each side of a threshold are compared with the module."""

APART = 2**10
"""Floats between a threshold and the inputs that test every position of a tensor."""

N_RANDOM = 2**17
"""Random inputs of each of the two kinds (any float32, and near the thresholds) compared with the module."""

VALUE_ITSELF = (
    "in eval mode return the quantized value itself; x + (quantized - x).detach() is no step function, "
    "because its rounding depends on x. Or leave the module out of the quantizers: its layer is then treated as float"
)


def probe(quantizer: nn.Module, example_shape: tuple[int, ...], name: str) -> StepFunction:
    """The step function that `quantizer` is in evaluation mode, equal for every float32.

    The module is evaluated on a sweep over all float32; wherever two neighbours of the sweep differ, bisection goes on
    until the neighbours are adjacent floats. As equal ends of an interval mean a constant in between, for a
    monotone module no step can be missed, however narrow. The result is then compared with the module on fresh inputs.
    An output -0.0 becomes 0.0, which compares equal.

    Args:
        quantizer: an elementwise module float32 -> float32; its mode and state are left as they were.
        example_shape: shape of its input in the network, batch first; the rank decides how parameters broadcast.
        name: of the quantizer, for messages.

    Raises:
        FreezeError: with a counter-example, if the module is random, not elementwise, not monotone, has more than
            MAX_VALUES distinct outputs, or an output that is NaN or infinite.
    """
    with evaluation_mode(quantizer), single_thread():
        function = ScalarModule(quantizer, example_shape, name)
        check_elementwise(function)
        keys = _sweep_keys()
        values = function(floats_of_keys(keys))
        _check_sweep(floats_of_keys(keys), values, name)
        threshold_keys, step_values = _bisect(function, keys, values)
        # Adding 0.0 turns -0.0 into 0.0.
        step = StepFunction.from_values(floats_of_keys(threshold_keys), step_values + np.float32(0), name)
        _verify(function, step)
        return step


@cache
def _sweep_keys() -> NDArray[np.int64]:
    """Keys from -inf to +inf, ascending, with the ends, both largest finite floats, 0 and its two neighbours."""
    inner = np.arange(-INFINITY_KEY + 1, INFINITY_KEY, SWEEP_KEY_GAP, dtype=np.int64)
    special = np.array([-INFINITY_KEY, -1, 0, 1, INFINITY_KEY - 1, INFINITY_KEY], np.int64)
    return np.union1d(inner, special)


def _check_sweep(x: NDArray[np.float32], values: NDArray[np.float32], name: str) -> None:
    """Refuse what the sweep alone can show; the finite inputs first, as their counter-examples say more."""
    finite = slice(1, -1)
    _refuse_nan(x[finite], values[finite], name)
    _refuse_not_monotone(x[finite], values[finite], name)
    changes = np.flatnonzero(values[:-1] != values[1:])
    if changes.size >= MAX_VALUES:
        i = changes[changes.size // 2]
        raise FreezeError(
            "the quantizer is not piecewise constant",
            where=name,
            got=f"over {changes.size} outputs, such as f({x[i]}) = {values[i]} and f({x[i + 1]}) = {values[i + 1]}",
            expected=f"at most {MAX_VALUES} distinct outputs in eval mode",
            remedy=VALUE_ITSELF,
        )
    _refuse_nan(x, values, name)
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        i = infinite[0]
        raise FreezeError(
            "the quantizer has an infinite output",
            where=name,
            got=f"f({x[i]}) = {values[i]}",
            expected="finite levels",
            remedy=STEP_OR_FLOAT,
        )
    _refuse_not_monotone(x, values, name)


def _refuse_nan(x: NDArray[np.float32], values: NDArray[np.float32], name: str) -> None:
    nan = np.flatnonzero(np.isnan(values))
    if nan.size:
        raise FreezeError(
            "the quantizer's output is NaN",
            where=name,
            got=f"f({x[nan[0]]}) = nan",
            expected="a level for every input, infinities included",
            remedy="check its parameters for NaN, and clamp the input before anything else is computed from it",
        )


def _refuse_not_monotone(x: NDArray[np.float32], values: NDArray[np.float32], name: str) -> None:
    """`x` ascending."""
    rising = np.flatnonzero(values[:-1] < values[1:])
    falling = np.flatnonzero(values[:-1] > values[1:])
    if rising.size and falling.size:
        _raise_not_monotone([(x[i + k], values[i + k]) for i in sorted([rising[0], falling[0]]) for k in (0, 1)], name)


def _raise_not_monotone(points: list[tuple[np.float32, np.float32]], name: str) -> NoReturn:
    raise FreezeError(
        "the quantizer is not monotone",
        where=name,
        got=", ".join(f"f({x}) = {y}" for x, y in dict(points).items()),
        expected="outputs that never fall, or never rise, as the input grows",
        remedy=VALUE_ITSELF,
    )


def _bisect(
    function: ScalarModule, keys: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Narrow every interval with unequal ends to adjacent floats, all intervals at once.

    Args:
        keys: int64 [m], ascending.
        values: float32 [m], the outputs there, monotone.

    Returns:
        (threshold keys int64 [n] ascending, values float32 [n + 1]).
    """
    first = values[:1]
    changed = np.flatnonzero(values[:-1] != values[1:])
    low, high = keys[changed], keys[changed + 1]
    f_low, f_high = values[changed], values[changed + 1]
    while np.any(wide := high - low > 1):
        # An interval that is already narrow keeps its low end as middle: one half is empty, the other itself.
        middle, f_middle = (low + high) // 2, f_low.copy()
        f_middle[wide] = function(floats_of_keys(middle[wide]))
        inside = (np.minimum(f_low, f_high) <= f_middle) & (f_middle <= np.maximum(f_low, f_high))
        if not inside.all():
            i = np.flatnonzero(~inside)[0]
            x = floats_of_keys(np.array([low[i], middle[i], high[i]]))
            _raise_not_monotone(list(zip(x, (f_low[i], f_middle[i], f_high[i]), strict=True)), function.name)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        f_low, f_high = np.concatenate([f_low, f_middle]), np.concatenate([f_middle, f_high])
        unequal = f_low != f_high
        low, high, f_low, f_high = low[unequal], high[unequal], f_low[unequal], f_high[unequal]
        if low.size >= MAX_VALUES:
            raise FreezeError(
                "the quantizer is not piecewise constant",
                where=function.name,
                got=f"over {low.size} outputs, the last found near input {floats_of_keys(high[-1:])[0]}",
                expected=f"at most {MAX_VALUES} distinct outputs in eval mode",
                remedy=VALUE_ITSELF,
            )
    order = np.argsort(high)
    return high[order], np.concatenate([first, f_high[order]])


def _verify(function: ScalarModule, step: StepFunction) -> None:
    """Compare `step` with the module where it matters most and on random inputs; see the module's constants."""
    largest = np.finfo(np.float32).max
    special = np.array([-largest, -1e-38, -1e-45, -0.0, 0.0, 1e-45, 1e-38, largest, -np.inf, np.inf], np.float32)
    near = _around(step.thresholds, np.arange(-RADIUS, RADIUS + 1))
    x = np.concatenate([special, near, _random_floats(), _random_near(step.thresholds)])
    _refuse_disagreement(step, x, function(x), function.name)
    # In the network's shape some elements fall to scalar code, whose exp may move a threshold by a float or two.
    x, values = function.in_network_shape(_around(step.thresholds, np.array([-APART, APART])))
    _refuse_disagreement(step, x, values, function.name)


def _around(thresholds: NDArray[np.float32], key_distances: NDArray[np.int64]) -> NDArray[np.float32]:
    """The floats at these distances from each threshold, and 0; sorted, without repetition."""
    keys = keys_of_floats(thresholds)[:, None] + key_distances
    return floats_of_keys(np.unique(np.append(keys.clip(-INFINITY_KEY, INFINITY_KEY), 0)))


@cache
def _random_floats() -> NDArray[np.float32]:
    """Finite float32 of every magnitude, the same in every run."""
    return floats_of_keys(np.random.default_rng(1).integers(-INFINITY_KEY + 1, INFINITY_KEY, N_RANDOM))


def _random_near(thresholds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Uniform over the finite thresholds and as far again on either side."""
    finite = thresholds[np.isfinite(thresholds)].astype(np.float64)
    low, high = (finite[0], finite[-1]) if finite.size else (0.0, 0.0)
    margin = max(high - low, abs(low), abs(high), float(np.finfo(np.float32).tiny))
    largest = float(np.finfo(np.float32).max)
    unit = np.random.default_rng(2).random(N_RANDOM)
    near = np.clip((low - margin) + unit * (high - low + 2 * margin), -largest, largest)
    return np.asarray(near, np.float32)


def _refuse_disagreement(step: StepFunction, x: NDArray[np.float32], values: NDArray[np.float32], name: str) -> None:
    frozen = step(x)
    wrong = np.flatnonzero(values != frozen)
    if wrong.size:
        i = wrong[0]
        raise FreezeError(
            "the quantizer is no step function of its input: it is not monotone, or distinguishes -0.0 from 0.0",
            where=name,
            got=f"f({x[i]}) = {values[i]} ({wrong.size} such inputs of {x.size})",
            expected=f"{frozen[i]}, as its thresholds {step.thresholds.tolist()[:8]} say",
            remedy=STEP_OR_FLOAT,
        )
