"""What shows that a command works: on stderr, and only where that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tqdm import tqdm

_CLEAR_LINE = "\r\x1b[K"


class StageLine:
    """The name of the running stage, in one line that disappears at the end.

    Call it with the name of each stage as it begins; `images` replaces the line by a bar of images done.
    """

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, stage: str) -> None:
        if self._shown:
            sys.stderr.write(f"{_CLEAR_LINE}{stage} ...")
            sys.stderr.flush()

    def images(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are through."""
        if not self._shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            sys.stderr.write(_CLEAR_LINE)
            self._bar = tqdm(total=total, unit="image", leave=False, file=sys.stderr)
        self._bar.update(done - self._bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._shown:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
