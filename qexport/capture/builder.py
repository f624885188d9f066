"""State of one capture: the real graph being built and what each torch value has become."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from qexport.errors import UnsupportedOperatorError
from qexport.ir import Graph, Node
from qexport.levels import recover_weight
from qexport.ops import Affine, Op, Weight


@dataclass(frozen=True)
class Norm:
    """A norm over channels in the making, which is no tensor of the IR; what is divided by it becomes one.

    Attributes:
        tensor: IR tensor whose norm it is.
        stage: "squares", their "sum", or its square "root".
        floor, added: max(root, floor) + added is what divides.
    """

    tensor: str
    stage: Literal["squares", "sum", "root"]
    floor: Fraction = Fraction(0)
    added: Fraction = Fraction(0)


@dataclass
class Builder:
    """Real graph under construction.

    Attributes:
        graph: the real IR graph.
        tensors: fx node name -> IR tensor name, for values that depend on the input.
        parts: fx node name -> IR tensors, for operators of several results.
        norms: fx node name -> norm, for what lies between an activation and its quotient by its norm.
        constants: fx node name -> evaluated value, for everything else.
        statistics: BatchNorm outputs: IR tensor -> (mean [C], standard deviation [C]) over the training data.
    """

    graph: Graph = field(default_factory=Graph)
    tensors: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, tuple[NDArray, NDArray]] = field(default_factory=dict)

    def tensor(self, argument: Any) -> str | None:
        """IR tensor of an fx argument, or None for a constant."""
        return self.tensors.get(argument.name) if isinstance(argument, torch.fx.Node) else None

    def norm(self, argument: Any) -> Norm | None:
        """The norm an fx argument is, or None."""
        return self.norms.get(argument.name) if isinstance(argument, torch.fx.Node) else None

    def moves(self, argument: Any) -> bool:
        """Whether any fx node of an argument (nested lists included) depends on the input."""
        if isinstance(argument, torch.fx.Node):
            return any(argument.name in known for known in (self.tensors, self.parts, self.norms))
        return isinstance(argument, list | tuple) and any(self.moves(a) for a in argument)

    def producer(self, tensor: str) -> Node | None:
        """The node that made an IR tensor, None for an input."""
        return next((n for n in reversed(self.graph.nodes) if n.name == tensor), None)

    def constant(self, argument: Any) -> Any:
        """Value of a constant fx argument (nested lists included)."""
        if isinstance(argument, torch.fx.Node):
            return self.constants[argument.name]
        if isinstance(argument, list | tuple):
            return type(argument)(self.constant(a) for a in argument)
        return argument

    def emit(self, node: torch.fx.Node, op: Op, *inputs: str, suffix: str = "") -> str:
        """Add an op for an fx node, named after the module (or function) it comes from."""
        return self.graph.add(self.graph.unique(node_name(node) + suffix), op, *inputs, source=source_of(node))

    def affine(self, node: torch.fx.Node, x: str, gain: NDArray, bias: NDArray, suffix: str = "") -> str:
        """Per-channel affine with the exact rationals of float64 arrays [C]; dropped where it is the identity."""
        if np.all(gain == 1) and np.all(bias == 0):
            return x
        op = Affine(tuple(Fraction(float(g)) for g in gain), tuple(Fraction(float(b)) for b in bias))
        return self.emit(node, op, x, suffix=suffix)

    def weight(self, node: torch.fx.Node, value: torch.Tensor) -> Weight:
        """Levels and scale of a constant weight tensor where it has them, else float weights."""
        array = value.detach().to(torch.float32).numpy()
        found = recover_weight(array, node_name(node))
        if found is None:
            return Weight(array.astype(np.float64))
        scales = found.scale if isinstance(found.scale, tuple) else (found.scale,) * array.shape[0]
        return Weight(found.levels.astype(np.int32), scales, level_set=tuple(found.level_set))

    def per_channel(self, node: torch.fx.Node, x: str, value: Any) -> NDArray[np.float64]:
        """A constant operand as one float64 per channel of `x`.

        Raises:
            UnsupportedOperatorError: the constant varies along another axis than the channels.
        """
        shape = self.graph.types[x].shape
        array = value.detach().double().numpy() if isinstance(value, torch.Tensor) else np.float64(value)
        if array.size == 1:
            return np.full(shape[0], float(array.reshape(())))
        padded = array.reshape((1,) * (1 + len(shape) - array.ndim) + array.shape)
        if padded.shape != (1, shape[0], *(1,) * (len(shape) - 1)):
            raise unsupported(node, f"a constant of shape {array.shape} that is no scalar and not per channel")
        return padded.reshape(-1)

    def output_shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        """Per-sample output shape of an fx node."""
        return tuple(int(n) for n in node.meta["val"].shape[1:])


def module_path(node: torch.fx.Node) -> tuple[str, str]:
    """(path, class) of the innermost module an fx node was traced in."""
    stack = [entry for entry in node.meta.get("nn_module_stack", {}).values() if not entry[0].startswith("_empty")]
    if not stack:
        return "", ""
    path, cls = stack[-1]
    return path.removeprefix("L['self']").strip("."), str(cls)


def node_name(node: torch.fx.Node) -> str:
    """Name for the IR: the module path; for a function inside a container module, path and function."""
    path, cls = module_path(node)
    function = str(node.target).split(".")[1] if "." in str(node.target) else node.name
    if path and (cls.startswith("torch.nn.modules") or function in ("step", "conv2d", "linear")):
        return path
    return f"{path}.{function}" if path else function


def source_of(node: torch.fx.Node) -> str:
    """File, line and module path of an fx node, for messages."""
    path, _ = module_path(node)
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    own = [line for line in lines if line.startswith("File") and "/torch/" not in line]
    return ", ".join(part for part in (f"module {path!r}" if path else "", own[-1] if own else "") if part)


def unsupported(node: torch.fx.Node, what: str, remedy: str | None = None) -> UnsupportedOperatorError:
    """The error for an operator, or a setting of one, that has no integer form."""
    return UnsupportedOperatorError(
        f"unsupported: {what}", where=source_of(node) or node.name, got=str(node.target), remedy=remedy
    )
