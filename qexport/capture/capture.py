"""From a frozen nn.Module to the real graph: torch.export, constants folded in the module's own arithmetic."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.export.graph_signature import OutputKind

from qexport.capture import movement, norms, operators, pooling  # noqa: F401  (their handlers enter the table)
from qexport.capture.builder import Builder, unsupported
from qexport.capture.handlers import HANDLERS
from qexport.capture.rearrange import quantize_before_pooling, shorten
from qexport.errors import OptionError, UnsupportedOperatorError
from qexport.ir import Graph, prune, real, verify
from qexport.ops import Affine

INPUT = "image"
EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class Captured:
    """A captured network.

    Attributes:
        graph: real graph; its input "image" [C, H, W] holds pixel values 0..255, normalisation is its first op.
        statistics: BatchNorm outputs: tensor -> (mean [C], standard deviation [C]) over the training data.
    """

    graph: Graph
    statistics: dict[str, tuple[NDArray, NDArray]]


def capture(
    module: nn.Module,
    input_shape: tuple[int, ...],
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Captured:
    """Capture a frozen network.

    Everything that does not depend on the input (weight quantizers written inside forward included) is
    evaluated once by torch, in the arithmetic and memory layout of the module.

    Args:
        module: eval mode, float32, on the CPU; quantizers frozen to qexport::step.
        input_shape: (C, H, W) or (F,).
        mean, std: normalisation (x / 255 - mean) / std per channel; None means 0 and 1.

    Raises:
        UnsupportedOperatorError: an operator with no integer form, with its place in the source.
        OptionError: mean and std do not fit the channels.
    """
    exported = _export(module, input_shape)
    b = Builder()
    b.graph.add_input(INPUT, real(input_shape, 0.0, 255.0))
    normalized = b.graph.add("normalize", _normalization(input_shape[0], mean, std), INPUT)
    constants = _graph_constants(exported)
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if node.name in constants:
                b.constants[node.name] = constants[node.name]
            else:
                b.tensors[node.name] = normalized
        elif node.op == "call_function":
            _visit(b, node)
        elif node.op == "output":
            _outputs(b, node, exported.graph_signature)
    graph = quantize_before_pooling(shorten(prune(b.graph)))
    verify(graph)
    return Captured(graph, {k: v for k, v in b.statistics.items() if k in graph.types})


def _export(module: nn.Module, input_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    example = torch.zeros(EXAMPLE_BATCH, *input_shape)
    try:
        exported = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("N")},))
        # Only then: it takes as long as the export, and may restate an operator.
        return exported.run_decompositions({}) if _needs_functional_form(exported) else exported
    except Exception as error:  # torch.export raises many unrelated types; the user needs its text, not its type
        raise UnsupportedOperatorError(
            "torch.export cannot capture the network",
            where=type(module).__name__,
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            remedy="the forward must not branch on data and must accept any batch size; check --input-shape",
        ) from error


def _needs_functional_form(exported: torch.export.ExportedProgram) -> bool:
    """Whether a value may change after it was made (in place, through a view), or torch.no_grad wraps operators."""
    for node in exported.graph.nodes:
        if node.op == "get_attr":
            return True
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            return True
    return False


def _normalization(channels: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Affine:
    """(x / 255 - mean) / std as exact decimals: 0.485 means 485/1000, not its float."""

    def exact(values: tuple[float, ...] | None, default: int, option: str) -> list[Fraction]:
        given = [Fraction(repr(float(v))) for v in values or (default,)]
        if len(given) not in (1, channels):
            raise OptionError(f"{option} does not fit the input", got=len(given), expected=f"1 or {channels} values")
        return given * channels if len(given) == 1 else given

    m, s = exact(mean, 0, "--mean"), exact(std, 1, "--std")
    if any(v <= 0 for v in s):
        raise OptionError("--std must be positive", got=[float(v) for v in s])
    return Affine(tuple(1 / (255 * v) for v in s), tuple(-a / v for a, v in zip(m, s, strict=True)))


def _graph_constants(exported: torch.export.ExportedProgram) -> dict[str, Any]:
    """Placeholder name -> parameter, buffer or lifted constant."""
    signature = exported.graph_signature
    lifted = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    sources: dict[str, Any] = {**exported.constants, **exported.state_dict}
    return {placeholder: sources[target] for placeholder, target in lifted.items()}


def _visit(b: Builder, node: torch.fx.Node) -> None:
    """Fold a node that depends on no input, else lower it by its handler."""
    if not node.users:
        return  # a part of a split that nobody reads, or what x.float() leaves behind
    # Expanding copies nothing, and its sizes may hold the batch's, which no constant knows.
    if not b.moves([*node.args, *node.kwargs.values()]) and node.target is not torch.ops.aten.expand.default:
        with torch.no_grad():
            args, kwargs = b.constant(node.args), {k: b.constant(v) for k, v in node.kwargs.items()}
            b.constants[node.name] = node.target(*args, **kwargs)  # type: ignore[operator]
        return
    if node.target is torch.ops.aten.sym_size.int:
        b.constants[node.name] = node.meta["val"]  # only views use it, and they read their shape from the tracer
        return
    if node.target is operator.getitem:
        _part(b, node)
        return
    name = str(node.target).split(".", 1)[-1]
    handler = HANDLERS.get(name)
    if handler is None:
        raise unsupported(
            node,
            f"operator {node.target}",
            "replace it by a supported one; a scalar quantizer is named with --quantizer package.Class",
        )
    made = handler(b, node)
    if isinstance(made, list):
        b.parts[node.name] = made
    elif made is not None:
        b.tensors[node.name] = made


def _part(b: Builder, node: torch.fx.Node) -> None:
    """One result of an operator of several."""
    source, index = node.args
    assert isinstance(source, torch.fx.Node) and isinstance(index, int)
    # Batch norm in functional form returns statistics beside its one tensor.
    parts = b.parts.get(source.name) or [b.tensors[source.name]]
    if index >= len(parts):
        raise unsupported(node, f"result {index} of {source.target}")
    b.tensors[node.name] = parts[index]


def _outputs(b: Builder, node: torch.fx.Node, signature: torch.export.ExportGraphSignature) -> None:
    """What the network returns; an input that it changed in place is listed too, and left out."""
    (results,) = node.args
    for result, spec in zip(results, signature.output_specs, strict=True):  # type: ignore[arg-type]
        if spec.kind is not OutputKind.USER_OUTPUT:
            continue
        tensor = b.tensor(result)
        if tensor is None or tensor == INPUT:
            raise unsupported(node, "an output that does not depend on the input")
        b.graph.outputs.append(tensor)
