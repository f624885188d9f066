"""Boxes, priors and the description of a detector."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from qexport.detection import Detector, PriorGrid, decode_boxes, encode_boxes, iou_matrix
from qexport.detection.boxes import MAX_LOG_SCALE, to_centres, to_corners
from qexport.errors import OptionError

GRID = PriorGrid(2, 3, 1 / 2, 1 / 3, ((0.2, 0.4), (0.5, 0.1)))
DETECTOR = Detector((GRID, PriorGrid(1, 1, 1.0, 1.0, ((0.9, 0.9),))), n_classes=3)


def test_overlap_of_boxes_by_hand() -> None:
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 9]])
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [2, 0, 4, 2], [0, 0, 2, 1]], np.float64)
    assert np.allclose(iou_matrix(a, b), [[1 / 7, 1, 0, 0.5], [0, 0, 0, 0]])
    assert iou_matrix(a[1:], a[1:].astype(np.float64)).tolist() == [[0.0]], "an empty box overlaps nothing"


def test_priors_run_row_by_row_cell_by_cell_size_by_size() -> None:
    priors = DETECTOR.priors()
    assert priors.dtype == np.float32 and priors.shape == (13, 4) == (DETECTOR.n_priors, 4)
    assert np.allclose(priors[0], [1 / 6, 1 / 4, 0.2, 0.4])
    assert np.allclose(priors[1], [1 / 6, 1 / 4, 0.5, 0.1])
    assert np.allclose(priors[2], [1 / 2, 1 / 4, 0.2, 0.4])
    assert np.allclose(priors[6], [1 / 6, 3 / 4, 0.2, 0.4])
    assert np.allclose(priors[12], [0.5, 0.5, 0.9, 0.9])


def test_decoding_inverts_encoding() -> None:
    random = np.random.default_rng(0)
    priors = DETECTOR.priors()
    low = random.uniform(0, 0.5, (len(priors), 2))
    boxes = np.concatenate([low, low + random.uniform(0.05, 0.5, low.shape)], 1)
    assert np.allclose(to_corners(to_centres(boxes)), boxes)
    coded = encode_boxes(boxes, priors, DETECTOR.variances).astype(np.float32)
    assert np.allclose(decode_boxes(coded[None], priors, DETECTOR.variances)[0], boxes, atol=1e-6)


def test_decoding_by_hand() -> None:
    """The prior's centre moves by 0.1 * 2 of its size; log 2 of the width is 0.2 * 3.4657."""
    prior = np.array([[0.5, 0.5, 0.2, 0.1]], np.float32)
    offsets = np.array([[[2.0, -1.0, np.log(2) / 0.2, 0.0]]], np.float32)
    assert np.allclose(decode_boxes(offsets, prior, (0.1, 0.2))[0, 0], [0.34, 0.44, 0.74, 0.54])
    offsets[0, 0, 2] = 1e9
    assert decode_boxes(offsets, prior, (0.1, 0.2))[0, 0, [0, 2]].tolist() == [0, 1]
    assert np.exp(MAX_LOG_SCALE) == pytest.approx(62.5)


def test_description_survives_json() -> None:
    changed = replace(DETECTOR, variances=(0.3, 0.4), score_threshold=0.25, max_detections=7)
    assert Detector.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


@pytest.mark.parametrize(
    "damage",
    [
        {"grids": []},
        {"grids": "x"},
        {"grids": [{"rows": 2}]},
        {"n_classes": 1},
        {"variances": [0.1]},
        {"variances": [0.0, 0.2]},
        {"iou_threshold": 1.0},
        {"score_threshold": float("nan")},
        {"max_detections": 0},
        {"unknown": 1},
        {"grids": [{"rows": 10**6, "columns": 10**6, "step_y": 1, "step_x": 1, "sizes": [[1, 1]]}]},
        {"grids": [{"rows": 2, "columns": 2, "step_y": 1, "step_x": float("inf"), "sizes": [[1, 1]]}]},
        {"grids": [{"rows": 2, "columns": 2, "step_y": 1, "step_x": 1, "sizes": []}]},
    ],
)
def test_what_describes_no_detector_is_refused(damage: dict) -> None:
    with pytest.raises(OptionError, match=r"describes no detector|description of the detector"):
        Detector.from_dict({**DETECTOR.to_dict(), **damage})
