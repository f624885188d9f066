"""Files that are no checkpoints, damaged ones, and ones that want to run code: refused, with the remedy."""

from __future__ import annotations

import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from qexport.checkpoints import families, load_checkpoint, save_native
from qexport.checkpoints.reading import read_checkpoint_file
from qexport.errors import CheckpointError, OptionError, QExportError
from qexport.models.registry import build


class Payload:
    """Pickles into a call that creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def good_file(path: Path, legacy: bool = False) -> Path:
    content = {"state_dict": {"a": torch.arange(1000.0)}, "epoch": 1}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", ["bare", "state_dict", "optimizer"])
def test_pickled_code_is_refused_and_never_runs(tmp_path: Path, legacy: bool, wrap: str) -> None:
    target = tmp_path / "was-run"
    payload = Payload(target)
    content = payload if wrap == "bare" else {"state_dict": {"a": torch.ones(2)}, wrap: {"x": payload}}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"would run code[\s\S]*posix.mkdir|nt.mkdir") as caught:
        load_checkpoint(tmp_path / "evil.pt")
    assert 'torch.save({"state_dict": model.state_dict()}' in str(caught.value)
    assert not target.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"would run code[\s\S]*torch.nn.modules.linear.Linear[\s\S]*remedy"):
        load_checkpoint(tmp_path / "module.pt")


def test_plain_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    target = tmp_path / "was-run"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"state_dict": Payload(target)}))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "plain.pkl")
    assert not target.exists()


def zip_with(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def recompressed(path: Path) -> None:
    good_file(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    zip_with(path, members, zipfile.ZIP_DEFLATED)


NOT_CHECKPOINTS = {
    "empty": (lambda p: p.write_bytes(b""), r"the file is empty[\s\S]*expected: a file written by torch.save"),
    "text": (lambda p: p.write_text("<html>404 not found</html>"), r"not a checkpoint[\s\S]*<html>"),
    "png": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)), "not a checkpoint"),
    "zeros": (lambda p: p.write_bytes(bytes(4096)), "not a checkpoint"),
    "short": (lambda p: p.write_bytes(b"\x80"), "truncated or damaged"),
    "other zip": (lambda p: zip_with(p, {"a.txt": b"hello"}), r"not a checkpoint[\s\S]*a zip archive of a.txt"),
    "zipped": (lambda p: zip_with(p, {"best.pt": b"x"}), r"holds a checkpoint[\s\S]*best.pt[\s\S]*unpack the archive"),
    "deflated": (recompressed, r"compressed[\s\S]*write the checkpoint again"),
    "script": (lambda p: torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), p), "TorchScript"),
    "directory": (lambda p: p.mkdir(), r"a single file[\s\S]*a directory"),
    "missing": (lambda p: None, "no such file"),
    "safetensors cut": (
        lambda p: p.write_bytes(struct.pack("<Q", 40) + b'{"a":{"dtype":"F32","shape":[9],"data_o'),
        "damaged safetensors",
    ),
    "safetensors lies": (
        lambda p: p.write_bytes(
            struct.pack("<Q", 58) + b'{"a":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}} ' + b"xx"
        ),
        "damaged safetensors",
    ),
    "list": (lambda p: torch.save([1, 2, 3], p), r"family is not recognised[\s\S]*an object of type list"),
    "dict": (
        lambda p: torch.save({"weights": torch.ones(1), "epoch": 3}, p),
        r"not recognised[\s\S]*a dict with 2 keys: weights, epoch[\s\S]*daq: tensors named[\s\S]*native: the key"
        r"[\s\S]*qn: lists alpha and beta[\s\S]*--family[\s\S]*--model package.module:factory",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NOT_CHECKPOINTS)
def test_not_a_checkpoint(tmp_path: Path, name: str) -> None:
    make, message = NOT_CHECKPOINTS[name]
    path = tmp_path / "file.pt"
    make(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, legacy: bool, keep: float) -> None:
    path = good_file(tmp_path / "file.pt", legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=r"truncated or damaged[\s\S]*download it again"):
        load_checkpoint(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = good_file(tmp_path / "file.pt")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read[\s\S]*Permission denied"):
        load_checkpoint(path)


def test_cuda_tensors_come_to_the_cpu(tmp_path: Path) -> None:
    """The storage location of every tensor is rewritten from cpu to cuda:0, as a GPU machine would have saved it."""
    path = good_file(tmp_path / "file.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    location = b"X\x03\x00\x00\x00cpu"
    assert location in members[pickled]
    members[pickled] = members[pickled].replace(location, b"X\x06\x00\x00\x00cuda:0")
    zip_with(path, members)
    value = read_checkpoint_file(path).value
    assert isinstance(value, dict)
    assert value["state_dict"]["a"].device.type == "cpu"
    assert torch.equal(value["state_dict"]["a"], torch.arange(1000.0))


def test_more_than_one_family_fits(tmp_path: Path) -> None:
    state = {"layer1.block_0.0.conv1.weight": torch.ones(1)}
    torch.save({"state_dict": state, "alpha": [1.0], "beta": [1.0]}, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"more than one checkpoint family[\s\S]*daq, qn[\s\S]*--family"):
        load_checkpoint(tmp_path / "file.pt")


def test_unknown_family(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown checkpoint family[\s\S]*lsq[\s\S]*one of daq, native, qn, user"):
        load_checkpoint(good_file(tmp_path / "file.pt"), family="lsq")


@pytest.mark.parametrize("family", [f for f in families() if f != "user"])
@pytest.mark.parametrize("value", [[1], {}, {"state_dict": 3}, {"state_dict": {}}, {3: torch.ones(1)}], ids=str)
def test_forced_family_on_foreign_content(tmp_path: Path, family: str, value: object) -> None:
    torch.save(value, tmp_path / "file.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "file.pt", family=family)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_flipped_bytes_never_escape_as_another_error(tmp_path: Path, legacy: bool) -> None:
    """400 damaged files: each either still loads or is refused with an error of ours."""
    path = tmp_path / "file.pt"
    save_native(
        path,
        build("qn-digits", widths=(4, 4)),
        arch="qn-digits",
        arguments={"widths": (4, 4)},
        input_shape=(1, 8, 8),
        mean=(0.0,),
        std=(1.0,),
    )
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    source = random.Random(7)
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(len(data))] = source.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except QExportError:
            continue
