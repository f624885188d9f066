"""StepFunction and the recovery of integer levels from float32 values."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexport.errors import FreezeError
from qexport.stepfunction import LEVEL_TOLERANCE, StepFunction, float32_at_least, recover_levels

SCALES = st.floats(2.0**-20, 2.0**20, width=32)


def float32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("values", "levels", "scale"),
    [
        ([-1.0, 0.0, 1.0], [-1, 0, 1], Fraction(1)),
        ([-1.0, -1 / 3, 1 / 3, 1.0], [-3, -1, 1, 3], Fraction(1, 3)),
        ([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], [-4, -2, -1, 0, 1, 2, 4], Fraction(1, 2)),
        ([0.0, 0.25, 0.5, 0.75], [0, 1, 2, 3], Fraction(1, 4)),
        ([0.0, 0.2, 0.4, 0.8, 1.0], [0, 1, 2, 4, 5], Fraction(1, 5)),
        ([-6.0, 4.0], [-3, 2], Fraction(2)),
        ([-5.0], [-1], Fraction(5)),
        ([0.0, 0.0], [0, 0], Fraction(1)),
    ],
)
def test_levels_of_known_schemes(values: list[float], levels: list[int], scale: Fraction) -> None:
    found = recover_levels(float32(*values))
    assert found is not None
    assert found[0].tolist() == levels
    assert found[1] == scale


@pytest.mark.parametrize("values", [[0.1234, 0.7771, 1.0], [1.0, 1.0 + 1e-4], [1.0, 0.001]])
def test_values_without_common_step(values: list[float]) -> None:
    assert recover_levels(float32(*values)) is None


@given(st.sets(st.integers(-127, 127), min_size=1, max_size=16), SCALES)
def test_recovered_levels_reproduce_the_values(levels: set[int], scale: float) -> None:
    values = np.array(sorted(levels), np.float32) * np.float32(scale)
    found = recover_levels(values)
    assert found is not None
    reproduced = found[0] * float(found[1])
    assert np.all(np.abs(values - reproduced) <= LEVEL_TOLERANCE * np.abs(values).max())


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8, unique=True),
    st.floats(width=32, allow_nan=False),
)
def test_code_counts_the_thresholds_at_or_below(thresholds: list[float], x: float) -> None:
    ordered = float32(*sorted(thresholds))
    step = StepFunction.from_values(ordered, np.arange(ordered.size + 1, dtype=np.float32))
    assert step.codes(float32(x))[0] == sum(np.float32(x) >= t for t in ordered)


def test_negative_zero_and_subnormals_compare_as_numbers() -> None:
    step = StepFunction.from_values(float32(0.0, 1e-45), float32(-1.0, 0.0, 1.0))
    assert step(float32(-1e-45, -0.0, 0.0, 1e-45)).tolist() == [-1.0, 0.0, 0.0, 1.0]


def test_constant() -> None:
    step = StepFunction.from_values(float32(), float32(3.0))
    assert (step.n_steps, step.bits, step.levels.tolist(), step.scale) == (0, 1, [1], Fraction(3))
    assert step(float32(-np.inf, 0.0, np.inf)).tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("values", "levels", "offset"),
    [
        (np.arange(256) / 255, np.arange(256), 0.0),
        (np.arange(-128, 128) * 0.37, np.arange(-128, 128), 0.0),
        (np.arange(256)[::-1] * 0.5, np.arange(256)[::-1], 0.0),
        (np.array([0.3, 1.3, 2.3]) * np.pi, [0, 1, 2], 0.3 * np.pi),
        (np.array([2.3, 1.3, 0.3]) * np.pi, [2, 1, 0], 0.3 * np.pi),
    ],
    ids=["uint8", "int8", "falling uint8", "offset", "falling with offset"],
)
def test_levels_of_a_byte_and_offsets(values: np.ndarray, levels: list[int], offset: float) -> None:
    values = np.asarray(values, np.float32)
    step = StepFunction.from_values(np.arange(values.size - 1, dtype=np.float32), values)
    if offset:
        step_of_scheme = (step.levels.tolist(), float(step.offset))
        # 0.3, 1.3, 2.3 also are the integers 3, 13, 23; either form is exact.
        assert step_of_scheme in (
            (list(levels), float(np.float32(offset))),
            ([3, 13, 23][:: levels[1] - levels[0]], 0.0),
        )
    else:
        assert np.array_equal(step.levels, levels)
        assert step.offset == 0
    reproduced = step.levels * float(step.scale) + float(step.offset)
    assert np.all(np.abs(reproduced - values) <= 2 * LEVEL_TOLERANCE * np.abs(values).max())


@pytest.mark.parametrize(
    ("thresholds", "values", "message"),
    [
        ([0.0], [1.0], "do not fit together"),
        ([1.0, 1.0], [0.0, 1.0, 2.0], "strictly ascending"),
        ([np.nan], [0.0, 1.0], "strictly ascending"),
        ([0.0], [0.0, np.inf], "values finite"),
        ([0.0, 1.0], [0.0, 1.0, 0.0], "all rise or all fall"),
        ([0.0, 1.0], [0.0, 0.0, 1.0], "all rise or all fall"),
        ([0.0, 1.0, 2.0], [0.0, 0.1234, 0.7771, 1.0], "no small integers"),
    ],
)
def test_refusals_name_the_quantizer(thresholds: list[float], values: list[float], message: str) -> None:
    with pytest.raises(FreezeError, match=message) as error:
        StepFunction.from_values(float32(*thresholds), float32(*values), "block.quan0")
    assert str(error.value).startswith("block.quan0: ")


@given(SCALES, st.integers(-128, 0), st.integers(1, 127))
def test_uniform_thresholds_are_the_smallest_floats_of_their_step(scale: float, first: int, last: int) -> None:
    step = StepFunction.uniform(Fraction(scale), first, last)
    assert step.levels.tolist() == list(range(first, last + 1))
    for level, threshold in zip(step.levels[1:].tolist(), step.thresholds, strict=True):
        middle = Fraction(scale) * (2 * level - 1) / 2
        below = np.nextafter(threshold, np.float32(-np.inf))
        assert Fraction(float(below)) < middle <= Fraction(float(threshold))


@given(st.fractions(-(10**9), 10**9))
def test_float32_at_least(exact: Fraction) -> None:
    x = float32_at_least(exact)
    assert Fraction(float(np.nextafter(x, np.float32(-np.inf)))) < exact <= Fraction(float(x))
