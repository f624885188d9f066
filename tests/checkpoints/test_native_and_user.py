"""Our own format there and back, and networks the library has never seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qexport.checkpoints import load_checkpoint, save_native
from qexport.errors import CheckpointError, OptionError, OutputError, QExportError
from qexport.models.quantizers import set_soft
from qexport.models.registry import build

PREPROCESSING: dict[str, Any] = {"input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.4,)}


@pytest.fixture
def native(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "digits.pt"
    save_native(
        path,
        build("qn-digits", widths=(4, 8)),
        arch="qn-digits",
        arguments={"widths": (4, 8)},
        temperature=50,
        class_names=[str(d) for d in range(10)],
        **PREPROCESSING,
    )
    return path


def test_native_round_trip(native: Path) -> None:
    torch.manual_seed(0)
    model = build("qn-digits", widths=(4, 8)).eval()
    checkpoint = load_checkpoint(native)
    assert (checkpoint.family, checkpoint.arch, checkpoint.temperature) == ("native", "qn-digits", 50.0)
    assert checkpoint.input_shape == (1, 8, 8) and checkpoint.mean == (0.3,) and checkpoint.std == (0.4,)
    assert checkpoint.class_names == tuple("0123456789") and checkpoint.notes == ()
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(checkpoint.model(x), model(x))
        assert set_soft(checkpoint.model, True) == 13
        assert not torch.equal(checkpoint.model(x), model(x))


def test_native_replaces_atomically_and_leaves_nothing_behind(native: Path) -> None:
    before = native.read_bytes()
    model = build("qn-digits", widths=(4, 8))
    with pytest.raises(OptionError, match=r"qn-digits: the network is not the one"):
        save_native(native, model, arch="qn-digits", arguments={}, **PREPROCESSING)
    with pytest.raises(OutputError, match="cannot be written"):
        save_native(
            native.parent / "absent" / "x.pt", model, arch="qn-digits", arguments={"widths": (4, 8)}, **PREPROCESSING
        )
    with pytest.raises(OutputError, match="cannot be written"):
        save_native(native.parent, model, arch="qn-digits", arguments={"widths": (4, 8)}, **PREPROCESSING)
    assert native.read_bytes() == before
    assert [p.name for p in native.parent.iterdir()] == ["digits.pt"]
    assert not list(native.parent.parent.glob(f".{native.parent.name}.*"))


NATIVE_DEFECTS: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, r"version is unknown[\s\S]*got:      2[\s\S]*newer"),
    ({"arch": "resnet18"}, "unknown architecture"),
    ({"arch": None}, r"arch: a field of the native checkpoint is missing"),
    ({"arguments": {"widths": 4}}, "cannot be built"),
    ({"arguments": {"widths": [-4, 8]}}, "cannot be built"),
    ({"arguments": {"widths": [10**12, 10**12]}}, "cannot be built"),
    ({"arguments": {"widths": [10**6, 10**6]}}, "other shapes"),
    ({"arguments": {"depth": 4}}, "does not know these arguments"),
    ({"arguments": {5: 4}}, "cannot be built"),
    ({"arguments": {}}, "other shapes"),
    ({"state_dict": {}}, "missing: bn1.bias"),
    ({"preprocessing": {"input_shape": [8, 8], "mean": [0.0], "std": [1.0]}}, "input_shape is not C, H, W"),
    ({"preprocessing": {"input_shape": [1, 8, 8], "mean": ["a"], "std": [1.0]}}, "mean: no list of numbers"),
    ({"preprocessing": {"input_shape": [1, 8, 8], "mean": [0.0]}}, "std: a field"),
    ({"temperature": "hot"}, "temperature: a field"),
    ({"temperature": -1.0}, "temperature is a positive number"),
    ({"class_names": "abc"}, "class_names: a field"),
]


@pytest.mark.parametrize(("change", "message"), NATIVE_DEFECTS, ids=[str(d[0])[:40] for d in NATIVE_DEFECTS])
def test_native_defects(native: Path, change: dict[str, Any], message: str) -> None:
    content = torch.load(native, weights_only=True) | change
    torch.save(content, native)
    with pytest.raises(QExportError, match=message):
        load_checkpoint(native)


def test_native_is_not_another_network(native: Path) -> None:
    with pytest.raises(OptionError, match="another network than --arch says"):
        load_checkpoint(native, arch="qn-resnet20")
    with pytest.raises(CheckpointError, match="not a native qexport checkpoint"):
        torch.save({"state_dict": {"a": torch.ones(1)}}, native)
        load_checkpoint(native, family="native")


class RoundToThirds(nn.Module):
    """A quantizer the library has never seen."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * 3) / 3


