"""The metadata of a .qpk file (docs/packed-format.md, section 9), for everything that reads it in Python."""

from __future__ import annotations

import json
import zlib

from qexport.errors import ArtifactError

MAX_METADATA = 1 << 24
"""Bytes of JSON; compressed metadata that grows beyond is refused."""

TENSORS_KEY = "qexport.tensors"


def read_metadata(stored: bytes, where: str | None = None) -> dict[str, str]:
    """The entries of a file; nothing in them decides what is computed.

    Args:
        stored: the section: JSON, or zlib data.
        where: the file, for messages.

    Raises:
        ArtifactError: it is neither, too large, or no object of strings.
    """
    try:
        text = stored if stored.startswith(b"{") else _inflated(stored)
        found = json.loads(text)
    except (ValueError, zlib.error, RecursionError) as error:
        raise _refused("the metadata is no JSON", where, str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _refused("the metadata is no object of strings", where, type(found).__name__)
    return found


def _inflated(stored: bytes) -> bytes:
    inflate = zlib.decompressobj()
    text = inflate.decompress(stored, MAX_METADATA)
    if not inflate.eof:
        raise ValueError(f"zlib data that is cut off, or more than {MAX_METADATA} bytes")
    return text


def _refused(what: str, where: str | None, got: str) -> ArtifactError:
    remedy = "copy the file again in binary mode, or convert the checkpoint again"
    return ArtifactError(what, where=where, got=got, remedy=remedy)


def tensor_names(metadata: dict[str, str], count: int) -> list[str]:
    """Names of `count` tensors, where the metadata has a different one for each, else t0, t1 ..."""
    try:
        names = json.loads(metadata.get(TENSORS_KEY, ""))
    except (ValueError, RecursionError):
        names = None
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if are_names and len(names) == len(set(names)) == count:
        return list(names)
    return [f"t{t}" for t in range(count)]
