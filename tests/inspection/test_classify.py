"""Classes of images are those of the numpy reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digits_checkpoint import CLASS_NAMES, random_digits, save_images

from qexport.conversion import Artifact
from qexport.errors import ArtifactError, DataError
from qexport.inspection.classify import classify
from qexport.reference import interpret


def test_integers_are_those_of_the_reference(artifact: Artifact, tmp_path: Path) -> None:
    found = list(classify(artifact.files["onnx"], save_images(tmp_path / "images.npz", 70), 99))
    graph = artifact.built.graph
    images = random_digits(70).transpose(0, 3, 1, 2)
    (logits,) = interpret(graph, {next(iter(graph.inputs)): images}).outputs.values()
    assert len(found) == 70
    for row, predictions in zip(logits, found, strict=True):
        assert [row[p.index] for p in predictions] == [p.integer for p in predictions] == sorted(row, reverse=True)
        assert [p.label for p in predictions] == [CLASS_NAMES[p.index] for p in predictions]


def test_one_image_with_and_without_a_batch_axis(artifact: Artifact, tmp_path: Path) -> None:
    image = random_digits(1)
    found = []
    for number, array in enumerate((image, image[0], image[0, :, :, 0])):
        np.save(tmp_path / f"{number}.npy", array)
        found.append(list(classify(artifact.files["onnx"], tmp_path / f"{number}.npy", 5)))
    assert found[0] == found[1] == found[2] and len(found[0]) == 1


def test_mistakes(artifact: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((2, 9, 9, 1), np.uint8))
    model = artifact.files["onnx"]
    with pytest.raises(DataError, match=r"large\.npy: images have another size"):
        list(classify(model, tmp_path / "large.npy", 5))
    with pytest.raises(DataError, match="no such file or folder"):
        list(classify(model, tmp_path / "absent.npz", 5))
    with pytest.raises(ArtifactError, match=r"large\.npy: not an ONNX model"):
        list(classify(tmp_path / "large.npy", model, 5))
