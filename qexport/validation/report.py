"""What a validation found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from qexport.validation.detection import MeanAveragePrecision


@dataclass(frozen=True)
class LevelResult:
    """Accuracy of one level of the network.

    Attributes:
        name: "float", "frozen", "edge-quantized", "integer", or an artifact's file name.
        top1, top5: percent, None without labels (top5 also below six classes).
        agreement: percent of images with the argmax of the level above, None for the first.
        agreement_frozen: percent of images with the argmax of the frozen network.
        p_value: of McNemar's exact test against the frozen network's top-1; None for itself and without labels.
        mean_ap: of a detector, whose top1 and top5 are None; None without objects. Its agreements are shares of the
            boxes with a score above one half that both networks find (qexport.validation.detection.agreement).
    """

    name: str
    top1: float | None
    top5: float | None
    agreement: float | None
    agreement_frozen: float | None
    p_value: float | None = None
    mean_ap: MeanAveragePrecision | None = None


@dataclass(frozen=True)
class LayerResult:
    """Codes of one quantizer, integer against edge-quantized float and against frozen, over all images.

    Attributes:
        name: the quantizer.
        codes: how many were compared.
        differing: how many differ in the free-running networks.
        ties: of those, how many differ for equal codes upstream, with the real value within the bound of a threshold.
        propagated: of those, how many the integer network got right for its own codes upstream.
        unexplained: codes that differ for equal codes upstream by more than the bound; always a bug.
        bound: proven error of the compared value plus float tolerance, real units.
        largest: largest distance of a tied value from its threshold.
        frozen_differing: codes that differ from the frozen network's; 0 for a calibrated quantizer, which it has not.
        edges: of those, how many the edges moved over a threshold for equal codes upstream: weights of float layers
            that were rounded, and calibrated quantizers. The others are ties or propagated.
    """

    name: str
    codes: int
    differing: int
    ties: int
    propagated: int
    unexplained: int
    bound: float
    largest: float
    frozen_differing: int = 0
    edges: int = 0


@dataclass(frozen=True)
class FixedPointResult:
    """A tensor carried as fixed point, against its real value for equal codes upstream.

    Attributes:
        largest_error, bound: real units; an error beyond the bound is unexplained.
        unexplained, saturated: values beyond the bound, and values at the ends of a 16-bit stream.
        sqnr_db, cosine: against the free-running float network; None for a zero signal, inf where equal.
    """

    name: str
    step: float
    bits: int
    largest_error: float
    bound: float
    unexplained: int
    saturated: int
    sqnr_db: float | None
    cosine: float | None


@dataclass(frozen=True)
class OutputResult:
    """One output of one level against the frozen network's, over all images; of networks with several outputs.

    Attributes:
        output: its name.
        level: as in LevelResult.
        largest: largest difference, real units.
        sqnr_db: None for a zero signal, inf where equal.
    """

    output: str
    level: str
    largest: float
    sqnr_db: float | None


@dataclass(frozen=True)
class ArtifactResult:
    """An artifact against the integer reference.

    Attributes:
        exact: whether the artifact promises equality (integer artifacts do, QDQ does not).
        tensors: how many layer outputs were compared, on `images_all_tensors` images and every path.
        images: images whose final outputs were compared, on the fastest path or paths.
        differing: names of tensors, with the path, that have any difference, with counts.
        paths: the ways in which the file was run: optimized or not, instruction sets and threads.
    """

    file: str
    exact: bool
    tensors: int
    images_all_tensors: int
    images: int
    differing: dict[str, int]
    paths: list[str]


@dataclass(frozen=True)
class Report:
    """Result of `validate`; `passed` decides the exit status.

    Attributes:
        changed: (frozen class, integer class, count) of images whose prediction changed, most frequent first.
        failures: one sentence per reason not to pass.
        notes: remarks, such as a level that could not be evaluated.
        outputs: every output of every level, where a network has several.
        detects: whether the network finds objects: levels have a mean_ap instead of top-1.
    """

    images: int
    labelled: bool
    levels: list[LevelResult]
    layers: list[LayerResult]
    fixed_points: list[FixedPointResult]
    artifacts: list[ArtifactResult]
    changed: list[tuple[str, str, int]]
    proof: dict[str, int]
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outputs: list[OutputResult] = field(default_factory=list)
    detects: bool = False

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def unexplained(self) -> int:
        """Differences that are neither a tie nor inside a bound."""
        return sum(r.unexplained for r in self.layers) + sum(r.unexplained for r in self.fixed_points)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with `passed` and `unexplained`."""
        return {"passed": self.passed, "unexplained": self.unexplained, **asdict(self)}
