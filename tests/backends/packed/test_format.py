"""The Python records are those of the C header, field by field, and the constants agree."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qexport.backends.packed import format as f

HEADER = (Path(__file__).resolve().parents[3] / "runtime" / "src" / "format.h").read_text()
TYPES = {"uint8_t": "u1", "uint16_t": "<u2", "uint32_t": "<u4", "int32_t": "<i4"}


def c_struct(name: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """(field, dtype, shape) of a struct of the header, in order."""
    body = re.search(r"typedef struct \w+ \{([^{}]*)\} " + name + ";", HEADER)
    assert body, name
    fields = []
    for line in re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL).split(";"):
        if line.strip():
            c_type, names = line.split(maxsplit=1)
            for declared in names.split(","):
                field, count = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?\s*", declared).groups()  # type: ignore[union-attr]
                fields.append((field, TYPES[c_type], (int(count),) if count else ()))
    return fields


@pytest.mark.parametrize(
    ("name", "dtype"), [("qxr_header", f.HEADER), ("qxr_tensor", f.TENSOR), ("qxr_op", f.OPERATOR)]
)
def test_records_are_those_of_the_c_header(name: str, dtype: np.dtype) -> None:
    offset, names = 0, []
    for field, c_type, shape in c_struct(name):
        declared = np.dtype((c_type, shape))
        alignment = np.dtype(c_type).itemsize
        assert offset % alignment == 0, f"C would pad before {field}"
        assert dtype.fields is not None
        found, at = dtype.fields[field][:2]
        assert at == offset and found.itemsize == declared.itemsize, field
        if field != "magic":
            assert found == declared, field
        offset += declared.itemsize
        names.append(field)
    assert list(dtype.names or ()) == names and dtype.itemsize == offset
    assert f"sizeof({name}) == {offset}" in HEADER


def c_enum(first: str) -> dict[str, int]:
    """Names and values of the enum whose first name is `first`."""
    body = re.search(r"enum \{\s*(" + first + r"\b[^{}]*)\}", HEADER)
    assert body, first
    values, following = {}, 0
    for entry in body[1].split(","):
        name, _, value = (part.strip() for part in entry.partition("="))
        following = int(value, 0) if value else following
        values[name] = following
        following += 1
    return values


def test_opcodes() -> None:
    found = c_enum("QXR_CONV2D")
    assert found.pop("QXR_OPCODES") == max(f.Opcode) + 1
    assert found == {f"QXR_{opcode.name}": opcode for opcode in f.Opcode}


def test_storage_and_flags() -> None:
    assert c_enum("QXR_VIRTUAL") == {f"QXR_{storage.name}": storage for storage in f.Storage}
    flags = c_enum("QXR_JOINS")
    assert flags == {f"QXR_{name.removeprefix('QXR_')}": getattr(f, name.removeprefix("QXR_")) for name in flags}
    assert c_enum("QXR_TENSOR_EXACT") == {"QXR_TENSOR_EXACT": f.TENSOR_EXACT, "QXR_TENSOR_STEPS": f.TENSOR_STEPS}
    features = c_enum("QXR_FEATURE_BASE3")
    assert features.pop("QXR_FEATURES") == f.ALL_FEATURES
    assert features == {f"QXR_FEATURE_{feature.name}": feature for feature in f.Feature}


@pytest.mark.parametrize(
    "name",
    ["MAX_TENSORS", "ALIGN", "NONE16", "NONE32", "SLOTS", "MAX_WEIGHT", "MAX_STEPS", "MAX_ELEMENTS", "MAX_EFFORT"],
)
def test_constants(name: str) -> None:
    (value,) = re.findall(rf"#define QXR_{name} (\S.*?)(?:\s*/\*.*)?\n", HEADER)
    assert eval(value.replace("u", "")) == getattr(f, name)  # an integer literal or a shift


@pytest.mark.parametrize(
    ("lo", "hi", "storage"),
    [
        (0, 255, f.Storage.U8),
        (-255, 0, f.Storage.U8),
        (-1, 254, f.Storage.U8),
        (-1, 255, f.Storage.I16),
        (1, 256, f.Storage.I16),
        (-32768, 32767, f.Storage.I16),
        (-32769, 0, f.Storage.I32),
        (0, 32768, f.Storage.I32),
    ],
)
def test_narrowest_storage(lo: int, hi: int, storage: f.Storage) -> None:
    assert f.Storage.holding(lo, hi) is storage
    assert storage.bytes == {f.Storage.U8: 1, f.Storage.I16: 2, f.Storage.I32: 4}[storage]
