"""How results look on the terminal: consoles, tables, and numbers for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 120
"""Columns where stdout is no terminal and COLUMNS is not set."""

MOST_LEVELS = 9
"""Level sets beyond this size are shown as a range."""


def stdout_console() -> Console:
    """Prints to stdout; names of layers and files are never taken for markup."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    return Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)


def say(console: Console, text: str) -> None:
    """Print a sentence or a path; in a file or a pipe it stays one line."""
    console.print(text, soft_wrap=not console.is_terminal)


def table(title: str, columns: Sequence[str], *, footer: Sequence[str] = (), caption: str = "") -> Table:
    """An empty table.

    Args:
        title: printed above, left.
        columns: headings; one that starts with "<" is text, may be broken into lines and stands left, the others
            are figures, which never break and stand right.
        footer: last line, one entry a column, or none.
        caption: explanation printed below.
    """
    result = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_footer=bool(footer),
    )
    for column, last in zip(columns, footer or [""] * len(columns), strict=True):
        is_text = column.startswith("<")
        result.add_column(
            column.removeprefix("<"),
            last,
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
        )
    return result


def count(number: int | None) -> str:
    """12,345; a dash for None."""
    return "-" if number is None else f"{number:,}"


def byte_size(number: int | None) -> str:
    """288 B, 1.1 kB, 98.3 kB, 1.07 MB."""
    if number is None:
        return "-"
    if number < 1000:
        return f"{number} B"
    return f"{_three_digits(number / 1000)} kB" if number < 1e6 else f"{_three_digits(number / 1e6)} MB"


def large(number: int | None) -> str:
    """9,216, 36.9 k, 2.36 M, 1.82 G."""
    if number is None:
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{_three_digits(number / (1e3 if unit == 'k' else limit))} {unit}"
    return f"{number:,}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio(whole: int, part: int | None) -> str:
    """How many times smaller the part is: 32.0x."""
    return "-" if not part else f"{whole / part:.1f}x"


def percent(value: float | None) -> str:
    """87.50 %; a dash for None."""
    return "-" if value is None else f"{value:.2f} %"


def real(value: float | None) -> str:
    """Three significant digits, all of them shown; a dash for None."""
    if value is None:
        return "-"
    return f"{value:#.3g}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def level_set(levels: Iterable[float] | None) -> str:
    """-1 0 1, or -128..127 (256) for a long one; a dash for None."""
    if levels is None:
        return "-"
    shown = list(levels)
    if len(shown) > MOST_LEVELS:
        return f"{shown[0]:g}..{shown[-1]:g} ({len(shown)})"
    return " ".join(f"{level:g}" for level in shown)


def accumulator(bounds: Sequence[int] | None) -> str:
    """The narrowest integer type that holds proven bounds, such as int9."""
    if bounds is None:
        return "-"
    from qexport.ir.types import IntType

    return IntType.holding(int(bounds[0]), int(bounds[1])).name
