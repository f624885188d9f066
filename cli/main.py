"""Entry point: the command group, and what becomes of errors."""

from __future__ import annotations

import os
from typing import Any

import click

import qexport
from qexport.cli.bench import bench
from qexport.cli.calibrate import calibrate
from qexport.cli.convert import convert
from qexport.cli.embed import embed
from qexport.cli.inspect import inspect
from qexport.cli.models import models
from qexport.cli.run import run
from qexport.cli.validate import validate
from qexport.errors import QExportError

DEBUG_VARIABLE = "QEXPORT_DEBUG"
"""With this environment variable set to 1, errors keep their traceback."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell reports it: 128 + SIGINT."""

INTERRUPTED_TEXT = "\nInterrupted; nothing partial was left behind."


class ErrorGroup(click.Group):
    """A command group whose commands end in a message and an exit status, never in a traceback.

    QExportError and failures of the operating system: status 1. Wrong usage: 2 (click's own). Ctrl-C: 130.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(INTERRUPTED_TEXT, err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do with them; a closed pipe is no error of ours
        except Exception as error:
            if _interrupted(error):
                click.echo(INTERRUPTED_TEXT, err=True)
                ctx.exit(INTERRUPTED)
            if os.environ.get(DEBUG_VARIABLE) == "1":
                raise
            raise click.ClickException(_message(error)) from error


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error comes from Ctrl-C: during the import of a compiled module it arrives as ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _message(error: Exception) -> str:
    """What to tell the user; anything not raised on purpose is a bug, and said to be one."""
    if isinstance(error, QExportError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    text = str(error).strip().splitlines()
    return (
        f"internal error, {type(error).__name__}{': ' + text[0] if text else ''}\n"
        f"  remedy:   this is a bug of qexport; please report it with the output of {DEBUG_VARIABLE}=1"
    )


@click.group(cls=ErrorGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(qexport.__version__, prog_name="qexport")
def main() -> None:
    """Turn a network trained with soft quantizers into verified integer inference.

    convert writes integer-only ONNX from a checkpoint, calibrate measures ranges for it on images, validate proves it
    on data, inspect shows what a file holds, run classifies images with the result, bench measures its speed, embed
    writes it as C, models lists the architectures.
    """


for command in (calibrate, convert, validate, inspect, run, bench, embed, models):
    main.add_command(command)
