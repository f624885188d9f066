"""SSD's training objective (Liu et al., ECCV 2016, section 2.2): which prior learns what, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qexport.datasets import Objects
from qexport.detection import Detector, encode_boxes, iou_matrix
from qexport.detection.boxes import to_corners

MATCH_OVERLAP = 0.5
"""A prior that overlaps an object more than this learns it."""

NEGATIVES_PER_POSITIVE = 3
"""Hard negative mining: so many background priors count, the worst ones."""


def match_priors(objects: Sequence[Objects], detector: Detector) -> tuple[Tensor, Tensor]:
    """What every prior should say on every image.

    First each object gets a prior of its own, the largest overlap before the others, whatever it is; then every other
    prior learns the object it overlaps most, if by more than MATCH_OVERLAP.

    Returns:
        (classes int64 [N, P], 0 the background; locations float32 [N, P, 4], 0 where the class is the background).
    """
    priors = detector.priors()
    corners = to_corners(priors)
    classes = np.zeros((len(objects), len(priors)), np.int64)
    locations = np.zeros((len(objects), len(priors), 4), np.float32)
    for i, image in enumerate(objects):
        if len(image):
            taught = _object_of_prior(iou_matrix(corners, image.boxes))
            positive = taught >= 0
            classes[i, positive] = image.labels[taught[positive]] + 1
            locations[i, positive] = encode_boxes(image.boxes[taught[positive]], priors[positive], detector.variances)
    return torch.from_numpy(classes), torch.from_numpy(locations)


def _object_of_prior(overlap: NDArray) -> NDArray[np.int64]:
    """Index of the object each prior learns, -1 for none. overlap: [P, n] -> [P]."""
    result = np.where(overlap.max(axis=1) > MATCH_OVERLAP, overlap.argmax(axis=1), -1)
    free = overlap.copy()
    for _ in range(min(overlap.shape)):
        prior, chosen = np.unravel_index(int(free.argmax()), free.shape)
        result[prior] = chosen
        free[prior], free[:, chosen] = -1, -1
    return result


def multibox_loss(locations: Tensor, scores: Tensor, classes: Tensor, targets: Tensor) -> Tensor:
    """Smooth L1 of the offsets plus cross-entropy of the classes, per positive prior.

    Args:
        locations: [N, P, 4]; scores: [N, P, n_classes], logits.
        classes, targets: of `match_priors`.
    """
    positive = classes > 0
    n_positive = positive.sum(dim=1)
    offsets = functional.smooth_l1_loss(locations[positive], targets[positive], reduction="sum")
    entropy = functional.cross_entropy(scores.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
    background = entropy.detach().masked_fill(positive, -1.0)
    rank = background.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    hard = (rank < NEGATIVES_PER_POSITIVE * n_positive[:, None]) & ~positive
    return (offsets + entropy[positive | hard].sum()) / n_positive.sum().clamp(min=1)
