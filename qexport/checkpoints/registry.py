"""Checkpoint families as plug-ins: each module registers how to recognise and how to load its layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qexport.checkpoints.checkpoint import Loaded, LoadOptions
from qexport.checkpoints.reading import FileContent
from qexport.errors import CheckpointError, OptionError


@dataclass(frozen=True)
class Family:
    """One layout of checkpoint files.

    Attributes:
        name: what --family calls it.
        sign: what the detection looks for, in words, for error messages.
        recognises: whether a file's content has that sign; must not raise, whatever the content.
        load: builds the network; raises CheckpointError or OptionError.
        options: the fields of LoadOptions that only some families understand, and this one does.
    """

    name: str
    sign: str
    recognises: Callable[[FileContent], bool]
    load: Callable[[FileContent, LoadOptions], Loaded]
    options: frozenset[str] = frozenset()


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Make a family known; a later one of the same name replaces it."""
    _FAMILIES[family.name] = family


def families() -> tuple[str, ...]:
    """The known names, in the order of registration."""
    return tuple(_FAMILIES)


def family_of(content: FileContent, name: str | None) -> Family:
    """The family called `name`, or the only one that recognises the content.

    Raises:
        OptionError: `name` is unknown.
        CheckpointError: no family, or more than one, recognises the content.
    """
    if name is not None:
        if name not in _FAMILIES:
            raise OptionError("unknown checkpoint family", got=name, expected=f"one of {', '.join(_FAMILIES)}")
        return _FAMILIES[name]
    found = [family for family in _FAMILIES.values() if family.recognises(content)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            "the file fits more than one checkpoint family",
            where=str(content.path),
            got=", ".join(family.name for family in found),
            remedy="choose one with --family",
        )
    signs = "; ".join(f"{family.name}: {family.sign}" for family in _FAMILIES.values())
    raise CheckpointError(
        "the checkpoint's family is not recognised",
        where=str(content.path),
        got=describe(content.value),
        expected=signs,
        remedy="name it with --family, or give your network with --model package.module:factory",
    )


def describe(value: object) -> str:
    """A few words on what a file holds: its type and first keys."""
    if isinstance(value, dict):
        keys = ", ".join(str(key) for key in list(value)[:8])
        return f"a dict with {len(value)} keys: {keys}{', ...' if len(value) > 8 else ''}"
    return f"an object of type {type(value).__name__}"
