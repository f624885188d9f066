"""Running models under ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from qexport.backends.onnx.integer import ABSORBED_KEY, TENSORS_KEY
from qexport.errors import ArtifactError, DataError

_ERRORS_ONLY = 3


def open_session(
    model: onnx.ModelProto | bytes, *, optimized: bool = True, threads: int = 0, name: str | None = None
) -> onnxruntime.InferenceSession:
    """Load a model on the CPU.

    Args:
        model: the model or its serialized bytes.
        optimized: the default graph optimization level of ONNX Runtime; False disables all optimizations.
        threads: intra-op threads, 0 for the runtime's choice.
        name: what to call the model in a message.

    Raises:
        ArtifactError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own classes, without a common base
        raise ArtifactError(
            "ONNX Runtime cannot load the model", where=name, got=str(error).splitlines()[0] if str(error) else error
        ) from error


def run_session(session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Run a session on arrays [N, *shape]; feeds are converted to the element types of the inputs.

    Raises:
        DataError: a feed is missing or does not survive the conversion.
    """
    typed = {}
    for declared in session.get_inputs():
        if declared.name not in feeds:
            raise DataError("an input is missing", where=declared.name, got=sorted(feeds))
        array = np.asarray(feeds[declared.name])
        dtype = _DTYPES[declared.type]
        typed[declared.name] = np.ascontiguousarray(array.astype(dtype))
        if not np.array_equal(typed[declared.name], array):
            raise DataError("an input does not fit its element type", where=declared.name, expected=dtype.name)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, typed), strict=True))


_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(int8)": np.dtype("int8"),
    "tensor(uint8)": np.dtype("uint8"),
    "tensor(int32)": np.dtype("int32"),
    "tensor(float)": np.dtype("float32"),
}


def ir_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the values that carry IR tensors, in order, from the model's metadata.

    Raises:
        ArtifactError: the model was not written by qexport.
    """
    for prop in model.metadata_props:
        if prop.key == TENSORS_KEY:
            return list(json.loads(prop.value))
    raise ArtifactError("the model does not name its IR tensors", expected=f"metadata_props entry {TENSORS_KEY}")


def absorbed_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the IR tensors that no value of an integer model carries; [] where its metadata names none."""
    return [name for prop in model.metadata_props if prop.key == ABSORBED_KEY for name in json.loads(prop.value)]


def run_all_tensors(model: onnx.ModelProto, feeds: Mapping[str, NDArray], optimized: bool = True) -> dict[str, NDArray]:
    """Run a model written by qexport and return every IR tensor it carries, inputs left out.

    An in-memory copy gets every IR tensor as an output; the model itself is unchanged.

    Args:
        model: integer or QDQ model.
        feeds: arrays [N, *shape] by input name.
        optimized: as in `open_session`.

    Raises:
        ArtifactError: the model was not written by qexport or does not load.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {info.name: info for info in [*model.graph.value_info, *model.graph.output]}
    inputs = {info.name for info in model.graph.input}
    del exposed.graph.output[:]
    for name in ir_tensors(model):
        if name not in inputs:
            exposed.graph.output.append(known.get(name) or helper.make_empty_tensor_value_info(name))
    return run_session(open_session(exposed, optimized=optimized), feeds)
