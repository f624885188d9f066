"""The table of operator handlers, and how a handler reads its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qexport.capture.builder import Builder, unsupported

Handler = Callable[[Builder, torch.fx.Node], str | list[str] | None]
HANDLERS: dict[str, Handler] = {}
"""Operator name ("conv2d.default") -> handler. It returns the IR tensor the operator becomes, a list of them for an
operator of several results, or None where it has noted in the builder what became of it."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Decorator: enter a handler under the operators it serves."""

    def enter(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


def arguments(node: torch.fx.Node) -> dict[str, Any]:
    """Arguments by their schema names, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: v for a, v in zip(schema, node.args, strict=False)} | dict(node.kwargs)
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def pair(value: Any, default: Any = None) -> tuple[int, int]:
    """(vertical, horizontal) of an argument that may be one number, a list of one or two, or left out."""
    value = default if value in (None, [], ()) else value
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))


def activation(b: Builder, node: torch.fx.Node, argument: Any) -> str:
    """IR tensor of an argument.

    Raises:
        UnsupportedOperatorError: the argument does not depend on the input, or is a norm.
    """
    x = b.tensor(argument)
    if x is None and b.norm(argument) is not None:
        raise unsupported(node, "a norm of activations", "only dividing an activation by its norm is supported")
    if x is None:
        raise unsupported(node, "a constant where an activation is expected")
    return x
