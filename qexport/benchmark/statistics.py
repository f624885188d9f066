"""From seconds of interleaved runs to figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Samples:
    """Seconds of one engine.

    Attributes:
        rounds: for each round, its runs.
        loads, firsts: opening the file, and the first run after it, time after time; at first in a fresh process.
        memory: bytes; None where the system does not tell.
    """

    rounds: list[list[float]]
    loads: list[float]
    firsts: list[float]
    memory: int | None

    @property
    def medians(self) -> list[float]:
        """Of each round."""
        return [median(runs) for runs in self.rounds]

    @property
    def median(self) -> float:
        """Of all runs."""
        return median([seconds for runs in self.rounds for seconds in runs])

    @property
    def minimum(self) -> float:
        return min(seconds for runs in self.rounds for seconds in runs)


@dataclass(frozen=True)
class Ratios:
    """How many times as long, or as much, another engine takes.

    Attributes:
        median: of the rounds' ratios of medians: what disturbs a whole round disturbs both and drops out.
        minimum: of the fastest runs.
        load, first: of the medians.
        memory: None where it is not known.
    """

    median: float
    minimum: float
    load: float
    first: float
    memory: float | None


def compare(base: Samples, other: Samples) -> Ratios:
    """Ratios of another engine to the base; both have as many rounds."""
    pairs = zip(base.medians, other.medians, strict=True)
    return Ratios(
        median=median([theirs / ours for ours, theirs in pairs]),
        minimum=other.minimum / base.minimum,
        load=median(other.loads) / median(base.loads),
        first=median(other.firsts) / median(base.firsts),
        memory=None if not base.memory or other.memory is None else other.memory / base.memory,
    )


def by_layer(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median seconds of each group of operators."""
    return {name: median([run[name] for run in runs]) for name in runs[0]}
