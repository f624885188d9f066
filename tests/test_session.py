"""qexport.InferenceSession: the reference's integers on every path, and what users of ONNX Runtime expect."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from lowering import lowered_case
from networks import CASES
from numpy.typing import NDArray

import qexport
from qexport import InferenceSession
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import open_session
from qexport.backends.packed.writer import to_packed
from qexport.conversion import Built, Settings, build, metadata
from qexport.errors import ArtifactError, DataError, OptionError, QExportError
from qexport.ir import Graph
from qexport.reference import interpret
from qexport.session import available_isas, is_packed

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 3, 16)


def check_equal(graph: Graph, x: NDArray[np.uint8], meta: Mapping[str, str]) -> None:
    """On every instruction set, with 1 and 2 threads: every layer, and the outputs of every batch size, `==`."""
    file = to_packed(graph, metadata=meta)
    expected = interpret(graph, {"image": x}, keep="*").tensors
    for isa in available_isas():
        for threads in (1, 2):
            session = InferenceSession(file, threads=threads, isa=isa)
            assert (session.isa, session.threads) == (isa, threads)
            found = session.run_all({"image": x})
            assert set(found) == {node.name for node in graph.nodes}
            for name, array in found.items():
                assert np.array_equal(array, expected[name]), f"{name}, {isa}, {threads} threads"
            for batch in BATCHES:
                results = session.run(None, {"image": x[:batch]})
                for name, array in zip(graph.outputs, results, strict=True):
                    assert array.dtype == np.int32
                    assert np.array_equal(array, expected[name][:batch]), f"{name}, {isa}, {threads}, {batch} images"


@pytest.mark.parametrize("name", CASES)
def test_every_layer_equals_the_reference(name: str) -> None:
    """test_network_matrix.py of the ONNX backend holds model.onnx against the same reference on the same networks."""
    low, x = lowered_case(name)
    check_equal(low.graph, x, {})


@pytest.fixture(scope="module")
def digits() -> Built:
    """The demo network."""
    return build(ROOT / "models" / "checkpoints" / "digits_w2a2.pt", Settings(weight_bits=2, act_bits=2))


@pytest.fixture(scope="module")
def x() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (16, 1, 8, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def file(digits: Built) -> bytes:
    return to_packed(digits.graph, metadata=metadata(digits))


@pytest.fixture(scope="module")
def model_onnx(digits: Built) -> onnxruntime.InferenceSession:
    return open_session(to_onnx(digits.graph, metadata=metadata(digits), opset=25))


def check_real(built: Built, x: NDArray[np.uint8]) -> None:
    check_equal(built.graph, x, metadata(built))
    session = open_session(to_onnx(built.graph, metadata={}, opset=25))
    (expected,) = session.run(None, {"image": x})
    (found,) = InferenceSession(to_packed(built.graph, metadata={})).run(None, {"image": x})
    assert np.array_equal(found, expected)


def test_the_demo_network(digits: Built, x: NDArray[np.uint8]) -> None:
    check_real(digits, x)


REAL = {
    "daq/cifar10_W1A1.pth": Settings(1, 1),
    "daq/cifar10_W1A32.pth": Settings(1),
    "qn/resnet20_w2t_a2.pth": Settings(2, 2),
    "qn/resnet20_w2t.pth": Settings(2),
    "qn/resnet20_w2t_legacy.pth": Settings(2),
    "qn/resnet20_w3.pth": Settings(3, weight_levels=(-4, -2, -1, 0, 1, 2, 4)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_checkpoints(data_dir: Path, name: str) -> None:
    settings = replace(REAL[name], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = np.load(data_dir / "cifar10" / "test.npz")["images"][:16]
    check_real(build(data_dir / "checkpoints" / name, settings), np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class TestLikeOnnxRuntime:
    """The same calls on both."""

    def test_declarations(self, file: bytes, model_onnx: onnxruntime.InferenceSession) -> None:
        session = InferenceSession(file)
        for found, expected in (
            (session.get_inputs(), model_onnx.get_inputs()),
            (session.get_outputs(), model_onnx.get_outputs()),
        ):
            assert [(a.name, a.shape, a.type) for a in found] == [(a.name, a.shape, a.type) for a in expected]

    def test_metadata(self, file: bytes, model_onnx: onnxruntime.InferenceSession) -> None:
        found, expected = InferenceSession(file).get_modelmeta(), model_onnx.get_modelmeta()
        assert (found.producer_name, found.graph_name) == (expected.producer_name, expected.graph_name)
        ours, theirs = found.custom_metadata_map, expected.custom_metadata_map
        absorbed = json.loads(theirs.pop("qexport.absorbed"))
        assert set(ours) == set(theirs)
        carried = json.loads(theirs.pop("qexport.tensors"))
        assert sorted(json.loads(ours.pop("qexport.tensors"))) == sorted(carried + absorbed)
        assert (ours.pop("qexport.format"), theirs.pop("qexport.format")) == ("qpk", "onnx")
        assert ours == theirs

    @pytest.mark.parametrize("count", [None, 1, 0])
    def test_run(
        self, file: bytes, model_onnx: onnxruntime.InferenceSession, x: NDArray[np.uint8], count: int | None
    ) -> None:
        wanted = None if count is None else [declared.name for declared in model_onnx.get_outputs()[:count]]
        found, expected = (session.run(wanted, {"image": x}) for session in (InferenceSession(file), model_onnx))
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.transpose(0, 1, 3, 2),
            lambda x: x[::2],
            lambda x: x[:, :, ::-1, ::-1],
            lambda x: np.asfortranarray(x),
            lambda x: np.broadcast_to(x[:1], x.shape),
        ],
        ids=["transposed", "every other", "reversed", "column-major", "broadcast"],
    )
    def test_arrays_need_not_be_contiguous(
        self,
        file: bytes,
        model_onnx: onnxruntime.InferenceSession,
        x: NDArray[np.uint8],
        view: Callable[[NDArray], NDArray],
    ) -> None:
        (found,) = InferenceSession(file).run(None, {"image": view(x)})
        (expected,) = model_onnx.run(None, {"image": view(x)})
        assert np.array_equal(found, expected)

    @pytest.mark.parametrize(
        ("feed", "text"),
        [
            ({}, "image: an input is missing\n  got:      none\n  expected: image"),
            ({"pixels": (2, 1, 8, 8)}, "model: no such input\n  got:      pixels\n  expected: image"),
            ({"image": (2, 1, 8, 8), "more": (2,)}, "model: no such input\n  got:      more"),
            (
                {"image": (1, 8, 8)},
                "image: an input has the wrong shape\n  got:      [1, 8, 8]\n  expected: [N, 1, 8, 8]",
            ),
            ({"image": (2, 1, 8, 9)}, "got:      [2, 1, 8, 9]\n  expected: [N, 1, 8, 8]"),
            ({"image": (2, 8, 8, 1)}, "  remedy:   the channels come first: array.transpose(0, 3, 1, 2)"),
            ({"image": ()}, "image: an input has the wrong shape\n  got:      []"),
        ],
    )
    def test_feeds_that_do_not_fit(
        self, file: bytes, model_onnx: onnxruntime.InferenceSession, feed: dict[str, tuple[int, ...]], text: str
    ) -> None:
        arrays = {name: np.zeros(shape, np.uint8) for name, shape in feed.items()}
        with pytest.raises(Exception, match=r"."):
            model_onnx.run(None, arrays)
        with pytest.raises(DataError) as caught:
            InferenceSession(file).run(None, arrays)
        assert text in str(caught.value)

    @pytest.mark.parametrize("dtype", ["int64", "float32", "int8", "bool"])
    def test_other_types_are_refused(
        self, file: bytes, model_onnx: onnxruntime.InferenceSession, x: NDArray[np.uint8], dtype: str
    ) -> None:
        with pytest.raises(Exception, match="nexpected input data type"):
            model_onnx.run(None, {"image": x.astype(dtype)})
        with pytest.raises(DataError, match=f"wrong type\n  got:      {dtype}\n  expected: uint8"):
            InferenceSession(file).run(None, {"image": x.astype(dtype)})

    def test_unknown_output(self, file: bytes, model_onnx: onnxruntime.InferenceSession, x: NDArray[np.uint8]) -> None:
        with pytest.raises(Exception, match="Invalid output name"):
            model_onnx.run(["label"], {"image": x})
        with pytest.raises(DataError, match="no such output\n  got:      label\n  expected: "):
            InferenceSession(file).run(["label"], {"image": x})


def test_an_array_without_a_name(file: bytes, x: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="model: the inputs are no mapping\n  got:      ndarray") as caught:
        InferenceSession(file).run(None, x)  # type: ignore[arg-type]
    assert "{'image': array}" in str(caught.value)


def test_an_empty_batch(file: bytes) -> None:
    (found,) = InferenceSession(file, threads=2).run(None, {"image": np.zeros((0, 1, 8, 8), np.uint8)})
    assert (found.shape, found.dtype) == ((0, 10), np.int32)


def test_several_outputs_in_any_order() -> None:
    low, x = lowered_case("two-outputs")
    session = InferenceSession(to_packed(low.graph, metadata={}))
    names = [output.name for output in session.get_outputs()]
    assert names == low.graph.outputs and len(names) == 3
    every = dict(zip(names, session.run(None, {"image": x}), strict=True))
    for wanted in (names[::-1], names[1:2], [names[2], names[2]]):
        found = session.run(wanted, {"image": x})
        assert all(np.array_equal(a, every[name]) for a, name in zip(found, wanted, strict=True))


def test_path_bytes_and_buffers(file: bytes, x: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / "model.qpk"
    path.write_bytes(file)
    (expected,) = InferenceSession(file).run(None, {"image": x})
    for source in (path, str(path), bytearray(file), memoryview(file)):
        assert np.array_equal(InferenceSession(source).run(None, {"image": x})[0], expected)
    path.unlink()
    assert is_packed(path) and is_packed("A.QPK") and not is_packed("model.onnx")


def test_sessions_side_by_side(file: bytes, x: NDArray[np.uint8]) -> None:
    """Four threads, a session each and one for all: every result is the one a lone session gives."""
    (expected,) = InferenceSession(file).run(None, {"image": x})
    shared = InferenceSession(file, threads=2)
    equal: list[bool] = []

    def work() -> None:
        own = InferenceSession(file, threads=2)
        for first in range(12):
            for session in (own, shared):
                (found,) = session.run(None, {"image": x[first:]})
                equal.append(np.array_equal(found, expected[first:]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(equal) == 4 * 12 * 2 and all(equal)


class TestFiles:
    """Whatever is no sound .qpk file."""

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"absent.qpk: no such file\n  remedy:   qexport convert --format qpk"):
            InferenceSession(tmp_path / "absent.qpk")
        with pytest.raises(ArtifactError, match="the file cannot be read\n  got:      Is a directory"):
            InferenceSession(tmp_path)

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        (tmp_path / "model.qpk").write_bytes(b"PK" * 100)
        with pytest.raises(ArtifactError) as caught:
            InferenceSession(tmp_path / "model.qpk")
        assert str(tmp_path / "model.qpk") in str(caught.value) and "tensor" not in str(caught.value.got)

    def test_a_bad_tensor_is_named(self, file: bytes) -> None:
        data = bytearray(file)
        data[64 + 3 * 32 + 1] = 0  # rank of tensor 3
        data[20:24] = zlib.crc32(bytes(data[:20]) + bytes(4) + bytes(data[24:])).to_bytes(4, "little")
        with pytest.raises(ArtifactError, match="at tensor 3 or the operator that makes it"):
            InferenceSession(bytes(data))

    @pytest.mark.parametrize(
        ("stored", "text"),
        [
            (b'{"a": 1}', "the metadata is no object of strings"),
            (b'{"a": "b",}', "the metadata is no JSON"),
            (b'{"a":' * 100_000 + b"{" + b"}" * 100_001, "the metadata is no JSON"),
            (zlib.compress(b"[]"), "the metadata is no object of strings\n  got:      list"),
            (zlib.compress(b" " * (17 << 20)), "cut off, or more than 16777216 bytes"),
            (zlib.compress(b'{"a": "b"}')[:-3], "cut off"),
        ],
        ids=["number", "comma", "deep", "list", "bomb", "short"],
    )
    def test_bad_metadata(self, file: bytes, stored: bytes, text: str) -> None:
        with pytest.raises(ArtifactError, match=text):
            InferenceSession(with_metadata(file, stored))

    @pytest.mark.parametrize("stored", [b"{}", *(b'{"qexport.tensors": "%s"}' % t for t in (b"[]", b"[1", b"{}"))])
    def test_a_file_without_names(self, file: bytes, x: NDArray[np.uint8], stored: bytes) -> None:
        session = InferenceSession(with_metadata(file, stored))
        (declared,) = session.get_inputs()
        (found,) = session.run(None, {declared.name: x})
        assert declared.name == "t0"
        assert np.array_equal(found, InferenceSession(file).run(None, {"image": x})[0])


def with_metadata(file: bytes, stored: bytes) -> bytes:
    """The file with other metadata, and the size and checksum that fit."""
    data = bytearray(file[: int.from_bytes(file[56:60], "little")] + stored)
    data[16:20] = len(data).to_bytes(4, "little")
    data[20:24] = bytes(4)
    data[20:24] = zlib.crc32(data).to_bytes(4, "little")
    return bytes(data)


class TestOptions:
    @pytest.mark.parametrize("threads", [0, -1, 257, "2", 1.5, None])
    def test_threads_out_of_range(self, file: bytes, threads: Any) -> None:
        with pytest.raises(OptionError, match=f"got:      {threads!r}\n  expected: 1 to 256"):
            InferenceSession(file, threads=threads)

    def test_unknown_isa(self, file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(
            OptionError, match="isa: unknown instruction set\n  got:      mmx\n  expected: one of scalar"
        ):
            InferenceSession(file, isa="mmx")
        monkeypatch.setenv("QXR_ISA", "mmx")
        with pytest.raises(OptionError, match="QXR_ISA: unknown instruction set\n  got:      mmx"):
            InferenceSession(file)

    def test_the_environment_is_honoured_and_the_argument_wins(
        self, file: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        best = available_isas()[-1]
        monkeypatch.delenv("QXR_ISA", raising=False)
        assert InferenceSession(file).isa == best
        monkeypatch.setenv("QXR_ISA", "scalar")
        assert InferenceSession(file).isa == "scalar"
        assert InferenceSession(file, isa=best).isa == best
        monkeypatch.setenv("QXR_ISA", "")
        assert InferenceSession(file).isa == best

    def test_an_isa_of_other_processors(self, file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        from qexport import session

        runtime = session.load_runtime()
        missing = next((name for name, available in runtime.isas() if not available), None)
        if missing is None:
            pytest.skip("this processor has every instruction set the build has kernels for")
        with pytest.raises(OptionError, match=f"processor does not have the instruction set\n  got:      {missing}"):
            InferenceSession(file, isa=missing)


def test_an_installation_without_the_extension(file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qexport._runtime", None)
    monkeypatch.delattr(qexport, "_runtime")
    with pytest.raises(QExportError, match="the C runtime is not installed"):
        InferenceSession(file)


def test_numpy_is_all_it_needs(file: bytes, tmp_path: Path) -> None:
    """Import and run, with every other library out of reach."""
    (tmp_path / "model.qpk").write_bytes(file)
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {"qexport", "numpy"} | sys.stdlib_module_names:
            raise ImportError(f"{name} is out of reach")
sys.meta_path.insert(0, Blocked())
import numpy as np
import qexport
session = qexport.InferenceSession("model.qpk")
session.get_modelmeta()
(logits,) = session.run(None, {"image": np.zeros((2, 1, 8, 8), np.uint8)})
assert logits.shape == (2, 10)
own = {name for name in sys.modules if name.startswith("qexport")}
assert own == {"qexport", *(f"qexport.{part}" for part in ("errors", "packed_metadata", "session", "_runtime"))}, own
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
