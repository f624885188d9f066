"""The whole program of one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qexport.backends.packed.reader import PackedModel
from qexport.embed.describe import describe_model
from qexport.embed.layout import Layout, lay_out
from qexport.embed.operators import write_group
from qexport.embed.source import Source

ARENA_ALIGN = 16


@dataclass(frozen=True)
class Program:
    """A network as C.

    Attributes:
        layout: where it keeps its tensors.
        source: constants, kernels and functions.
        body: statements of model_run.
        arena: bytes, scratch memory included.
    """

    layout: Layout
    source: Source
    body: list[str]
    arena: int


def write_program(model: PackedModel) -> Program:
    """Generate the C of a checked file."""
    layout, source = lay_out(model), Source()
    source.kernel("mve")
    scratch = max(write_group(layout, members, source) for members in layout.groups)
    source.kernel("copy_input")
    body, at = [], 0
    for x in layout.tensors[: layout.inputs]:
        body.append(f"copy_input(in + {at}, {x.channels}u, {x.pixels}u, memory + {x.offset});")
        at += x.channels * x.pixels
    body += [f"group_{members.start}(memory);" for members in layout.groups]
    at = 0
    for t in model.sections.outputs.tolist():
        y = layout.tensors[t]
        suffix = source.kernel("copy_output", storage=y.storage)
        body.append(f"copy_output{suffix}(memory + {y.offset}, {y.base}, {y.channels}u, {y.pixels}u, out + {at});")
        at += y.channels * y.pixels
    return Program(layout, source, body, layout.arena + scratch)


def describe(program: Program) -> dict[str, Any]:
    """Values of the templates."""
    return describe_model(program.layout.model) | {
        "arena": program.arena,
        "align": ARENA_ALIGN,
        "constant_bytes": program.source.constant_bytes,
        "source": program.source,
        "body": program.body,
    }
