"""The methods by name: what each remembers of a tensor, and the range it takes from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from qexport.calibration.choices import entropy_range, mse_range, percentile_range
from qexport.calibration.observers import AverageExtremes, Extremes, Histogram, Range
from qexport.errors import OptionError

DEFAULT_METHOD = "mse"
"""Chosen by the table of docs/calibration.md."""

DEFAULT_PERCENTILE = 99.999
"""One value in a hundred thousand is clipped (docs/decisions/003-activation-ranges.md)."""


@dataclass(frozen=True)
class Method:
    """One way to choose the range of an activation's quantizer.

    Attributes:
        summary: what it does, in words.
        observer: makes what remembers one tensor.
        choose: (what was remembered, bits) -> (lo, hi).
        uses_bits: whether the range depends on the bits of the quantizer.
        second_pass: whether the range is then refined on the layers' outputs, with the images once more.
    """

    summary: str
    observer: Callable[[], Extremes]
    choose: Callable[[Extremes, int], Range]
    uses_bits: bool = False
    second_pass: bool = False


def find_method(name: str, percentile: float = DEFAULT_PERCENTILE) -> Method:
    """The method of a name.

    Args:
        name: one of METHOD_NAMES.
        percentile: in (50, 100]; for the method of that name.

    Raises:
        OptionError: unknown method, percentile out of range.
    """
    if name not in METHOD_NAMES:
        raise OptionError(
            "unknown calibration method",
            got=name,
            expected=", ".join(METHOD_NAMES),
        )
    if not 50 < percentile <= 100:
        raise OptionError(
            "the percentile is out of range",
            where="--percentile",
            got=percentile,
            expected="above 50 and at most 100",
            remedy=f"{DEFAULT_PERCENTILE} clips one value in a hundred thousand",
        )
    if name == "percentile":
        summary = f"what {percentile} percent of all values stay within"
        return Method(summary, Histogram, lambda seen, bits: percentile_range(cast(Histogram, seen), percentile))
    return _METHODS[name]


def _average(seen: Extremes, bits: int) -> Range:
    assert isinstance(seen, AverageExtremes)
    return seen.average()


def _mse(seen: Extremes, bits: int) -> Range:
    assert isinstance(seen, Histogram)
    return mse_range(seen, bits)


def _entropy(seen: Extremes, bits: int) -> Range:
    assert isinstance(seen, Histogram)
    return entropy_range(seen, bits)


_METHODS = {
    "max": Method("smallest and largest value", Extremes, lambda seen, bits: seen.span()),
    "average": Method("mean of the images' smallest and largest values", AverageExtremes, _average),
    "entropy": Method("least information lost (Kullback-Leibler divergence)", Histogram, _entropy, uses_bits=True),
    "mse": Method("smallest squared error of the activation", Histogram, _mse, uses_bits=True),
    "output": Method(
        "smallest squared error of the layers that read the activation; reads the images twice",
        Histogram,
        _mse,
        uses_bits=True,
        second_pass=True,
    ),
}
METHOD_NAMES = ("max", "average", "percentile", "entropy", "mse", "output")
