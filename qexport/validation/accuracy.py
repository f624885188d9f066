"""Running accuracy and agreement of the levels of one network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb

import numpy as np
from numpy.typing import NDArray

from qexport.validation.report import LevelResult

TOP_K = 5


def ranked(logits: NDArray) -> NDArray[np.int64]:
    """Classes by falling logit, ties to the lower index: [N, min(K, 5)]."""
    return np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :TOP_K]


@dataclass
class Accuracy:
    """Predictions of every level, gathered batch by batch.

    Attributes:
        n_classes: of the network.
        labels: one an image, or None.
        predictions: level -> list of [n, k] ranked classes, in order of the levels.
    """

    n_classes: int
    labels: NDArray[np.int64] | None = None
    predictions: dict[str, list[NDArray]] = field(default_factory=dict)

    def add(self, level: str, outputs: Sequence[NDArray]) -> None:
        """Outputs of a batch; the first is the logits [n, n_classes]."""
        self.predictions.setdefault(level, []).append(ranked(outputs[0]))

    def results(self) -> list[LevelResult]:
        """One row a level, in the order they were first added."""
        labels = self.labels
        ranks = {level: np.concatenate(parts) for level, parts in self.predictions.items()}
        rows: list[LevelResult] = []
        above: NDArray | None = None
        for level, rank in ranks.items():
            top1 = top5 = p_value = None
            if labels is not None:
                top1 = percent(rank[:, 0] == labels)
                if level != "frozen":
                    p_value = mcnemar(ranks["frozen"][:, 0] == labels, rank[:, 0] == labels)
                top5 = percent((rank == labels[:, None]).any(1)) if self.n_classes > TOP_K else None
            agreement = None if above is None else percent(rank[:, 0] == above)
            same = percent(rank[:, 0] == ranks["frozen"][:, 0])
            rows.append(LevelResult(level, top1, top5, agreement, same, p_value))
            above = rank[:, 0]
        return rows

    def changed(self, names: tuple[str, ...] | None, most: int = 10) -> list[tuple[str, str, int]]:
        """Predictions that differ between the frozen and the integer network: (frozen, integer, count)."""
        pairs = Counter[tuple[int, int]]()
        for before, after in zip(self.predictions["frozen"], self.predictions["integer"], strict=True):
            moved = before[:, 0] != after[:, 0]
            pairs.update(zip(before[moved, 0].tolist(), after[moved, 0].tolist(), strict=True))

        def name(index: int) -> str:
            return names[index] if names is not None and index < len(names) else str(index)

        return [(name(a), name(b), count) for (a, b), count in pairs.most_common(most)]


def percent(flags: NDArray[np.bool_]) -> float:
    """Share of true values, in percent."""
    return 100.0 * float(np.mean(flags)) if flags.size else 0.0


def mcnemar(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test: could the two networks be equally accurate?

    Args:
        before, after: [N], whether each image was classified correctly.

    Returns:
        probability of at least so uneven a split of the images that one of them gets right and the other wrong.
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    tail = sum(comb(lost + won, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2 ** (lost + won))
