"""The metadata every artifact carries (docs/artifact-metadata.md): strings, most of them JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qexport.errors import ArtifactError

_TEXT_KEYS = (
    "source_sha256",
    "source_file",
    "version",
    "graph",
    "family",
    "architecture",
    "preprocessing",
    "format",
    "qdq_notes",
)


def decode_metadata(properties: dict[str, str], path: str | Path) -> dict[str, Any]:
    """The entries that qexport writes, decoded; {} for a foreign file.

    Raises:
        ArtifactError: a value is not the JSON it should be.
    """
    return {key: _decoded(key, text, path) for key, text in properties.items() if key.startswith("qexport.")}


def _decoded(key: str, text: str, path: str | Path) -> Any:
    if key.removeprefix("qexport.") in _TEXT_KEYS:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArtifactError(
            "the metadata is damaged",
            where=f"{path}: {key}",
            got=text[:60],
            expected="JSON",
            remedy="convert the checkpoint again",
        ) from error
