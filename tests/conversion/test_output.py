"""Files appear all or not at all, also where the disk fills up."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from qexport.conversion.output import staged
from qexport.errors import OutputError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match="the disk is full") as caught, staged(tmp_path / "a" / "b") as staging:
        (staging / "model.onnx").write_bytes(b"half")
        raise OSError(code, "no room")
    assert caught.value.where == str(tmp_path / "a" / "b") and caught.value.got == "no room"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_that_a_writer_has_named_is_named_by_the_directory(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="the disk is full") as caught, staged(target) as staging:
        try:
            raise OSError(errno.ENOSPC, "no room")
        except OSError as error:
            raise OutputError("the model cannot be written", where=str(staging / "model.onnx")) from error
    assert caught.value.where == str(target) and caught.value.got == "no room"
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), staged(tmp_path):
        raise PermissionError(errno.EPERM, "not yours")
    assert list(tmp_path.iterdir()) == []
