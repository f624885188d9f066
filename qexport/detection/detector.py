"""The description of a detector: its priors and the settings of its post-process, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.errors import OptionError

MAX_PRIORS = 1 << 20
"""Most priors a detector may have; the numbers may come from an untrusted checkpoint."""


@dataclass(frozen=True)
class PriorGrid:
    """Prior boxes of one feature map: at every cell one box of each size. Lengths are fractions of the image.

    Attributes:
        rows, columns: extent of the map.
        step_y, step_x: distance of neighbouring cells; the first cell's centre lies at half of it.
        sizes: (width, height) of the boxes at each cell.
    """

    rows: int
    columns: int
    step_y: float
    step_x: float
    sizes: tuple[tuple[float, float], ...]

    @property
    def n_priors(self) -> int:
        return self.rows * self.columns * len(self.sizes)

    def priors(self) -> NDArray[np.float64]:
        """(cx, cy, w, h) [n_priors, 4]: row by row, cell by cell, size by size."""
        cy = (np.arange(self.rows) + 0.5) * self.step_y
        cx = (np.arange(self.columns) + 0.5) * self.step_x
        boxes = np.empty((self.rows, self.columns, len(self.sizes), 4))
        boxes[..., 0], boxes[..., 1] = cx[None, :, None], cy[:, None, None]
        boxes[..., 2:] = np.array(self.sizes)
        return boxes.reshape(-1, 4)


@dataclass(frozen=True)
class Detector:
    """What turns the heads of a network into boxes; docs/detection.md has the formulas.

    The network gives locations [N, P, 4] and class scores (logits) [N, P, n_classes], in this order; class 0 is the
    background. P priors stand in the order of `grids`.

    Attributes:
        grids: priors, one grid a feature map.
        n_classes: background included.
        variances: scale of the location head: of centre offsets and of log sizes.
        score_threshold: only greater softmax probabilities count.
        iou_threshold: of two boxes of a class that overlap more, the less probable is dropped.
        max_per_class: most boxes of one class in one image.
        max_detections: most boxes in one image.
    """

    grids: tuple[PriorGrid, ...]
    n_classes: int
    variances: tuple[float, float] = (0.1, 0.2)
    score_threshold: float = 0.01
    iou_threshold: float = 0.45
    max_per_class: int = 200
    max_detections: int = 200

    def __post_init__(self) -> None:
        lengths = [v for g in self.grids for v in (g.step_y, g.step_x, *(side for size in g.sizes for side in size))]
        counts = [n for g in self.grids for n in (g.rows, g.columns, len(g.sizes))]
        settings = (*self.variances, self.max_per_class, self.max_detections)
        positive = all(math.isfinite(v) and v > 0 for v in (*lengths, *counts, *settings))
        shares = all(0 <= v < 1 for v in (self.score_threshold, self.iou_threshold))
        if not (self.grids and positive and shares and self.n_classes >= 2 and self.n_priors <= MAX_PRIORS):
            raise OptionError(
                "this describes no detector",
                got=f"{len(self.grids)} grids, {self.n_priors} priors, {self.n_classes} classes, variances "
                f"{self.variances}, thresholds {self.score_threshold}, {self.iou_threshold}",
                expected=f"positive sizes, at most {MAX_PRIORS} priors, a class beside the background, thresholds "
                "from 0 to below 1",
            )

    @property
    def n_priors(self) -> int:
        return sum(grid.n_priors for grid in self.grids)

    def priors(self) -> NDArray[np.float32]:
        """(cx, cy, w, h) of every prior as fractions of the image, float32 [P, 4]."""
        return np.concatenate([grid.priors() for grid in self.grids]).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON and checkpoints."""
        raw = asdict(self)
        raw["grids"] = [{**grid, "sizes": [list(size) for size in grid["sizes"]]} for grid in raw["grids"]]
        return {**raw, "variances": list(self.variances)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Detector:
        """Inverse of `to_dict`.

        Raises:
            OptionError: the values describe no detector.
        """
        try:
            values = dict(raw)
            grids = tuple(_grid(grid) for grid in values.pop("grids"))
            variances = tuple(float(v) for v in values.pop("variances"))
            whole = {f.name for f in fields(cls) if f.type == "int"}
            numbers = {key: int(v) if key in whole else float(v) for key, v in values.items()}
            if len(variances) != 2:
                raise ValueError(f"{len(variances)} variances")
            return cls(grids=grids, variances=(variances[0], variances[1]), **numbers)  # type: ignore[arg-type]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise OptionError("the description of the detector cannot be read", got=error) from error


def _grid(raw: Mapping[str, Any]) -> PriorGrid:
    sizes = tuple((float(w), float(h)) for w, h in raw["sizes"])
    return PriorGrid(int(raw["rows"]), int(raw["columns"]), float(raw["step_y"]), float(raw["step_x"]), sizes)
