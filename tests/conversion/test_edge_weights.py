"""Edge weights fitted to calibration images on the real W/A checkpoints, from conversion to validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qexport.backends.onnx.session import open_session, run_session
from qexport.conversion import Artifact, Settings, convert
from qexport.datasets import open_dataset
from qexport.validation import validate
from qexport.validation.accuracy import mcnemar

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {"daq/cifar10_W1A1.pth": 1, "qn/resnet20_w2t_a2.pth": 2}


def converted(data_dir: Path, file: str, output: Path, images: int, **options: object) -> Artifact:
    data = np.load(data_dir / "cifar10" / "calibration.npz")["images"][:images]
    return convert(
        data_dir / "checkpoints" / file,
        output,
        bits=FILES[file],
        mean=MEAN,
        std=STD,
        calibration_data=data,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("file", FILES)
def test_validation_rebuilds_fitted_levels_without_the_images(data_dir: Path, file: str, tmp_path: Path) -> None:
    """Levels, shifts and narrowed streams come from the artifact: every tensor equals the reference's."""
    artifact = converted(data_dir, file, tmp_path, 24, edge_bits=4, formats=("onnx", "qpk"))
    settings = artifact.built.settings
    assert len(settings.edge_weights) == 2
    assert settings.stream_ranges
    assert Settings.from_json(settings.to_json()) == settings
    report = validate(
        [artifact.files["onnx"], artifact.files["qpk"]],
        checkpoint=data_dir / "checkpoints" / file,
        data=data_dir / "cifar10" / "test.npz",
        limit=16,
    )
    assert report.failures == []
    assert report.unexplained == 0


def test_fitted_conversion_is_deterministic(data_dir: Path, tmp_path: Path) -> None:
    """Equal bytes from run to run, and for any order of the images."""
    file = "qn/resnet20_w2t_a2.pth"
    data = np.load(data_dir / "cifar10" / "calibration.npz")["images"][:24]
    made = []
    for name, order in (("a", data), ("b", data), ("c", data[::-1])):
        artifact = convert(
            data_dir / "checkpoints" / file,
            tmp_path / name,
            bits=2,
            mean=MEAN,
            std=STD,
            edge_bits=8,
            calibration_data=np.ascontiguousarray(order),
        )
        made.append(artifact.files["onnx"].read_bytes())
    assert made[0] == made[1] == made[2]


def test_images_that_can_be_read_once_still_convert(data_dir: Path, tmp_path: Path) -> None:
    """They serve the ranges; the weights then round without data."""
    data = np.load(data_dir / "cifar10" / "calibration.npz")["images"][:4]
    file = "qn/resnet20_w2t_a2.pth"
    artifact = convert(
        data_dir / "checkpoints" / file,
        tmp_path,
        bits=2,
        mean=MEAN,
        std=STD,
        edge_bits=8,
        calibration_data=iter([data]),
    )
    assert artifact.built.settings.edge_weights == {}


@pytest.fixture(scope="module")
def test_images(data_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The lossless and the JPEG test images together: 2,509."""
    sets = [open_dataset(data_dir / "cifar10" / name, (3, 32, 32)) for name in ("test.npz", "test_jpeg")]
    images = np.concatenate([batch for data in sets for batch in data.batches(128)])
    return images, np.concatenate([np.asarray(data.labels) for data in sets])


def right_frozen(artifact: Artifact, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        parts = [
            artifact.built.frozen.module((torch.from_numpy(x).float() / 255 - mean) / std).argmax(1).numpy()
            for x in np.array_split(images, 20)
        ]
    return np.asarray(np.concatenate(parts) == labels)


def right_integer(artifact: Artifact, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    session = open_session(artifact.files["onnx"].read_bytes())
    parts = [next(iter(run_session(session, {"image": x}).values())).argmax(1) for x in np.array_split(images, 20)]
    return np.asarray(np.concatenate(parts) == labels)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_what_widths_cost(
    data_dir: Path, file: str, tmp_path: Path, test_images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    """Over both sets: the default and 16-bit streams lose nothing significant, 4-bit edges at most 2 points.

    On the 509 lossless images alone accuracy is that of one draw (docs/decisions/004-edge-bits.md).
    """
    default = converted(data_dir, file, tmp_path / "default", 256, stream_bits=32)
    narrow = converted(data_dir, file, tmp_path / "narrow", 256, stream_bits=16)
    four = converted(data_dir, file, tmp_path / "four", 256, stream_bits=32, edge_bits=4)
    frozen = right_frozen(default, *test_images)
    by_default, by_narrow, by_four = (right_integer(a, *test_images) for a in (default, narrow, four))
    assert {f.bits for f in narrow.built.lowered.fixed_points.values()} >= {16}
    assert mcnemar(frozen, by_default) > 0.05
    for part in (slice(509), slice(509, None)):
        assert by_narrow[part].mean() >= by_default[part].mean() or mcnemar(by_default[part], by_narrow[part]) > 0.05
    assert 100 * (frozen.mean() - by_four.mean()) <= 2.0
