"""Boxes: corners (x0, y0, x1, y1) and centres (cx, cy, w, h), in any unit; SSD's coding of one relative to a prior."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MAX_LOG_SCALE = math.log(1000 / 16)
"""A box is decoded at most 62.5 times as wide as its prior, the limit of torchvision; exp of noise would overflow."""


def to_corners(boxes: NDArray) -> NDArray:
    """(cx, cy, w, h) -> (x0, y0, x1, y1), [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def to_centres(boxes: NDArray) -> NDArray:
    """(x0, y0, x1, y1) -> (cx, cy, w, h), [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def iou_matrix(a: NDArray, b: NDArray) -> NDArray:
    """Intersection over union of every pair of boxes.

    Args:
        a: corners [n, 4].
        b: corners [m, 4].

    Returns:
        [n, m] of the boxes' dtype; 0 where the union is empty.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    area_a, area_b = (np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0).astype(union.dtype)


def encode_boxes(boxes: NDArray, priors: NDArray, variances: tuple[float, float]) -> NDArray:
    """Offsets that `decode_boxes` turns back into the boxes (Liu et al., SSD, ECCV 2016, equation 2).

    Args:
        boxes: corners [..., 4], of positive width and height.
        priors: (cx, cy, w, h) [..., 4].
        variances: scale of the centre offsets and of the log sizes.
    """
    centres = to_centres(boxes)
    shift = (centres[..., :2] - priors[..., :2]) / priors[..., 2:] / variances[0]
    scale = np.log(centres[..., 2:] / priors[..., 2:]) / variances[1]
    return np.concatenate([shift, scale], axis=-1)


def decode_boxes(locations: NDArray, priors: NDArray, variances: tuple[float, float]) -> NDArray:
    """Corners of the boxes a network means by its offsets, inside the image.

    centre = prior centre + variances[0] * offset * prior size; size = prior size * exp(variances[1] * offset), the
    exponent at most MAX_LOG_SCALE.

    Args:
        locations: float32 [N, P, 4], the location head.
        priors: float32 [P, 4], (cx, cy, w, h) as fractions of the image.
        variances: see Detector.

    Returns:
        float32 [N, P, 4], corners as fractions of the image, clipped to 0..1.
    """
    v_centre, v_size = (np.float32(v) for v in variances)
    centre = priors[:, :2] + v_centre * locations[..., :2] * priors[:, 2:]
    size = priors[:, 2:] * np.exp(np.minimum(v_size * locations[..., 2:], np.float32(MAX_LOG_SCALE)))
    return np.clip(to_corners(np.concatenate([centre, size], axis=-1)), 0, 1)
