"""The same network in an order that costs less: users write what reads well, devices pay for each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from qexport.ir import Graph, Node, prune
from qexport.ops import Affine, Clip, MaxPool, PRelu, Reshape, Slice, Step, Transpose

FEW_AXES = 3
"""Transposes of more axes are restated with blocks of neighbours: C runtimes have channels, rows and columns."""


def shorten(graph: Graph) -> Graph:
    """The same graph with chains of value-moving nodes composed.

    A slice of a slice is one slice, a reshape of a reshape one reshape (none where it restores the shape), and a
    transpose of more than three axes moves blocks of axes that stay together. Names of nodes that remain are kept.

    Args:
        graph: verified graph, real or integer.
    """
    short = Graph(dict(graph.inputs), types=dict(graph.inputs))
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        inputs = tuple(renamed.get(tensor, tensor) for tensor in node.inputs)
        rewrite = _REWRITES.get(type(node.op))
        renamed[node.name] = (
            rewrite(short, Node(node.name, node.op, inputs, node.source))
            if rewrite
            else short.add(node.name, node.op, *inputs, source=node.source)
        )
    short.outputs = [renamed.get(tensor, tensor) for tensor in graph.outputs]
    return prune(short)


def quantize_before_pooling(graph: Graph) -> Graph:
    """The same graph with quantizers in front of the maximum pooling whose result they alone read.

    A maximum commutes with everything that rises, so the codes are the same; but the layer in front of the pool
    then ends in thresholds on its accumulators and hands on bytes, and the pool compares bytes. Names are kept.

    Args:
        graph: verified real graph.
    """
    moves = _quantizers_behind_pools(graph)
    while moves:
        graph = _exchange(graph, moves)
        moves = _quantizers_behind_pools(graph)
    return graph


def _quantizers_behind_pools(graph: Graph) -> dict[str, str]:
    """Quantizer -> maximum pool whose only reader it is, at most through operations that rise."""
    producers = {node.name: node for node in graph.nodes}
    readers = graph.consumers()
    found: dict[str, str] = {}
    for node in graph.find(Step):
        before: Node | None = node
        while before is not None and (before is node or (_rises(before) and not isinstance(before.op, Step))):
            (x,) = before.inputs
            before = producers.get(x) if len(readers[x]) == 1 and x not in graph.outputs else None
        if before is not None and isinstance(before.op, MaxPool) and _rises(node):
            found[node.name] = before.name
    return found


def _rises(node: Node) -> bool:
    """Whether a larger input never makes a smaller result, element by element."""
    op = node.op
    if isinstance(op, Step):
        return bool(np.all(np.diff(op.values()) >= 0))
    if isinstance(op, Affine):
        return all(gain >= 0 for gain in op.gain)
    if isinstance(op, PRelu):
        return all(slope >= 0 for slope in op.slope)
    return isinstance(op, Clip)


def _exchange(graph: Graph, moves: dict[str, str]) -> Graph:
    """The graph with each of these pools directly behind its quantizer."""
    pools = {pool: graph.node(pool) for pool in moves.values()}
    out = Graph(dict(graph.inputs), types=dict(graph.inputs))
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        inputs = tuple(renamed.get(tensor, tensor) for tensor in node.inputs)
        if node.name in pools:
            renamed[node.name] = inputs[0]
            continue
        out.add(node.name, node.op, *inputs, source=node.source)
        if node.name in moves:
            pool = pools[moves[node.name]]
            renamed[node.name] = out.add(pool.name, pool.op, node.name, source=pool.source)
    out.outputs = [renamed.get(tensor, tensor) for tensor in graph.outputs]
    return out


def _producer(graph: Graph, tensor: str) -> Node | None:
    return None if tensor in graph.inputs else graph.node(tensor)


def _slice(graph: Graph, node: Node) -> str:
    """Element i of a slice of a slice is element start + step * (start' + step' * i) of its input."""
    (x,) = node.inputs
    before = _producer(graph, x)
    op = node.op
    assert isinstance(op, Slice)
    if before is not None and isinstance(before.op, Slice):
        pairs = zip(before.op.ranges, op.ranges, strict=True)
        taken = [range(*outer)[slice(*inner)] for outer, inner in pairs]
        op = Slice(tuple((r[0], r[-1] + 1, r.step) for r in taken))
        (x,) = before.inputs
    return graph.add(node.name, op, x, source=node.source)


def _reshape(graph: Graph, node: Node) -> str:
    (x,) = node.inputs
    before = _producer(graph, x)
    assert isinstance(node.op, Reshape)
    if before is not None and isinstance(before.op, Reshape):
        (x,) = before.inputs
    source = graph.types[x].shape
    return x if source == node.op.shape else graph.add(node.name, Reshape(source, node.op.shape), x, source=node.source)


def _transpose(graph: Graph, node: Node) -> str:
    """With more than three axes: reshape to blocks of axes, transpose the blocks, reshape to what was asked for."""
    (x,) = node.inputs
    op = node.op
    assert isinstance(op, Transpose)
    if len(op.axes) <= FEW_AXES:
        return graph.add(node.name, op, x, source=node.source)
    blocks = [[op.axes[0]]]
    for axis, following in pairwise(op.axes):
        if following == axis + 1:
            blocks[-1].append(following)
        else:
            blocks.append([following])
    order = sorted(range(len(blocks)), key=lambda i: blocks[i][0])
    merged = tuple(math.prod(op.source[axis] for axis in blocks[i]) for i in order)
    axes = tuple(order.index(i) for i in range(len(blocks)))
    name = graph.unique(f"{node.name}.blocks")
    x = _reshape(graph, Node(name, Reshape(op.source, merged), (x,), node.source))
    x = graph.add(graph.unique(f"{node.name}.moved"), Transpose(merged, axes), x, source=node.source)
    shape = tuple(op.source[axis] for axis in op.axes)
    return _reshape(graph, Node(node.name, Reshape(graph.types[x].shape, shape), (x,), node.source))


_REWRITES: dict[type, Callable[[Graph, Node], str]] = {Slice: _slice, Reshape: _reshape, Transpose: _transpose}
