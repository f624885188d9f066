"""mAP against pycocotools, against curves computed by hand, and for detections that say nothing."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from qexport.datasets import Objects
from qexport.detection import Detections
from qexport.validation.detection import MeanAveragePrecision, agreement, mean_average_precision


def objects(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Objects:
    flags = np.zeros(len(labels), bool) if difficult is None else np.array(difficult, bool)
    return Objects(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), flags)


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    order = np.argsort(-np.array(scores), kind="stable")
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(array[order], np.array(scores, np.float32)[order], np.array(labels, np.int64)[order])


LEFT, RIGHT, NEAR_LEFT = [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.0, 0.0, 0.4, 0.3]


def test_all_found_is_100_percent_and_nothing_found_is_0() -> None:
    truth = [objects([LEFT, RIGHT], [0, 1])]
    assert mean_average_precision([detections([LEFT, RIGHT], [0.9, 0.8], [0, 1])], truth) == MeanAveragePrecision(
        100.0, 100.0, 100.0
    )
    assert mean_average_precision([detections([], [], [])], truth) == MeanAveragePrecision(0.0, 0.0, 0.0)


def test_curve_computed_by_hand() -> None:
    """Right, wrong, right of three objects: precision 1 up to recall 1/3, 2/3 up to 2/3, then 0."""
    truth = [objects([LEFT, RIGHT], [0, 0]), objects([LEFT], [0])]
    found = [detections([LEFT, LEFT, RIGHT], [0.9, 0.8, 0.7], [0, 0, 0]), detections([RIGHT], [0.6], [0])]
    result = mean_average_precision(found, truth)
    assert result.voc == pytest.approx(100 * (1 / 3 + 1 / 3 * 2 / 3), abs=1e-9)
    assert result.voc_11 == pytest.approx(100 * (4 * 1 + 3 * 2 / 3) / 11, abs=1e-9)


def test_overlap_below_half_is_wrong_and_the_class_counts() -> None:
    truth = [objects([LEFT], [0])]
    assert mean_average_precision([detections([[0.0, 0.0, 0.4, 0.19]], [0.9], [0])], truth).voc == 0
    assert mean_average_precision([detections([LEFT], [0.9], [1])], truth).voc == 0
    # An overlap of 0.75 passes 6 of COCO's 10 thresholds.
    assert mean_average_precision([detections([NEAR_LEFT], [0.9], [0])], truth).coco == pytest.approx(60)


def test_difficult_objects_count_neither_way() -> None:
    truth = [objects([LEFT, RIGHT], [0, 0], [False, True])]
    for found in (detections([LEFT], [0.9], [0]), detections([RIGHT, LEFT], [0.95, 0.9], [0, 0])):
        assert mean_average_precision([found], truth) == MeanAveragePrecision(100.0, 100.0, 100.0)


def test_agreement_counts_boxes_both_find() -> None:
    a = [detections([LEFT, RIGHT, RIGHT], [0.9, 0.8, 0.2], [0, 1, 0])]
    assert agreement(a, a) == 100
    assert agreement(a, [detections([NEAR_LEFT], [0.9], [0])]) == pytest.approx(200 / 3)
    assert agreement(a, [detections([LEFT, LEFT], [0.9, 0.8], [1, 1])]) == 0
    assert agreement([detections([], [], [])], [detections([], [], [])]) == 100


def random_scene(random: np.random.Generator, n_classes: int) -> tuple[Detections, Objects]:
    """Objects, most of them found more or less well, some twice, some confused, and false alarms."""
    n = int(random.integers(0, 7))
    low = random.uniform(0, 0.6, (n, 2))
    truth = np.concatenate([low, low + random.uniform(0.1, 0.4, (n, 2))], 1)
    labels = random.integers(0, n_classes, n)
    chosen = random.integers(0, n, 2 * n) if n else np.zeros(0, int)
    boxes = truth[chosen] + random.normal(0, 0.02, (2 * n, 4))
    guesses = np.where(random.random(2 * n) < 0.8, labels[chosen], random.integers(0, n_classes, 2 * n))
    noise = random.uniform(0, 0.5, (3, 2))
    boxes = np.concatenate([boxes, np.concatenate([noise, noise + 0.3], 1)])
    guesses = np.concatenate([guesses, random.integers(0, n_classes, 3)])
    found = detections(boxes.tolist(), random.permutation(len(boxes)).astype(float).tolist(), guesses.tolist())
    difficult = random.random(n) < 0.15
    return found, objects(truth.tolist(), labels.tolist(), difficult.tolist())


@pytest.mark.parametrize("seed", range(6))
def test_coco_figure_is_that_of_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools", reason="the independent implementation (extra 'test')")
    random = np.random.default_rng(seed)
    scenes = [random_scene(random, 4) for _ in range(30)]
    found, truth = zip(*scenes, strict=True)
    # Scores tie across images on purpose nowhere: COCO's order of equal scores follows the order of its image ids.
    found = tuple(Detections(f.boxes, f.scores + np.float32(i / 64), f.labels) for i, f in enumerate(found))
    ours = mean_average_precision(found, truth)
    assert ours.coco == pytest.approx(100 * coco_ap(found, truth), abs=1e-9)
    assert 1 < ours.coco < 99


def coco_ap(found: tuple[Detections, ...], truth: tuple[Objects, ...]) -> float:
    """AP@[0.5:0.95] of pycocotools; difficult objects are ignored ones."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def extent(box: np.ndarray) -> list[float]:
        x0, y0, x1, y1 = (float(v) for v in box)
        return [x0, y0, x1 - x0, y1 - y0]

    annotations = [
        {"image_id": i, "category_id": int(label), "bbox": extent(box), "area": 1.0, "iscrowd": 0, "ignore": int(hard)}
        for i, t in enumerate(truth)
        for box, label, hard in zip(t.boxes, t.labels, t.difficult, strict=True)
    ]
    results = [
        {"image_id": i, "category_id": int(label), "bbox": extent(box), "score": float(score)}
        for i, f in enumerate(found)
        for box, label, score in zip(f.boxes, f.labels, f.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": c} for c in range(4)],
            "annotations": [{**a, "id": i + 1} for i, a in enumerate(annotations)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        # COCOeval.evaluate overwrites `ignore` with `iscrowd`; the private step lets it stand.
        prepare = evaluation._prepare

        def prepare_with_ignored() -> None:
            prepare()
            for objects_of_image in evaluation._gts.values():
                for entry in objects_of_image:
                    entry["ignore"] = annotations[entry["id"] - 1]["ignore"]

        evaluation._prepare = prepare_with_ignored
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])