def make_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), RoundToThirds(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()


WRAPPINGS = [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    lambda state: {"model_state_dict": state},
]


@pytest.mark.parametrize("wrap", WRAPPINGS, ids=["bare", "state_dict", "model, DataParallel", "model_state_dict"])
def test_user_network(tmp_path: Path, wrap: Any) -> None:
    model = make_network()
    torch.save(wrap(model.state_dict()), tmp_path / "mine.pt")
    name = f"{RoundToThirds.__module__}.RoundToThirds"
    checkpoint = load_checkpoint(tmp_path / "mine.pt", model=make_network, quantizers=[name], input_shape=(3, 8, 8))
    assert checkpoint.family == "user" and checkpoint.arch == "make_network"
    assert checkpoint.quantizer_types == (RoundToThirds,)
    assert "converted tensors of type torch.float64 to torch.float32" in checkpoint.notes
    assert all(p.dtype == torch.float32 for p in checkpoint.model.parameters())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(checkpoint.model(x), model.eval().float()(x))


def test_user_network_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net_for_qexport.py").write_text(
        "from torch import nn\n"
        "class Make:\n"
        "    @staticmethod\n"
        "    def net():\n"
        "        return nn.Linear(2, 3)\n"
        "def fails():\n"
        "    raise KeyError('no such width')\n"
        "def nothing():\n"
        "    pass\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_net_for_qexport", raising=False)
    torch.save(nn.Linear(2, 3).state_dict(), "mine.pt")
    path = list(sys.path)
    checkpoint = load_checkpoint("mine.pt", model="my_net_for_qexport:Make.net")
    assert checkpoint.arch == "my_net_for_qexport:Make.net" and isinstance(checkpoint.model, nn.Linear)
    assert sys.path == path
    for name, message in [
        ("my_net_for_qexport", "--model is malformed"),
        ("absent_module_x:f", r"cannot be imported[\s\S]*ModuleNotFoundError"),
        ("my_net_for_qexport:absent", r"cannot be imported[\s\S]*AttributeError"),
        ("my_net_for_qexport:fails", r"factory failed[\s\S]*KeyError: 'no such width'"),
        ("my_net_for_qexport:nothing", r"returned no network[\s\S]*NoneType"),
        ("my_net_for_qexport:number", "not callable"),
    ]:
        with pytest.raises(OptionError, match=message):
            load_checkpoint("mine.pt", model=name)


def test_user_network_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save(nn.Linear(2, 3).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"missing: 0.bias, 0.weight, 3.bias, 3.weight; surplus: bias, weight"):
        load_checkpoint(path, model=make_network)
    with pytest.raises(OptionError, match=r"no module of the network is of this[\s\S]*RoundToThirds"):
        torch.save(make_network().state_dict(), path)
        load_checkpoint(path, model=make_network, quantizers=["other.Quantizer"])
    with pytest.raises(OptionError, match=r"--model: checkpoints of the family 'daq' have no use"):
        load_checkpoint(path, model=make_network, family="daq")
    with pytest.raises(OptionError, match=r"--quantizer: checkpoints of the family 'qn' have no use"):
        load_checkpoint(path, family="qn", quantizers=["a.B"])
    with pytest.raises(OptionError, match=r"needs your network[\s\S]*--model package.module:factory"):
        load_checkpoint(path, family="user")
    with pytest.raises(OptionError, match="no soft quantizer with a temperature"):
        load_checkpoint(path, model=make_network, temperature=3.0)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"no state dict[\s\S]*an object of type list"):
        load_checkpoint(path, model=make_network)
