"""Matching of priors and the multibox loss, by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from qexport.datasets import Objects
from qexport.detection import Detector, PriorGrid, decode_boxes
from qexport.models.detection.loss import match_priors, multibox_loss

DETECTOR = Detector((PriorGrid(4, 4, 0.25, 0.25, ((0.25, 0.25),)),), n_classes=4)


def objects(boxes: list[list[float]], labels: list[int]) -> Objects:
    return Objects(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels), np.zeros(len(labels), bool))


def test_matched_priors_decode_to_their_objects() -> None:
    image = objects([[0.0, 0.0, 0.25, 0.27], [0.5, 0.5, 0.52, 0.52]], [2, 0])
    classes, locations = match_priors([image, objects([], [])], DETECTOR)
    assert classes.shape == (2, 16) and locations.shape == (2, 16, 4)
    assert classes[0].tolist() == [3, *[0] * 9, 1, *[0] * 5], "even a tiny object has one prior"
    assert not classes[1].any() and not locations[1].any()
    decoded = decode_boxes(locations.numpy(), DETECTOR.priors(), DETECTOR.variances)
    assert np.allclose(decoded[0, [0, 10]], image.boxes, atol=1e-6)


def test_each_object_has_a_prior_of_its_own() -> None:
    """Both objects overlap prior 0 most; the one that does so less gets its second best, and none is lost."""
    image = objects([[0.02, 0.0, 0.3, 0.25], [0.0, 0.0, 0.25, 0.25]], [0, 1])
    classes, _ = match_priors([image], DETECTOR)
    assert classes[0, :2].tolist() == [2, 1] and not classes[0, 2:].any()


def test_loss_is_that_of_plain_loops() -> None:
    torch.manual_seed(0)
    locations, scores = torch.randn(3, 16, 4), torch.randn(3, 16, 4)
    classes, targets = torch.zeros(3, 16, dtype=torch.int64), torch.randn(3, 16, 4)
    classes[0, 2], classes[0, 7], classes[1, 5] = 3, 1, 2  # 2 positives, 1 positive, none
    expected = 0.0
    for i, n_positive in enumerate((2, 1, 0)):
        entropy = [float(functional.cross_entropy(scores[i, p], classes[i, p])) for p in range(16)]
        negatives = sorted((e for e, c in zip(entropy, classes[i], strict=True) if c == 0), reverse=True)
        expected += sum(negatives[: 3 * n_positive])
        for p in torch.nonzero(classes[i]).flatten().tolist():
            expected += entropy[p]
            expected += float(functional.smooth_l1_loss(locations[i, p], targets[i, p], reduction="sum"))
    assert abs(float(multibox_loss(locations, scores, classes, targets)) - expected / 3) < 1e-5


def test_images_without_objects_give_a_finite_loss() -> None:
    classes, targets = match_priors([objects([], [])], DETECTOR)
    loss = multibox_loss(torch.randn(1, 16, 4), torch.randn(1, 16, 4), classes, targets)
    assert float(loss) == 0
