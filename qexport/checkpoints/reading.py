"""Safe reading of checkpoint files: nothing a file says is ever executed."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from qexport.errors import CheckpointError

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_PROTOCOL = b"\x80"
_LOADABLE = "a file written by torch.save (zip or legacy) or a safetensors file"
_RESAVE = (
    "where you trust the file, load it once in the training environment and save only its tensors: "
    'torch.save({"state_dict": model.state_dict()}, "clean.pt")'
)


@dataclass(frozen=True)
class FileContent:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        sha256: hexadecimal digest of its bytes.
        n_bytes: its size.
        value: the object torch.load returned, or a dict of tensors for safetensors. Untrusted.
    """

    path: Path
    sha256: str
    n_bytes: int
    value: object


def read_checkpoint_file(path: str | Path) -> FileContent:
    """Read a checkpoint without running any code from it; tensors land on the CPU.

    Raises:
        CheckpointError: the file is missing, empty, no regular file, no checkpoint, truncated, or needs arbitrary
            unpickling.
    """
    path = Path(path)
    where = str(path)
    if not path.exists():
        raise CheckpointError("no such file", where=where, expected=_LOADABLE)
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "no regular file"
        raise CheckpointError("a checkpoint is a single file", where=where, got=kind, expected=_LOADABLE)
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            n_bytes = stream.tell()
            stream.seek(0)
            return FileContent(path, digest, n_bytes, _parse(stream, where))
    except OSError as error:
        raise CheckpointError("the file cannot be read", where=where, got=error) from error


def _parse(stream: BinaryIO, where: str) -> object:
    head = stream.read(9)
    stream.seek(0)
    if not head:
        raise CheckpointError("the file is empty", where=where, got="0 bytes", expected=_LOADABLE)
    if _is_safetensors(head):
        return _parse_safetensors(stream, where)
    if head.startswith(_ZIP_MAGIC):
        _check_archive(stream, where)
    elif not head.startswith(_PICKLE_PROTOCOL):
        raise CheckpointError("not a checkpoint", where=where, got=f"first bytes {head!r}", expected=_LOADABLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about oddities of files that are refused a moment later
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the parser of an untrusted file may fail in any way; all of them mean "unreadable"
        raise _explain(error, where) from error


def _is_safetensors(head: bytes) -> bool:
    """A little-endian header length within the format's limit of 100 MB, then the brace of a JSON object."""
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def _parse_safetensors(stream: BinaryIO, where: str) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(stream.read())
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError("damaged safetensors file", where=where, got=error, remedy="copy it again") from error


def _check_archive(stream: BinaryIO, where: str) -> None:
    """Refuse what torch.save never writes: compressed members (a few bytes may unpack to gigabytes), no pickle.

    Raises:
        CheckpointError: with the remedy for that case.
    """
    try:
        members = zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged(error, where) from error
    finally:
        stream.seek(0)
    names = [member.filename for member in members]
    inner = [name for name in names if name.endswith((".pt", ".pth", ".tar", ".safetensors"))]
    if inner:
        raise CheckpointError(
            "a zip archive that holds a checkpoint, not a checkpoint",
            where=where,
            got=", ".join(inner[:8]),
            expected=_LOADABLE,
            remedy="unpack the archive and give the file inside",
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(
            "not a checkpoint", where=where, got=f"a zip archive of {', '.join(names[:8])}", expected=_LOADABLE
        )
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            "a TorchScript archive holds a program, not only tensors",
            where=where,
            expected=_LOADABLE,
            remedy="save the state_dict of the scripted module instead",
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(
            "the archive is compressed, which torch.save never does",
            where=where,
            expected=_LOADABLE,
            remedy="write the checkpoint again with torch.save",
        )


def _explain(error: Exception, where: str) -> CheckpointError:
    """Tell a file that asks for code from one that is merely damaged."""
    text = str(error)
    if "nsupported" not in text and "not an allowed global" not in text and "weights_only" not in text:
        return _damaged(error, where)
    wanted = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"class (\S+)", text)
    return CheckpointError(
        "loading this file would run code from it, which is refused",
        where=where,
        got=f"the pickle asks for {wanted.group(1)}" if wanted else text.splitlines()[0],
        expected="tensors, numbers, strings, lists and dicts only",
        remedy=_RESAVE,
    )


def _damaged(error: Exception, where: str) -> CheckpointError:
    lines = io.StringIO(str(error)).readline().strip()
    return CheckpointError(
        "the file is truncated or damaged",
        where=where,
        got=f"{type(error).__name__}: {lines}",
        expected=_LOADABLE,
        remedy="copy or download it again and compare its checksum",
    )
