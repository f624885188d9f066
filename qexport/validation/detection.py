"""Mean average precision of detectors, in the ways of Pascal VOC and of COCO.

VOC (Everingham et al., IJCV 2010): a detection is compared with the object of its class it overlaps most and counts if
that overlap is at least 0.5 and the object was not found before. AP is the area under the precision envelope, or, until
2009, the mean of it at recall 0, 0.1 ... 1. The VOC code counts pixels and so adds one to widths; here lengths are
lengths.

COCO (cocodataset.org, Detection Evaluation): a detection takes the object it overlaps most among those not found yet;
AP is the mean of the envelope at 101 recalls, over overlaps 0.5, 0.55 ... 0.95, at most 100 detections an image.

Difficult objects count neither as missed nor as found, and a detection of one is not held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.datasets import Objects
from qexport.detection import Detections, iou_matrix

VOC_OVERLAP = 0.5
VOC_RECALLS = np.linspace(0, 1, 11)
COCO_OVERLAPS = np.linspace(0.5, 0.95, 10)
COCO_RECALLS = np.linspace(0, 1, 101)
COCO_MAX_DETECTIONS = 100


@dataclass(frozen=True)
class MeanAveragePrecision:
    """In percent, the mean over classes that occur in the data.

    Attributes:
        voc: area under the precision-recall curve at overlap 0.5: mAP@0.5.
        voc_11: its 11-point form.
        coco: COCO's mean over overlaps 0.5 to 0.95.
    """

    voc: float
    voc_11: float
    coco: float


def mean_average_precision(found: Sequence[Detections], truth: Sequence[Objects]) -> MeanAveragePrecision:
    """mAP of the detections of all images.

    Args:
        found: one an image.
        truth: one an image.
    """
    labels = np.unique(np.concatenate([objects.labels[~objects.difficult] for objects in truth]))
    voc, voc_11, coco = [], [], []
    for label in labels.tolist():
        pairs = [_of_class(f, t, label) for f, t in zip(found, truth, strict=True)]
        n_objects = sum(int((~p.difficult).sum()) for p in pairs)
        curve = _curve([_match_voc(p, VOC_OVERLAP) for p in pairs], [p.scores for p in pairs], n_objects)
        voc.append(_area(*curve))
        voc_11.append(_at_recalls(*curve, VOC_RECALLS))
        for overlap in COCO_OVERLAPS.tolist():
            few = [p.first(COCO_MAX_DETECTIONS) for p in pairs]  # the limit holds class by class
            curve = _curve([_match_coco(p, overlap) for p in few], [p.scores for p in few], n_objects)
            coco.append(_at_recalls(*curve, COCO_RECALLS))
    return MeanAveragePrecision(*(100 * float(np.mean(ap)) if ap else 0.0 for ap in (voc, voc_11, coco)))


def agreement(found: Sequence[Detections], reference: Sequence[Detections], score: float = 0.5) -> float:
    """Share of boxes above `score` that both find, in percent: equal class, overlap of at least 0.5, each used once.

    The share is 2 * common / (boxes of one + boxes of the other); 100 where neither finds anything.
    """
    common = total = 0
    for a, b in zip(found, reference, strict=True):
        many = [_confident(d, score) for d in (a, b)]
        total += len(many[0]) + len(many[1])
        free = np.ones(len(many[1]), np.bool_)
        overlap = iou_matrix(many[0].boxes, many[1].boxes)
        overlap[many[0].labels[:, None] != many[1].labels[None, :]] = 0
        for row in overlap:
            candidates = np.where(free, row, 0)
            if candidates.size and candidates.max() >= VOC_OVERLAP:
                free[candidates.argmax()] = False
                common += 2
    return 100.0 * common / total if total else 100.0


def _confident(found: Detections, score: float) -> Detections:
    keep = found.scores > score
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Detections and objects of one class in one image, and how much they overlap [detections, objects]."""

    scores: NDArray
    difficult: NDArray[np.bool_]
    overlaps: NDArray

    def first(self, n: int) -> _Pairs:
        return _Pairs(self.scores[:n], self.difficult, self.overlaps[:n])


def _of_class(found: Detections, truth: Objects, label: int) -> _Pairs:
    mine, theirs = found.labels == label, truth.labels == label
    overlaps = iou_matrix(found.boxes[mine].astype(np.float64), truth.boxes[theirs].astype(np.float64))
    return _Pairs(found.scores[mine], truth.difficult[theirs], overlaps)


_RIGHT, _WRONG, _IGNORED = 1, 0, -1


def _match_voc(pairs: _Pairs, overlap: float) -> NDArray[np.int64]:
    """_RIGHT, _WRONG or _IGNORED for every detection, which stand by falling score."""
    result = np.full(len(pairs.scores), _WRONG)
    taken = np.zeros(len(pairs.difficult), np.bool_)
    for i, row in enumerate(pairs.overlaps):
        if not row.size or row.max() < overlap:
            continue
        best = int(row.argmax())
        if pairs.difficult[best]:
            result[i] = _IGNORED
        elif not taken[best]:
            result[i], taken[best] = _RIGHT, True
    return result


def _match_coco(pairs: _Pairs, overlap: float) -> NDArray[np.int64]:
    """As `_match_voc`; a difficult object is taken only where no other one will do."""
    result = np.full(len(pairs.scores), _WRONG)
    free = np.ones(len(pairs.difficult), np.bool_)
    for i, row in enumerate(pairs.overlaps):
        for among, value in ((free & ~pairs.difficult, _RIGHT), (free & pairs.difficult, _IGNORED)):
            candidates = np.where(among, row, -1)
            if candidates.size and candidates.max() >= overlap:
                # Of equal overlaps COCO's code takes the last object.
                best = candidates.size - 1 - int(candidates[::-1].argmax())
                result[i], free[best] = value, False
                break
    return result


def _curve(matches: list[NDArray], scores: list[NDArray], n_objects: int) -> tuple[NDArray, NDArray]:
    """(recall, precision envelope) after each detection of all images, by falling score."""
    match, score = np.concatenate(matches), np.concatenate(scores)
    ordered = match[np.argsort(-score, kind="stable")]
    ordered = ordered[ordered != _IGNORED]
    right = np.cumsum(ordered == _RIGHT)
    precision = right / np.arange(1, len(ordered) + 1)
    return right / n_objects, np.maximum.accumulate(precision[::-1])[::-1]


def _area(recall: NDArray, precision: NDArray) -> float:
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _at_recalls(recall: NDArray, precision: NDArray, wanted: NDArray) -> float:
    """Mean precision at the wanted recalls; 0 where a recall is not reached."""
    place = np.searchsorted(recall, wanted, side="left")
    return float(np.append(precision, 0.0)[place].mean())
