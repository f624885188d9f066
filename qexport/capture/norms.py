"""L2 normalisation over channels: torch writes it as several operators, so a norm is followed until it divides."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from qexport.capture.builder import Builder, Norm, unsupported
from qexport.capture.handlers import arguments, handles
from qexport.ops import L2Norm

CHANNELS = 1
"""torch axis of the channels."""


@handles("linalg_vector_norm.default")
def vector_norm(b: Builder, node: torch.fx.Node) -> None:
    a = arguments(node)
    if a["ord"] != 2:
        raise unsupported(node, f"a norm of order {a['ord']}", "only the Euclidean norm is supported")
    _check_axis(node, a)
    b.norms[node.name] = Norm(_operand(b, node, a["self"]), "root")


@handles("pow.Tensor_Scalar")
def square(b: Builder, node: torch.fx.Node) -> None:
    a = arguments(node)
    if a["exponent"] != 2:
        raise unsupported(node, f"the power {a['exponent']} of an activation")
    b.norms[node.name] = Norm(_operand(b, node, a["self"]), "squares")


@handles("sum.dim_IntList")
def total(b: Builder, node: torch.fx.Node) -> None:
    a = arguments(node)
    squares = _at(b, node, a["self"], "squares", "a sum of activations")
    _check_axis(node, a)
    b.norms[node.name] = replace(squares, stage="sum")


@handles("sqrt.default")
def root(b: Builder, node: torch.fx.Node) -> None:
    squares = _at(b, node, node.args[0], "sum", "the square root of an activation")
    b.norms[node.name] = replace(squares, stage="root")


def bounded(b: Builder, node: torch.fx.Node, norm: Norm, lo: Any, hi: Any) -> None:
    """clamp(norm, min=lo)."""
    if hi is not None or norm.stage != "root" or norm.added:
        raise unsupported(node, "a norm that is limited from above, or before its square root")
    b.norms[node.name] = replace(norm, floor=max(norm.floor, Fraction(float(lo))))


def raised(b: Builder, node: torch.fx.Node, norm: Norm, amount: Any) -> None:
    """norm + amount, a constant that keeps the quotient finite."""
    if norm.stage != "root" or not isinstance(amount, int | float) or amount < 0:
        raise unsupported(node, "a norm that is changed before it divides", "norm + eps is supported")
    b.norms[node.name] = replace(norm, added=norm.added + Fraction(float(amount)))


def normalized(b: Builder, node: torch.fx.Node, x: str, norm: Norm) -> str:
    """x / norm."""
    if norm.stage != "root" or norm.tensor != x:
        raise unsupported(node, "division by another norm than the activation's own")
    return b.emit(node, L2Norm(norm.floor, norm.added), x)


def _operand(b: Builder, node: torch.fx.Node, argument: Any) -> str:
    x = b.tensor(argument)
    if x is None:
        raise unsupported(node, "a constant where an activation is expected")
    return x


def _at(b: Builder, node: torch.fx.Node, argument: Any, stage: str, otherwise: str) -> Norm:
    """The norm an argument is, at one stage of its making."""
    norm = b.norm(argument)
    if norm is None or norm.stage != stage:
        raise unsupported(node, otherwise, "only dividing an activation by its L2 norm over channels is supported")
    return norm


def _check_axis(node: torch.fx.Node, a: dict[str, Any]) -> None:
    rank = len(node.meta["val"].shape)
    axes = [a["dim"]] if isinstance(a["dim"], int) else list(a["dim"] or range(rank))
    if [axis % rank for axis in axes] != [CHANNELS] or not a["keepdim"]:
        raise unsupported(node, f"a norm over axes {axes}", "only the norm over channels, with keepdim, is supported")
