"""Accuracy of levels, and the test that says whether a difference is more than chance."""

from __future__ import annotations

import numpy as np
import pytest

from qexport.validation.accuracy import Accuracy, mcnemar


@pytest.mark.parametrize(
    ("lost", "won", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (6, 0, 2 / 64),
        (3, 3, 1.0),
        (7, 1, 2 * 9 / 256),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int, expected: float) -> None:
    before = np.array([True] * lost + [False] * won + [True] * 7 + [False] * 3)
    after = np.array([False] * lost + [True] * won + [True] * 7 + [False] * 3)
    assert mcnemar(before, after) == expected


def test_levels_are_held_against_the_frozen_network() -> None:
    accuracy = Accuracy(2, np.array([0, 1, 1, 0, 1, 0]))
    right = np.eye(2)[[0, 1, 1, 0, 1, 0]]
    accuracy.add("float", [right])
    accuracy.add("frozen", [right])
    accuracy.add("integer", [1 - right])
    soft, frozen, integer = accuracy.results()
    assert (soft.top1, soft.p_value) == (100.0, 1.0)
    assert (frozen.top1, frozen.p_value) == (100.0, None)
    assert (integer.top1, integer.agreement_frozen, integer.p_value) == (0.0, 0.0, 2 / 64)
    assert accuracy.changed(("cat", "dog")) == [("cat", "dog", 3), ("dog", "cat", 3)]


def test_without_labels_there_is_no_p_value() -> None:
    accuracy = Accuracy(3)
    accuracy.add("frozen", [np.eye(3)])
    accuracy.add("integer", [np.eye(3)])
    assert [level.p_value for level in accuracy.results()] == [None, None]
