"""Writing several files so that either all of them appear or none."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qexport.errors import OutputError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What writing fails with where there is no room."""


@contextmanager
def staged(directory: str | Path) -> Iterator[Path]:
    """A temporary folder whose files move into `directory` when the block ends without an error.

    The directory is made if needed and removed again if it was made here and the block fails; files that were
    there before are replaced only by complete ones.

    Raises:
        OutputError: the directory cannot be made or written, or its disk is full.
    """
    target = Path(directory)
    made = [p for p in (target, *target.parents) if not p.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".qexport-", dir=target))
    except OSError as error:
        _remove_empty(made)
        raise _unwritable(target, error) from error
    try:
        yield staging
        for file in sorted(staging.iterdir()):
            try:
                os.replace(file, target / file.name)
            except OSError as error:
                raise _unwritable(target / file.name, error) from error
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)
        # Writers of single files name the file in the staging directory, which nobody knows.
        cause = error.__cause__ if isinstance(error, OutputError) else error
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise OutputError(
                "the disk is full",
                where=str(target),
                got=cause.strerror,
                remedy="free some space, or choose another disk with -o; nothing partial was left behind",
            ) from cause
        raise
    staging.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with staged(path.parent) as staging:
        (staging / path.name).write_text(text, encoding="utf-8")


def _remove_empty(made: list[Path]) -> None:
    for path in made:
        try:
            path.rmdir()
        except OSError:
            return


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "the output cannot be written",
        where=str(path),
        got=error.strerror or str(error),
        expected="a directory that exists or can be made, and is writable",
        remedy="choose another one with -o",
    )
