"""What a model file says about itself: element types of every value, bytes stored per layer."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto, inliner, shape_inference

from qexport.errors import ArtifactError

FLOAT_ELEMENTS = frozenset(
    number for name, number in TensorProto.DataType.items() if name.startswith(("FLOAT", "DOUBLE", "BFLOAT", "COMPLEX"))
)
"""Every element type that is not an integer, a boolean or a string."""

WEIGHT_ROLE = "/weight"
"""Weight initializers are named <layer>/weight, with suffixes for further fields, digits and tables."""


def find_float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all values of a float type: inputs, outputs, initializers, constants and every node output.

    Local functions are inlined and subgraphs visited. A value whose type cannot be inferred is listed too, since
    it may be a float.

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
        made = [name for node in graph.node for name in node.output if name]
        for name in dict.fromkeys([*elements, *made]):
            element = elements.get(name, TensorProto.UNDEFINED)
            if element in FLOAT_ELEMENTS or element == TensorProto.UNDEFINED:
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


def assert_integer(model: onnx.ModelProto) -> None:
    """Check that the model computes in integers only (DESIGN 4.8).

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
