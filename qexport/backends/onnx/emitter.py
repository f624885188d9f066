"""Collects ONNX nodes and initializers for one model, and keeps track of names and element types."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper

from qexport.ir import Graph, TensorType

INT8, UINT8, INT16, INT32, INT64 = (np.dtype(n) for n in ("int8", "uint8", "int16", "int32", "int64"))
BOOL, FLOAT = np.dtype("bool"), np.dtype("float32")

ELEMENT: dict[np.dtype[Any], int] = {
    INT8: TensorProto.INT8,
    UINT8: TensorProto.UINT8,
    INT16: TensorProto.INT16,
    INT32: TensorProto.INT32,
    INT64: TensorProto.INT64,
    np.dtype("uint32"): TensorProto.UINT32,
    np.dtype("uint64"): TensorProto.UINT64,
    FLOAT: TensorProto.FLOAT,
    BOOL: TensorProto.BOOL,
}
"""ONNX element type of each numpy dtype the backends use."""


def fits(lo: int, hi: int, dtype: DTypeLike) -> bool:
    """Whether every integer of [lo, hi] is a value of an integer dtype."""
    info = np.iinfo(dtype)
    return info.min <= lo and hi <= info.max


def container(tensor_type: TensorType) -> np.dtype:
    """ONNX element type that carries an integer IR tensor: int8, else uint8, else int32.

    int8 is preferred because ConvInteger is fast only for int8 activations; int16 lacks kernels for most
    operators in ONNX Runtime (docs/decisions/002-onnx-integer-forms.md).
    """
    lo, hi = int(tensor_type.lo.min()), int(tensor_type.hi.max())
    return next((dtype for dtype in (INT8, UINT8) if fits(lo, hi, dtype)), INT32)


class Emitter:
    """Builds the node list of one ONNX graph.

    The value that carries IR tensor X is named X; everything else is named X/<role>, made unique.

    Attributes:
        graph: the IR graph being lowered.
        opset: version of the default ONNX operator set.
        nodes, initializers: what was emitted, in order.
        scope: IR node being lowered; helper values are named after it.
        memo: values derived from a tensor that several consumers share, by (tensor, role).
        as_uint8: tensors that are kept as uint8 where they fit, since that is what their readers want.
    """

    def __init__(self, graph: Graph, opset: int) -> None:
        self.graph = graph
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.memo: dict[Hashable, str] = {}
        self.as_uint8: set[str] = set()
        self._dtypes: dict[str, np.dtype] = {}
        self._taken = set(graph.types)
        self.scope = ""

    def enter(self, node_name: str) -> None:
        """Name helper values after this IR node from now on."""
        self.scope = node_name

    def carrier(self, tensor: str) -> np.dtype:
        """Element type of the value that carries an IR tensor."""
        tensor_type = self.graph.types[tensor]
        preferred = tensor in self.as_uint8 and fits(int(tensor_type.lo.min()), int(tensor_type.hi.max()), UINT8)
        return UINT8 if preferred else container(tensor_type)

    def declare(self, value: str, dtype: np.dtype) -> None:
        """State the element type of a graph input."""
        self._dtypes[value] = dtype

    def dtype(self, value: str) -> np.dtype:
        """Element type of an emitted value."""
        return self._dtypes[value]

    def node(
        self, op_type: str, inputs: Sequence[str], role: str, dtype: DTypeLike | None = None, **attributes: Any
    ) -> str:
        """Emit a node with one output; the output's element type is that of the first input unless given.

        Returns:
            the name of the output value.
        """
        output = self._claim(role)
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=output, **attributes))
        self._dtypes[output] = np.dtype(dtype) if dtype is not None else self._dtypes[inputs[0]]
        return output

    def constant(self, array: NDArray) -> str:
        """A small initializer, shared by every node that needs the same array."""
        array = np.asarray(array)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self.memo:
            shape = "x".join(map(str, array.shape)) or "scalar"
            base = f"const/{array.dtype.name}/{array.item() if array.ndim == 0 else shape}"
            self.memo[key] = self.raw_initializer(base, ELEMENT[array.dtype], array.shape, array.tobytes())
            self._dtypes[self.memo[key]] = array.dtype
        return self.memo[key]

    def initializer(self, role: str, array: NDArray) -> str:
        """An initializer of the current IR node."""
        name = self.raw_initializer(f"{self.scope}/{role}", ELEMENT[array.dtype], array.shape, array.tobytes())
        self._dtypes[name] = array.dtype
        return name

    def packed_initializer(self, role: str, element: int, shape: Sequence[int], data: bytes) -> str:
        """An initializer of a packed element type (UINT2, UINT4); only Cast may read it."""
        return self.raw_initializer(f"{self.scope}/{role}", element, shape, data)

    def raw_initializer(self, name: str, element: int, shape: Sequence[int], data: bytes) -> str:
        """Store little-endian raw data under a name made unique."""
        name = self._unique(name)
        self.initializers.append(TensorProto(name=name, data_type=element, dims=shape, raw_data=data))
        return name

    def per_channel(self, values: NDArray, rank: int, dtype: DTypeLike) -> str:
        """Constant that broadcasts over [N, C, ...] of per-sample rank `rank`: [C] or one shared value."""
        array = np.asarray(values).astype(dtype)
        if np.all(array == array.flat[0]):
            return self.constant(array.reshape(-1)[0])
        return self.constant(array.reshape(-1, *(1,) * (rank - 1)))

    def cast(self, value: str, dtype: DTypeLike, role: str = "cast") -> str:
        """The same integers in another element type; the value itself where it already has it."""
        target: np.dtype[Any] = np.dtype(dtype)
        if self._dtypes.get(value) == target:
            return value
        return self.node("Cast", [value], role, target, to=ELEMENT[target])

    def bind(self, value: str, tensor: str, dtype: np.dtype) -> None:
        """Let a value carry an IR tensor: under the tensor's name and in its element type."""
        value = self.cast(value, dtype)
        if value in self.graph.types or not self.nodes or value != self.nodes[-1].output[0]:
            value = self.node("Identity", [value], "same")
        last = self.nodes[-1]
        last.output[0] = last.name = tensor
        self._dtypes[tensor] = self._dtypes.pop(value)

    def _claim(self, role: str) -> str:
        return self._unique(f"{self.scope}/{role}")

    def _unique(self, name: str) -> str:
        unique, count = name, 2
        while unique in self._taken:
            unique, count = f"{name}_{count}", count + 1
        self._taken.add(unique)
        return unique
