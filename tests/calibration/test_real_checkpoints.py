"""Real weight-only checkpoints, calibrated and converted, against the golden logits of their original code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qexport
from qexport.backends.onnx.session import open_session, run_session
from qexport.calibration.calibrate import layer_inputs
from qexport.calibration.data import open_images
from qexport.calibration.observers import Histogram
from qexport.calibration.ranges import observe
from qexport.conversion.build import load_network
from qexport.conversion.settings import Settings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = 256
W3 = {"weight_levels": (-4, -2, -1, 0, 1, 2, 4)}


@dataclass(frozen=True)
class Case:
    """A conversion, and what it must reach on cifar10/test.npz: percentage points and percent."""

    file: str
    act_bits: int
    top1_within: float
    agreement: float
    calibrated: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{Path(self.file).stem}-a{self.act_bits}{'' if self.calibrated else '-no-images'}"


CASES = [
    Case("daq/cifar10_W1A32.pth", 8, 0.4, 99.0, extra={"weight_bits": 1}),
    Case("daq/cifar10_W1A32.pth", 6, 0.8, 98.0, extra={"weight_bits": 1}),
    Case("daq/cifar10_W1A32.pth", 4, 1.2, 96.0, extra={"weight_bits": 1}),
    Case("daq/cifar10_W1A32.pth", 8, 0.8, 99.0, calibrated=False, extra={"weight_bits": 1}),
    Case("qn/resnet20_w2t.pth", 8, 0.5, 99.0),
    Case("qn/resnet20_w3.pth", 8, 0.5, 99.0, extra=W3),
]


@pytest.fixture(scope="module")
def calibration_images(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 training images, as a file."""
    path = tmp_path_factory.mktemp("calibration") / "images.npy"
    np.save(path, np.load(data_dir / "cifar10" / "calibration.npz")["images"][:IMAGES])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_accuracy_stays(case: Case, data_dir: Path, calibration_images: Path, tmp_path: Path) -> None:
    checkpoint = data_dir / "checkpoints" / case.file
    artifact = qexport.convert(
        checkpoint,
        tmp_path,
        act_bits=case.act_bits,
        mean=MEAN,
        std=STD,
        calibration_data=calibration_images if case.calibrated else None,
        **case.extra,
    )
    quantizers = [q for q in artifact.report["quantizers"] if q["calibrated"]]
    assert len(quantizers) == 18 and {len(q["levels"]) for q in quantizers} == {2**case.act_bits}

    test = np.load(data_dir / "cifar10" / "test.npz")
    pixels, labels = np.ascontiguousarray(test["images"].transpose(0, 3, 1, 2)), test["labels"]
    golden = np.load(checkpoint.with_name(f"{checkpoint.stem}.logits.npy")).argmax(1)
    (logits,) = run_session(open_session(artifact.files["onnx"].read_bytes()), {"image": pixels}).values()
    found = logits.argmax(1)
    assert 100 * np.mean(found == golden) >= case.agreement
    assert abs(100 * (np.mean(found == labels) - np.mean(golden == labels))) <= case.top1_within


def test_histograms_do_not_depend_on_order_or_batches(data_dir: Path) -> None:
    """Real activations of 48 images: every count equal, not only the ranges."""
    settings = Settings(mean=MEAN, std=STD, weight_bits=1)
    graph = load_network(data_dir / "checkpoints" / "daq" / "cifar10_W1A32.pth", settings).captured.graph
    images = np.load(data_dir / "cifar10" / "calibration.npz")["images"][:48]
    shuffled = np.random.default_rng(0).permutation(images)
    seen = []
    for batches in ([images], [shuffled[:5], shuffled[5:]], list(images[::-1])):
        histograms = {name: Histogram() for name in layer_inputs(graph)}
        assert observe(graph, histograms, open_images(batches, graph)) == 48
        seen.append(histograms)
    for name, histogram in seen[0].items():
        assert histogram.counts.sum() == 48 * np.prod(graph.types[name].shape)
        for other in seen[1:]:
            assert np.array_equal(histogram.counts, other[name].counts)
            assert histogram.span() == other[name].span()


LARGE_RUN = """
import resource, sys
import qexport
found = qexport.calibrate(sys.argv[1], sys.argv[2], sys.argv[3], weight_bits=1,
                          mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
print(found.images, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is measured in KiB on Linux only")
def test_five_thousand_images_stay_below_1500_mb(data_dir: Path, tmp_path: Path) -> None:
    checkpoint = data_dir / "checkpoints" / "daq" / "cifar10_W1A32.pth"
    command = [sys.executable, "-c", LARGE_RUN, checkpoint, data_dir / "cifar10" / "calibration.npz", tmp_path / "c"]
    images, peak_kib = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert images == 5085
    assert peak_kib * 1024 < 1.5e9
    assert len(qexport.Calibration.load(tmp_path / "c").ranges) == 18
