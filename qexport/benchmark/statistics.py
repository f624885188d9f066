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
        processor: the same of processor time, all threads together: with one thread the time of a core that does
            nothing else.
        loads, firsts: opening the file, and the first run after it, time after time; at first in a fresh process.
        memory: bytes; None where the system does not tell.
    """

    rounds: list[list[float]]
    processor: list[list[float]]
    loads: list[float]
    firsts: list[float]
    memory: int | None

    @property
    def medians(self) -> list[float]:
        """Of each round."""
        return list(map(median, self.rounds))

    @property
    def processor_medians(self) -> list[float]:
        """Of each round, processor time."""
        return list(map(median, self.processor))

    @property
    def median(self) -> float:
        """Of all runs."""
        return median([seconds for runs in self.rounds for seconds in runs])

    @property
    def processor_median(self) -> float:
        """Of all runs, processor time."""
        return median([seconds for runs in self.processor for seconds in runs])

    @property
    def minimum(self) -> float:
        return min(seconds for runs in self.rounds for seconds in runs)


@dataclass(frozen=True)
class Ratios:
    """How many times as long, or as much, another engine takes.

    Attributes:
        median: of the rounds' ratios of medians: what disturbs a whole round disturbs both and drops out.
        processor: the same of processor time, which other programs on the machine hardly touch.
        minimum: of the fastest runs.
        load, first: of the medians.
        memory: None where it is not known.
    """

    median: float
    processor: float
    minimum: float
    load: float
    first: float
    memory: float | None


def compare(base: Samples, other: Samples) -> Ratios:
    """Ratios of another engine to the base; both have as many rounds."""
    return Ratios(
        median=paired(base.medians, other.medians),
        processor=paired(base.processor_medians, other.processor_medians),
        minimum=other.minimum / base.minimum,
        load=median(other.loads) / median(base.loads),
        first=median(other.firsts) / median(base.firsts),
        memory=None if not base.memory or other.memory is None else other.memory / base.memory,
    )


def paired(base: Sequence[float], other: Sequence[float]) -> float:
    """The median of the ratios of two engines, round by round."""
    return median([theirs / ours for ours, theirs in zip(base, other, strict=True)])


def by_layer(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds of each group of operators in its fastest run, as the peak beside it is the fastest."""
    return {name: min(run[name] for run in runs) for name in runs[0]}
