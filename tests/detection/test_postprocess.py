"""The float post-process: what is kept, in which order. post.onnx is checked against it with the ONNX tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qexport.detection import Detector, PriorGrid, encode_boxes, post_process
from qexport.detection.postprocess import softmax

DETECTOR = Detector((PriorGrid(1, 4, 1.0, 0.25, ((0.25, 1.0),)),), n_classes=3, score_threshold=0.2)
"""Four priors side by side."""


def heads(boxes: list[list[float]], chances: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Heads of one image that mean these boxes and softmax probabilities (background, A, B)."""
    offsets = encode_boxes(np.array(boxes), DETECTOR.priors(), DETECTOR.variances)
    return offsets[None].astype(np.float32), np.log(np.array(chances))[None].astype(np.float32)


LEFT, SHIFTED, RIGHT = [0.1, 0.1, 0.4, 0.4], [0.12, 0.1, 0.42, 0.4], [0.6, 0.6, 0.9, 0.9]


def test_overlapping_boxes_of_a_class_give_way_to_the_best() -> None:
    chances = [[0.4, 0.6, 0.001], [0.2, 0.8, 0.001], [0.3, 0.7, 0.001], [0.9, 0.1, 0.001]]
    (found,) = post_process(*heads([LEFT, SHIFTED, RIGHT, RIGHT], chances), DETECTOR)
    assert np.allclose(found.boxes, [SHIFTED, RIGHT], atol=1e-6)
    assert np.allclose(found.scores, [0.8, 0.7], atol=1e-2) and found.labels.tolist() == [0, 0]


def test_classes_do_not_suppress_each_other_and_limits_hold() -> None:
    chances = [[0.1, 0.6, 0.3], [0.4, 0.3, 0.3], [0.3, 0.01, 0.69], [0.98, 0.01, 0.01]]
    feeds = heads([LEFT, SHIFTED, RIGHT, RIGHT], chances)
    (found,) = post_process(*feeds, DETECTOR)
    assert found.labels.tolist() == [1, 0, 1]
    (one_each,) = post_process(*feeds, replace(DETECTOR, max_per_class=1))
    assert one_each.labels.tolist() == [1, 0]
    (best,) = post_process(*feeds, replace(DETECTOR, max_detections=1))
    assert best.labels.tolist() == [1] and np.allclose(best.boxes, [RIGHT], atol=1e-6)


def test_a_score_on_the_threshold_does_not_count() -> None:
    """Equal logits of two classes beside -inf: exactly one half."""
    logits = np.full((1, 4, 3), -np.inf, np.float32)
    logits[0, 0, :2] = 0
    logits[0, 1:, 0] = 0
    locations = np.zeros((1, 4, 4), np.float32)
    assert len(post_process(locations, logits, replace(DETECTOR, score_threshold=0.5))[0]) == 0
    assert len(post_process(locations, logits, replace(DETECTOR, score_threshold=0.499))[0]) == 1


def test_softmax_of_large_logits() -> None:
    assert np.allclose(softmax(np.array([[1e4, 1e4 - 1, -1e4]], np.float32)), [[0.7310586, 0.2689414, 0]])
