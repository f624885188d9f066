"""Reading ONNX files that may be anything."""

from __future__ import annotations

from pathlib import Path

import onnx

from qexport.errors import ArtifactError


def read_onnx(path: str | Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """An ONNX file and its metadata_props.

    Raises:
        ArtifactError: no such file, or no ONNX model.
    """
    file = Path(path)
    try:
        model = onnx.load(file)
    except FileNotFoundError as error:
        raise ArtifactError("no such file", where=str(file), remedy="qexport convert writes model.onnx") from error
    except Exception as error:  # protobuf raises several unrelated classes
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError("not an ONNX model", where=str(file), got=first[:200]) from error
    if not model.graph.node:
        raise ArtifactError("not an ONNX model, or an empty one", where=str(file), got="a graph without nodes")
    return model, {prop.key: prop.value for prop in model.metadata_props}
