"""What a model file says about itself: element types of every value, bytes stored per layer."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto, inliner, numpy_helper, shape_inference

from qexport.errors import ArtifactError

FLOAT_ELEMENTS = frozenset(
    number for name, number in TensorProto.DataType.items() if name.startswith(("FLOAT", "DOUBLE", "BFLOAT", "COMPLEX"))
)
"""Every element type that is not an integer, a boolean or a string."""

UNIT_SCALES = {"QLinearConv": (1, 4, 6)}
"""Inputs that are scales, by operator. The number 1 there changes nothing, so it is not counted as a float
(docs/decisions/008-unit-scale-convolutions.md)."""

WEIGHT_ROLE = "/weight"
"""Weight initializers are named <layer>/weight, with suffixes for further fields, digits and tables."""


def find_float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all values of a float type: inputs, outputs, initializers, constants and every node output.

    Left out are scales of QLinearConv that are the constant 1 and have no other reader. Local functions are inlined
    and subgraphs visited. A value whose type cannot be inferred is listed too, since it may be a float.

    Raises:
        ArtifactError: the model is inconsistent, so types cannot be inferred.
    """
    try:
        typed = shape_inference.infer_shapes(inliner.inline_local_functions(model), check_type=True, strict_mode=True)
    except Exception as error:  # onnx raises errors of several unrelated classes
        raise ArtifactError("the types of the model cannot be inferred", got=str(error).splitlines()[0]) from error
    found: list[str] = []
    for graph in _graphs(typed.graph):
        elements = {t.name: t.data_type for t in graph.initializer}
        elements.update({t.values.name: t.values.data_type for t in graph.sparse_initializer})
        for info in (*graph.input, *graph.output, *graph.value_info):
            elements[info.name] = info.type.tensor_type.elem_type
        units = _unit_scales(graph)
        made = [name for node in graph.node for name in node.output if name]
        for name in dict.fromkeys([*elements, *made]):
            element = elements.get(name, TensorProto.UNDEFINED)
            if name not in units and (element in FLOAT_ELEMENTS or element == TensorProto.UNDEFINED):
                found.append(name)
    return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _unit_scales(graph: onnx.GraphProto) -> set[str]:
    """Initializers that are 1 and are read as scales only."""
    scales, others = set[str](), {info.name for info in graph.output}
    for node in graph.node:
        for i, name in enumerate(node.input):
            is_scale = i in UNIT_SCALES.get(node.op_type, ()) and node.domain in ("", "ai.onnx")
            (scales if is_scale else others).add(name)
    # Initializers that are inputs as well are defaults, which a caller may replace.
    others.update(info.name for info in graph.input)
    constants = [t for t in graph.initializer if t.name in scales - others]
    return {t.name for t in constants if bool((numpy_helper.to_array(t) == 1).all())}


def assert_integer(model: onnx.ModelProto) -> None:
    """Check that the model computes in integers only (DESIGN 4.8); scales of 1 are no computation.

    Raises:
        ArtifactError: naming the float values and the nodes that make them.
    """
    found = find_float_tensors(model)
    if not found:
        return
    makers = {name: node.op_type for graph in _graphs(model.graph) for node in graph.node for name in node.output}
    named = [f"{name} ({makers[name]})" if name in makers else name for name in found[:8]]
    raise ArtifactError(
        f"{len(found)} values have a float or unknown type",
        got=", ".join(named) + (", ..." if len(found) > len(named) else ""),
        expected="integer and boolean types only",
        remedy="convert with --format onnx, which writes the integer-only model",
    )


def weight_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes stored for the weights of each convolution and linear layer, in file order.

    Counts every initializer of a layer's weight: packed fields, digits and level tables.
    """
    sizes: dict[str, int] = {}
    for tensor in model.graph.initializer:
        layer, role, suffix = tensor.name.rpartition(WEIGHT_ROLE)
        if role and (not suffix or suffix[0] in "._"):
            sizes[layer] = sizes.get(layer, 0) + len(tensor.raw_data)
    return sizes
