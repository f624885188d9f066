"""Option types, and the options several commands share. What a value means is checked by the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

MAX_BITS = click.IntRange(1, 8)
"""Bit widths of quantizers; here as well as in Settings, so that 0 is refused rather than taken for "not given"."""

Command = TypeVar("Command", bound=Callable[..., Any])


class NumberList(click.ParamType):
    """Numbers separated by commas, as a tuple.

    Args:
        kind: int or float.
        example: shown where a value cannot be read.
    """

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], example: str) -> None:
        self.kind = kind
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            what = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"{value!r} is no list of {what} separated by commas, such as {self.example}", param, ctx)


class NameList(click.ParamType):
    """Words separated by commas, as a tuple without repetitions."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        return names or self.fail("the list is empty", param, ctx)


class EdgeBits(click.ParamType):
    """A number of bits, or "max", which stays a word: None means that the option was not given."""

    name = "4|8|16|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "max":
            return "max"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of bits nor 'max'", param, ctx)


METHODS = ("max", "average", "percentile", "entropy", "mse", "output")
"""Names of calibration methods; the library's own, which is imported only when a command runs."""

EDGE_BITS = click.option(
    "--edge-bits",
    type=EdgeBits(),
    metavar="4|8|16|max",
    help="Weight bits of layers that training left float; max is what int32 accumulators allow.  [default: max]",
)

ACT_BUDGET = click.option(
    "--act-budget",
    type=float,
    metavar="B",
    help="Mean bits of activations that training left float: each gets its own, by what it does to the output.",
)


def method_option(name: str) -> Callable[[Command], Command]:
    """The option that names a calibration method."""
    return click.option(
        name,
        type=click.Choice(METHODS),
        metavar="M",
        help=f"How ranges follow from images: {', '.join(METHODS)}.  [default: mse]",
    )


_CODE = (
    click.option("--model", metavar="M:F", help="Your own network: package.module:factory builds it."),
    click.option(
        "--quantizer",
        "quantizers",
        metavar="pkg.Class",
        multiple=True,
        help="A quantizer class of your own network; repeatable.",
    ),
    click.option(
        "--qn-biases",
        metavar="FILE",
        type=click.Path(),
        help="Weight biases (JSON) for Quantization Networks files that lack them.",
    ),
    click.option(
        "--temperature", type=float, metavar="T", help="Final temperature of the soft quantizers, if the file lacks it."
    ),
)

_TRAINING = (
    click.option("--bits", type=MAX_BITS, metavar="N", help="Bits that weights and activations were trained for."),
    click.option("--weight-bits", type=MAX_BITS, metavar="N", help="Bits of the weights, where they differ."),
    click.option("--act-bits", type=MAX_BITS, metavar="N", help="Bits of the activations, where they differ."),
    click.option(
        "--weight-levels",
        type=NumberList(int, "-1,0,1"),
        metavar="=-1,0,1",
        help="Integer levels of the weights, where the file leaves them open.",
    ),
    click.option("--family", metavar="F", help="Layout of the checkpoint file: daq, qn, native or user.  [detected]"),
    click.option("--arch", metavar="A", help="Architecture the file must hold.  [detected]"),
)

_PREPROCESSING = (
    click.option(
        "--mean", type=NumberList(float, "0.485,0.456,0.406"), metavar="R,G,B", help="Subtracted from pixels / 255."
    ),
    click.option("--std", type=NumberList(float, "0.229,0.224,0.225"), metavar="R,G,B", help="Divides the difference."),
    click.option("--input-shape", type=NumberList(int, "3,32,32"), metavar="C,H,W", help="Size of one image."),
)


def checkpoint_options(command: Command) -> Command:
    """Everything a caller may state about a checkpoint."""
    return _with((*_TRAINING, *_CODE, *_PREPROCESSING), command)


def override_options(command: Command) -> Command:
    """Local files and code that an artifact names but another machine may hold elsewhere."""
    return _with(_CODE, command)


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):  # decorators apply from the last to the first
        command = option(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as the library wants them."""
    found = {name: value for name, value in options.items() if value is not None and value != ()}
    if found.get("edge_bits") == "max":
        found["edge_bits"] = None  # as many as the accumulators allow
    return found
