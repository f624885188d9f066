"""The scenes are what they say they are, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qexport.datasets import open_dataset
from qexport.errors import OptionError

pytest.importorskip("sklearn", reason="the handwritten digits come with scikit-learn (extra 'demo')")

from qexport.models.detection.digit_scenes import MAX_OBJECTS, main, make_scenes


@pytest.mark.parametrize(("size", "channels"), [(64, 1), (96, 3), (40, 1)])
def test_boxes_lie_in_the_image_and_hardly_overlap(size: int, channels: int) -> None:
    scenes = make_scenes(20, size=size, channels=channels)
    assert scenes.images.shape == (20, size, size, channels) and scenes.images.dtype == np.uint8
    n_objects = np.diff(scenes.offsets)
    assert n_objects.min() >= 1 and n_objects.max() <= MAX_OBJECTS and len(np.unique(n_objects)) > 2
    assert scenes.boxes.min() >= 0 and scenes.boxes.max() <= size
    sides = scenes.boxes[:, 2:] - scenes.boxes[:, :2]
    assert (sides >= 3).all() and (sides <= 0.51 * size).all()
    assert set(scenes.labels) <= set(range(10)) and len(set(scenes.labels)) > 6


def test_a_digit_differs_from_its_canvas() -> None:
    """Pixels inside boxes spread more than those outside: there is something to see, on a canvas that is not flat."""
    scenes = make_scenes(30)
    inside, outside = [], []
    for i in range(30):
        mask = np.zeros((64, 64), bool)
        for x0, y0, x1, y1 in scenes.boxes[scenes.offsets[i] : scenes.offsets[i + 1]].astype(int):
            mask[y0:y1, x0:x1] = True
        inside.append(scenes.images[i, ..., 0][mask].std())
        outside.append(scenes.images[i, ..., 0][~mask].std())
    assert np.mean(inside) > 1.3 * np.mean(outside)
    assert np.mean(outside) > 8


def test_equal_arguments_give_equal_scenes() -> None:
    first, second = make_scenes(4, seed=3), make_scenes(4, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    for other in (make_scenes(4, seed=4), make_scenes(4, seed=3, split="test")):
        assert not np.array_equal(first.images, other.images)


def test_the_file_is_a_detection_data_set(tmp_path: Path) -> None:
    file = tmp_path / "scenes.npz"
    result = CliRunner().invoke(main, [str(file), "--count", "5", "--size", "48", "--channels", "3"])
    assert result.exit_code == 0, result.output
    scenes = make_scenes(5, split="test", size=48, channels=3)
    data = open_dataset(file, (3, 48, 48), limit=4)
    assert data.objects is not None and data.labels is None and len(data) == len(data.objects) == 4
    assert sum(map(len, data.objects)) == scenes.offsets[4]
    assert np.allclose(data.objects[0].boxes * 48, scenes.boxes[: scenes.offsets[1]])
    assert np.array_equal(data.images(0, 1)[0], scenes.images[0].transpose(2, 0, 1))


def test_impossible_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such scenes"):
        make_scenes(1, size=16)
    result = CliRunner().invoke(main, [str(tmp_path / "x.npz"), "--channels", "2"])
    assert result.exit_code == 1 and "1 or 3 channels" in result.output
