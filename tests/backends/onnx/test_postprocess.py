"""post.onnx against the numpy post-process: equal boxes, labels and order, scores to a float rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from qexport.backends.onnx.postprocess import Head, to_post_process
from qexport.backends.onnx.session import open_session
from qexport.backends.onnx.writer import write_onnx
from qexport.detection import Detections, Detector, PriorGrid, post_process
from qexport.errors import OptionError

SMALL = Detector((PriorGrid(4, 5, 1 / 4, 1 / 5, ((0.3, 0.3), (0.2, 0.4))), PriorGrid(1, 1, 1, 1, ((0.8, 0.7),))), 4)
FEW = replace(SMALL, max_per_class=3, max_detections=5, score_threshold=0.2, iou_threshold=0.1)
EVERYTHING = replace(SMALL, score_threshold=0.0, iou_threshold=0.9, max_detections=1000)
SCALES = (2.0**-12, 2.0**-9)


def heads(detector: Detector) -> list[Head]:
    n = detector.n_priors
    return [Head("locations", (n, 4), SCALES[0]), Head("logits", (n, detector.n_classes), SCALES[1])]


def run(detector: Detector, feeds: dict[str, np.ndarray], optimized: bool = True) -> list[Detections]:
    model = to_post_process(heads(detector), detector, metadata={}, opset=25)
    onnx.checker.check_model(model, full_check=True)
    boxes, scores, labels, counts = open_session(model, optimized=optimized).run(None, feeds)
    assert labels.dtype == counts.dtype == np.int64
    for image, n in enumerate(counts):
        assert (labels[image, n:] == -1).all() and not scores[image, n:].any() and not boxes[image, n:].any()
    return [Detections(b[:n], s[:n], c[:n]) for b, s, c, n in zip(boxes, scores, labels, counts, strict=True)]


def integers(detector: Detector, n_images: int, spread: float, seed: int) -> dict[str, np.ndarray]:
    """Heads with logits of that spread; the last image is all background."""
    random = np.random.default_rng(seed)
    n = detector.n_priors
    locations = random.normal(0, 1.5 / SCALES[0], (n_images, n, 4)).astype(np.int32)
    logits = random.normal(0, spread / SCALES[1], (n_images, n, detector.n_classes)).astype(np.int32)
    logits[-1, :, 0] += int(60 / SCALES[1])
    return {"locations": locations, "logits": logits}


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("detector", [SMALL, FEW, EVERYTHING], ids=["default", "few", "everything"])
def test_same_detections_as_numpy(detector: Detector, spread: float, optimized: bool) -> None:
    feeds = integers(detector, 5, spread, seed=3)
    expected = post_process(feeds["locations"] * SCALES[0], feeds["logits"] * SCALES[1], detector)
    found = run(detector, feeds, optimized)
    for ours, theirs in zip(expected, found, strict=True):
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-7)
        assert np.allclose(ours.boxes, theirs.boxes, rtol=1e-5, atol=1e-6)
    assert sum(map(len, expected)) > 10
    assert len(expected[-1]) == (0 if detector is not EVERYTHING else len(found[-1]))


def test_equal_scores_keep_the_order_of_the_priors() -> None:
    n = SMALL.n_priors
    feeds = {"locations": np.zeros((1, n, 4), np.int32), "logits": np.zeros((1, n, 4), np.int32)}
    (ours,) = post_process(feeds["locations"], feeds["logits"], SMALL)
    (theirs,) = run(SMALL, feeds)
    assert np.array_equal(ours.labels, theirs.labels) and np.array_equal(ours.boxes, theirs.boxes)
    assert ours.labels.tolist() == sorted(ours.labels.tolist()) and len(ours) > 6


def test_huge_offsets_give_finite_boxes_inside_the_image() -> None:
    feeds = integers(SMALL, 2, 4.0, seed=0)
    feeds["locations"][:] = np.iinfo(np.int32).max
    for found in run(SMALL, feeds):
        assert np.isfinite(found.boxes).all() and (found.boxes >= 0).all() and (found.boxes <= 1).all()


def test_heads_in_another_order_are_refused() -> None:
    with pytest.raises(OptionError, match=r"outputs do not fit its detector(.|\n)*logits \[41, 5\], locations"):
        to_post_process(heads(replace(SMALL, n_classes=5))[::-1], SMALL, metadata={}, opset=25)


@pytest.mark.parametrize("opset", [18, 21, 25])
def test_every_opset_loads(opset: int, tmp_path: Path) -> None:
    write_onnx(to_post_process(heads(SMALL), SMALL, metadata={"k": "v"}, opset=opset), tmp_path / "post.onnx")
    assert onnx.load(tmp_path / "post.onnx").opset_import[0].version == opset
