"""A network and quantizers the library has never seen: `--model package.module:factory --quantizer Class`."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from qexport.conversion import convert
from qexport.errors import AccumulatorError, FreezeError, QExportError, UnsupportedOperatorError
from qexport.validation import validate

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Round(nn.Module):
    """LSQ-style: round(clamp(x / s, 0, 15)) * s."""

    def __init__(self):
        super().__init__()
        self.s = nn.Parameter(torch.tensor(0.11))

    def forward(self, x):
        return torch.round(torch.clamp(x / self.s, 0, 15)) * self.s


class Sign(nn.Module):
    """-1 and +1, zero counts as positive; zero padding is then no level."""

    def forward(self, x):
        return torch.where(x >= 0, 0.7, -0.7)


class Powers(nn.Module):
    """Levels 0, 1, 2, 4 at unequal thresholds."""

    def forward(self, x):
        steps = (x > 0.13).float() + (x > 0.61).float() + 2 * (x > 1.7).float()
        return 0.25 * steps


class Wave(nn.Module):
    def forward(self, x):
        return torch.round(2 * torch.sin(x))


def ternary(w):
    return 0.2 * torch.sign(torch.round(w * 6))


class Block(nn.Module):
    def __init__(self, inputs, outputs, quantizer, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.quantizer = quantizer

    def forward(self, x):
        w = ternary(self.conv.weight)
        y = F.conv2d(x, w, None, self.conv.stride, self.conv.padding)
        return self.quantizer(self.bn(y))


class Net(nn.Module):
    def __init__(self, quantizers, tail=nn.Identity()):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.first = quantizers[0]
        self.blocks = nn.Sequential(*(Block(16, 16, q, 1 + i % 2) for i, q in enumerate(quantizers[1:])))
        self.tail = tail
        self.fc = nn.Linear(16, 7)

    def forward(self, x):
        x = self.blocks(self.first(self.stem(x)))
        return self.fc(self.tail(x).mean((2, 3)))


def build():
    return Net([Round(), Sign(), Powers(), Round()])


def wavy():
    return Net([Round(), Wave()])


def softmaxed():
    return Net([Round(), Sign()], nn.Softmax(1))


class Bytes(nn.Module):
    def forward(self, x):
        return torch.round(torch.clamp(x * 64, 0, 255)) / 64


class Huge(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Bytes()
        self.weight = nn.Parameter(torch.randn(2, 3 * 300 * 300))

    def forward(self, x):
        return F.linear(self.first(x).flatten(1), 127 * torch.sign(self.weight) - torch.sign(self.weight).relu())


def huge():
    return Huge()
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module above, importable, under a name no other test has used."""
    name = f"own_network_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def _checkpoint(package: str, factory: str, path: Path) -> Path:
    module = __import__(package)
    torch.manual_seed(3)
    network = getattr(module, factory)()
    for m in network.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.weight, -1.5, 1.5)
            torch.nn.init.uniform_(m.running_var, 0.2, 1.0)
    torch.save(network.state_dict(), path)
    return path


OPTIONS = {"input_shape": (3, 12, 12), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
CLASSES = ("Round", "Sign", "Powers")


def test_unseen_quantizers_convert_and_validate(package: str, tmp_path: Path) -> None:
    path = _checkpoint(package, "build", tmp_path / "mine.pt")
    quantizers = tuple(f"{package}.{name}" for name in CLASSES)
    artifact = convert(
        path, tmp_path / "out", bits=4, model=f"{package}:build", quantizers=quantizers, formats=("onnx",), **OPTIONS
    )
    found = {q["name"]: q["levels"] for q in artifact.report["quantizers"]}
    assert found["first"] == list(range(16))
    assert found["blocks.0.quantizer"] == [-1, 1]
    assert found["blocks.1.quantizer"] == [0, 1, 2, 4]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 256, (24, 12, 12, 3), np.uint8), labels=np.zeros(24, int))
    report = validate([artifact.files["onnx"]], checkpoint=path, data=tmp_path / "x.npz")
    assert report.passed and report.unexplained == 0
    assert next(level for level in report.levels if level.name == "integer").agreement_frozen == 100.0


@pytest.mark.parametrize(
    ("factory", "quantizers", "shape", "error", "message"),
    [
        ("wavy", ("Round", "Wave"), (3, 12, 12), FreezeError, "monotone"),
        ("softmaxed", ("Round", "Sign"), (3, 12, 12), UnsupportedOperatorError, "aten.softmax.int"),
        ("huge", ("Bytes",), (3, 300, 300), AccumulatorError, "could overflow its 32-bit accumulator"),
        ("build", ("Round", "Sign"), (3, 12, 12), QExportError, "unsupported: operator aten.gt.Scalar"),
    ],
)
def test_what_has_no_integer_form_is_refused_and_leaves_nothing(
    factory: str,
    quantizers: tuple[str, ...],
    shape: tuple[int, ...],
    error: type[QExportError],
    message: str,
    package: str,
    tmp_path: Path,
) -> None:
    path = _checkpoint(package, factory, tmp_path / "mine.pt")
    with pytest.raises(error, match=message):
        convert(
            path,
            tmp_path / "out",
            model=f"{package}:{factory}",
            quantizers=tuple(f"{package}.{name}" for name in quantizers),
            **{**OPTIONS, "input_shape": shape},
        )
    assert not (tmp_path / "out").exists()
