"""Numpy interpreter of IR graphs. On an integer graph its result is THE definition every backend must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.errors import DataError, GraphError
from qexport.ir import Graph, TensorType

Override = Callable[[str, NDArray], NDArray]


@dataclass(frozen=True)
class Run:
    """Outputs of one interpretation.

    Attributes:
        outputs: graph outputs by name, in graph order.
        tensors: every tensor that was asked to be kept.
    """

    outputs: dict[str, NDArray]
    tensors: dict[str, NDArray]


def interpret(
    graph: Graph, feeds: dict[str, NDArray], *, keep: Iterable[str] = (), override: Override | None = None
) -> Run:
    """Evaluate a graph on a batch.

    Integer tensors are computed in int64 and every one is checked against its declared range; real tensors
    are float64. Tensors are dropped after their last reader.

    Args:
        graph: real or integer graph.
        feeds: arrays [N, *shape] for every input.
        keep: names of tensors to return besides the outputs; "*" keeps all.
        override: called with (name, value) after each node; what it returns replaces the value.

    Raises:
        DataError: a feed is missing, of the wrong shape, or outside its declared range.
        GraphError: a computed value lies outside its declared range (a bug in a type rule or a pass).
    """
    wanted = set(keep)
    keep_all = "*" in wanted
    last_reader = {tensor: i for i, node in enumerate(graph.nodes) for tensor in node.inputs}
    values = {name: _feed(name, feeds, tensor_type) for name, tensor_type in graph.inputs.items()}
    kept = {name: v for name, v in values.items() if keep_all or name in wanted}
    for i, node in enumerate(graph.nodes):
        value = node.op.evaluate(*(values[tensor] for tensor in node.inputs))
        if override is not None:
            value = override(node.name, value)
        _check(node.name, value, graph.types[node.name])
        values[node.name] = value
        if keep_all or node.name in wanted:
            kept[node.name] = value
        for tensor in node.inputs:
            if last_reader[tensor] == i and tensor not in graph.outputs:
                values.pop(tensor, None)
    return Run({name: values[name] for name in graph.outputs}, kept)


def _feed(name: str, feeds: dict[str, NDArray], tensor_type: TensorType) -> NDArray:
    if name not in feeds:
        raise DataError("an input is missing", where=name, got=sorted(feeds), expected=name)
    array = np.asarray(feeds[name])
    if array.shape[1:] != tensor_type.shape:
        raise DataError("an input has the wrong shape", where=name, got=array.shape, expected=("N", *tensor_type.shape))
    if array.dtype.kind not in ("iub" if tensor_type.is_integer else "iubf"):
        expected = "integers" if tensor_type.is_integer else "numbers"
        raise DataError("an input has the wrong number type", where=name, got=array.dtype, expected=expected)
    array = array.astype(np.int64 if tensor_type.is_integer else np.float64)
    if array.size and not (array.min() >= tensor_type.lo.min() and array.max() <= tensor_type.hi.max()):
        raise DataError("an input leaves its declared range", where=name, expected=str(tensor_type))
    return array


def _check(name: str, value: NDArray, tensor_type: TensorType) -> None:
    """An integer value must be of integer dtype, of the declared shape, and in its channel's proven range."""
    if value.shape[1:] != tensor_type.shape:
        raise GraphError("a value has the wrong shape", where=name, got=value.shape[1:], expected=tensor_type.shape)
    if not tensor_type.is_integer:
        return
    if value.dtype.kind != "i":
        raise GraphError("an integer tensor was computed as", where=name, got=value.dtype)
    axes = tuple(a for a in range(value.ndim) if a != 1)
    if value.size and (np.any(value.min(axis=axes) < tensor_type.lo) or np.any(value.max(axis=axes) > tensor_type.hi)):
        raise GraphError("a value leaves its proven range", where=name, expected=str(tensor_type))
