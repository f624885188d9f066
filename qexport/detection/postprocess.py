"""From heads to boxes in numpy float32: the definition that post.onnx is checked against.

Order of every step, ties included, is that of the ONNX operators (NonMaxSuppression, TopK): of equal scores the lower
index comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.detection.boxes import decode_boxes
from qexport.detection.detector import Detector


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one image, by falling score.

    Attributes:
        boxes: float32 [n, 4], corners (x0, y0, x1, y1) as fractions of the image.
        scores: float32 [n], softmax probabilities.
        labels: int64 [n], classes counted without the background, from 0.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def post_process(locations: NDArray, logits: NDArray, detector: Detector) -> list[Detections]:
    """Decode the heads, keep what is probable, drop what overlaps, one list of boxes an image.

    Args:
        locations: [N, P, 4], real values (integers times their scale).
        logits: [N, P, n_classes], likewise; class 0 is the background.
        detector: priors and settings.
    """
    boxes = decode_boxes(locations.astype(np.float32), detector.priors(), detector.variances)
    probabilities = softmax(logits.astype(np.float32))[..., 1:]
    return [_one_image(b, p, detector) for b, p in zip(boxes, probabilities, strict=True)]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _one_image(boxes: NDArray[np.float32], probabilities: NDArray[np.float32], detector: Detector) -> Detections:
    """boxes [P, 4] and probabilities [P, n] of the classes that are no background."""
    n_priors, n_labels = probabilities.shape
    kept = [_suppressed(boxes, probabilities[:, label], detector) + label * n_priors for label in range(n_labels)]
    flat = np.sort(np.concatenate(kept))
    scores = probabilities.T.reshape(-1)[flat]
    order = np.argsort(-scores, kind="stable")[: detector.max_detections]
    return Detections(boxes[flat[order] % n_priors], scores[order], flat[order] // n_priors)


def _suppressed(boxes: NDArray[np.float32], scores: NDArray[np.float32], detector: Detector) -> NDArray[np.int64]:
    """Indices of the boxes of one class that greedy non-maximum suppression keeps."""
    candidates = np.flatnonzero(scores > np.float32(detector.score_threshold))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    # One row a coordinate: a few thousand priors times every kept box is what detection costs here.
    x0, y0, x1, y1 = np.ascontiguousarray(boxes[candidates].T)
    area = (x1 - x0) * (y1 - y0)
    alive = np.ones(len(candidates), np.bool_)
    kept: list[int] = []
    for i in range(len(candidates)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == detector.max_per_class:
            break
        width = np.minimum(x1[i], x1[i + 1 :]) - np.maximum(x0[i], x0[i + 1 :])
        height = np.minimum(y1[i], y1[i + 1 :]) - np.maximum(y0[i], y0[i + 1 :])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[i] + area[i + 1 :] - shared
        alive[i + 1 :] &= ~(
            (shared > 0) & (shared / np.where(shared > 0, union, 1) > np.float32(detector.iou_threshold))
        )
    return candidates[kept]
