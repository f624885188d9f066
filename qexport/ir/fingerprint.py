"""A short name for what a graph computes, so that two builds of it can be compared without keeping both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from qexport.ir.graph import Graph

DIGITS = 16
"""Hexadecimal digits: 64 bits tell builds apart, they do not guard against forgery."""


def fingerprint(graph: Graph) -> str:
    """Hexadecimal digits that depend on inputs, nodes, attributes and outputs: names and every number, ranges included.

    The number type an array happens to have does not matter, nor does where a node came from.
    """
    digest = hashlib.sha256()
    for name, tensor in graph.inputs.items():
        digest.update(b"".join(_parts((name, tensor))))
    for node in graph.nodes:
        digest.update(b"".join(_parts((node.name, node.inputs, node.op))))
    digest.update(b"".join(_parts(graph.outputs)))
    return digest.hexdigest()[:DIGITS]


def _parts(value: Any) -> Iterator[bytes]:
    """An unambiguous writing of attributes: numbers, strings, arrays, and whatever is made of them."""
    if isinstance(value, np.ndarray):
        exact = value.astype("<i8" if value.dtype.kind in "biu" else "<f8")
        yield f"array{exact.shape}{exact.dtype.kind}:".encode()
        yield exact.tobytes()
    elif is_dataclass(value):
        yield f"{type(value).__name__}(".encode()
        for field in fields(value):
            yield f"{field.name}=".encode()
            yield from _parts(getattr(value, field.name))
        yield b")"
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}:".encode()
        for item in value:
            yield from _parts(item)
    else:
        yield f"{value!r};".encode()
