"""Detections of the levels of one network: mean average precision, and which boxes they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy.typing import NDArray

from qexport.datasets import Objects
from qexport.detection import Detections, Detector, post_process
from qexport.validation.detection import agreement, mean_average_precision
from qexport.validation.report import LevelResult


@dataclass
class DetectionLevels:
    """Boxes of every level, gathered batch by batch.

    Attributes:
        detector: how heads become boxes.
        truth: what there is to find in each image, or None.
        found: level -> one entry an image.
    """

    detector: Detector
    truth: Sequence[Objects] | None = None
    found: dict[str, list[Detections]] = field(default_factory=dict)

    def add(self, level: str, outputs: Sequence[NDArray]) -> None:
        """Heads of a batch, real values: locations [n, P, 4], then scores [n, P, classes]."""
        locations, scores = outputs
        self.add_detections(level, post_process(locations, scores, self.detector))

    def add_detections(self, level: str, found: list[Detections]) -> None:
        self.found.setdefault(level, []).extend(found)

    def results(self) -> list[LevelResult]:
        """One row a level, in the order they were first added."""
        rows: list[LevelResult] = []
        above: list[Detections] | None = None
        for level, found in self.found.items():
            precision = None if self.truth is None else mean_average_precision(found, self.truth)
            shared = None if above is None else agreement(found, above)
            same = agreement(found, self.found["frozen"])
            rows.append(LevelResult(level, None, None, shared, same, mean_ap=precision))
            above = found
        return rows

    def changed(self, names: tuple[str, ...] | None) -> list[tuple[str, str, int]]:
        """Nothing: what one network finds and the other does not is no confusion of classes."""
        return []
