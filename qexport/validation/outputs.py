"""Every output of a network with several of them, level against level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qexport.validation.report import OutputResult


@dataclass
class _Sums:
    largest: float = 0.0
    signal: float = 0.0
    noise: float = 0.0


@dataclass
class OutputDifferences:
    """Differences from the frozen network, gathered batch by batch.

    Attributes:
        names: of the outputs, in order.
    """

    names: Sequence[str]
    sums: dict[tuple[str, str], _Sums] = field(default_factory=dict)

    def add(self, level: str, outputs: Sequence[NDArray], frozen: Sequence[NDArray]) -> None:
        """Real values of one batch; both in the order of `names`."""
        for name, found, expected in zip(self.names, outputs, frozen, strict=True):
            sums = self.sums.setdefault((name, level), _Sums())
            expected = expected.astype(np.float64)
            error = found - expected
            sums.largest = max(sums.largest, float(np.abs(error).max(initial=0.0)))
            sums.signal += float((expected**2).sum())
            sums.noise += float((error**2).sum())

    def results(self) -> list[OutputResult]:
        """Output by output, level by level."""
        levels = list(dict.fromkeys(level for _, level in self.sums))
        return [_result(name, level, self.sums[name, level]) for name in self.names for level in levels]


def _result(name: str, level: str, sums: _Sums) -> OutputResult:
    sqnr = None
    if sums.signal > 0:
        sqnr = 10 * math.log10(sums.signal / sums.noise) if sums.noise > 0 else math.inf
    return OutputResult(name, level, sums.largest, sqnr)
