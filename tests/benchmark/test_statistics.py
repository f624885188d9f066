"""Figures from given seconds."""

from __future__ import annotations

import pytest

from qexport.benchmark.statistics import Samples, by_layer, compare

BUSY = [[1.0, 1.0], [1.0, 2.0, 3.0], [1.0]]
OURS = Samples([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [2.0, 2.0, 2.0]], BUSY, [8.0, 2.0, 4.0], [3.0, 1.0, 1.0], 100)
THEIRS = Samples([[4.0, 5.0], [4.0, 12.0], [3.0, 3.0]], [[5.0], [8.0], [7.0]], [40.0, 20.0, 60.0], [2.0, 2.0, 9.0], 250)


def test_medians_and_minima() -> None:
    assert OURS.medians == [2.0, 4.0, 2.0]
    assert (OURS.median, OURS.minimum) == (2.0, 1.0)
    assert THEIRS.medians == [4.5, 8.0, 3.0]
    assert (THEIRS.median, THEIRS.minimum) == (4.0, 3.0)
    assert (OURS.processor_medians, OURS.processor_median) == ([1.0, 2.0, 1.0], 1.0)


def test_ratios_pair_the_rounds() -> None:
    found = compare(OURS, THEIRS)
    assert found.median == 2.0  # of 2.25, 2 and 1.5
    assert found.processor == 5.0  # of 5, 4 and 7
    assert (found.minimum, found.load, found.first, found.memory) == (3.0, 10.0, 2.0, 2.5)


def test_a_disturbed_round_drops_out_of_the_ratio() -> None:
    ours = Samples([[1.0], [100.0], [1.0]], BUSY, [1.0], [1.0], None)
    theirs = Samples([[3.0], [300.0], [3.0]], BUSY, [1.0], [1.0], 5)
    assert compare(ours, theirs).median == 3.0


def test_the_base_is_one_of_itself() -> None:
    found = compare(OURS, OURS)
    assert (found.median, found.minimum, found.load, found.first, found.memory) == (1.0, 1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(("ours", "theirs"), [(None, 5), (5, None), (0, 5)])
def test_unknown_memory_has_no_ratio(ours: int | None, theirs: int | None) -> None:
    base, other = (Samples([[1.0]], [[1.0]], [1.0], [1.0], memory) for memory in (ours, theirs))
    assert compare(base, other).memory is None


def test_unequal_rounds_are_no_pairs() -> None:
    with pytest.raises(ValueError):
        compare(OURS, Samples([[1.0]], [[1.0]], [1.0], [1.0], None))


def test_layers_are_those_of_the_fastest_runs() -> None:
    assert by_layer([{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 4.0}, {"a": 2.0, "b": 9.0}]) == {"a": 1.0, "b": 4.0}
