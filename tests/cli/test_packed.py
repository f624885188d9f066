"""qexport inspect, run and validate on .qpk files."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from qexport.backends.onnx.describe import describe_onnx
from qexport.backends.packed import format as f
from qexport.backends.packed.format import aligned
from qexport.session import available_isas

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(qexport: Run, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packed") / "out"
    result = qexport("convert", checkpoint, "--bits", 2, "--format", "onnx,qpk", "-o", output)
    assert result.exit_code == 0, result.stderr
    return output


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    return folder / "model.qpk"


@pytest.fixture(scope="module")
def found(qexport: Run, packed: Path) -> dict:
    return json.loads(qexport("inspect", packed, "--json").stdout)


class TestInspect:
    def test_tables(self, qexport: Run, packed: Path, found: dict) -> None:
        result = qexport("inspect", packed, "--assert-integer")
        assert (result.exit_code, result.stderr) == (0, "")

        def has_row(name: str, *cells: str) -> bool:
            rows = [line.split() for line in result.stdout.splitlines() if line.split()[:1] == [name]]
            return any(set(cells) <= set(row) for row in rows)

        for layer in found["layers"]:
            assert has_row(layer["name"], f"{layer['bits_per_weight']:.2f}", f"{layer['entropy']:.2f}"), layer
        for tensor in found["arena"]["tensors"]:
            place = f"{tensor['offset']:,}..{tensor['offset'] + tensor['bytes'] - 1:,}"
            assert has_row(tensor["name"], place, f"{tensor['first']}..{tensor['last']}"), tensor
        for part in ("format qpk 1.0", "from digits.pt", "classes: zero, one", "uint8 [N, 1, 8, 8]", "Arena of "):
            assert part in result.stdout
        assert result.stdout.endswith("integer only: the packed format has no float types.\n")

    def test_every_byte_is_accounted_for(self, packed: Path, found: dict) -> None:
        assert sum(found["sections"].values()) == found["bytes"] == packed.stat().st_size
        assert found["sections"]["weights"] == sum(aligned(layer["stored_bytes"]) for layer in found["layers"])

    def test_layers_are_those_of_the_report(self, folder: Path, found: dict) -> None:
        report = json.loads((folder / "report.json").read_text())
        expected = {layer["name"]: layer for layer in report["layers"]}
        assert {layer["name"] for layer in found["layers"]} == set(expected)
        for layer in found["layers"]:
            for key in ("kind", "shape", "weights", "macs"):
                assert layer[key] == expected[layer["name"]][key]
            assert layer["bits_per_weight"] * layer["weights"] == 8 * layer["stored_bytes"]
            # Stored with one length for all levels, a weight takes at least the entropy of the levels.
            assert layer["entropy"] <= layer["bits_per_weight"]
            lo, hi = found["bounds"][layer["name"]]
            assert layer["accumulator"] == [lo, hi]

    def test_entropy(self, found: dict) -> None:
        ternary = [layer for layer in found["layers"] if layer["coding"] == "base 3"]
        assert ternary and all(0.5 < layer["entropy"] < np.log2(3) + 1e-12 for layer in ternary)

    def test_arena(self, found: dict) -> None:
        arena = found["arena"]
        stored = {tensor["name"] for tensor in arena["tensors"]}
        assert {value["name"] for value in (*found["inputs"], *found["outputs"])} <= stored
        assert arena["virtual"] + len(stored) == len(found["bounds"])
        operators = sum(found["operators"].values())
        occupied = 0
        for operator in range(operators):
            alive = [t for t in arena["tensors"] if t["first"] <= operator <= t["last"]]
            used = {byte for t in alive for byte in range(t["offset"], t["offset"] + aligned(t["bytes"]))}
            assert max(used) < arena["bytes"]
            occupied = max(occupied, len(used))
        assert arena["largest_live_set"] == occupied <= arena["bytes"]
        assert {t["last"] for t in arena["tensors"] if t["name"] == found["outputs"][0]["name"]} == {operators - 1}
        widths = {"u8": 1, "i16": 2, "i32": 4}
        for tensor in arena["tensors"]:
            assert tensor["offset"] % f.ALIGN == 0 and tensor["bytes"] % widths[tensor["type"]] == 0
            assert found["bounds"][tensor["name"]] == tensor["range"]

    def test_no_option_of_checkpoints(self, qexport: Run, packed: Path) -> None:
        result = qexport("inspect", packed, "--bits", 2)
        assert result.exit_code == 2 and "--bits is for checkpoints, not for .qpk files" in result.stderr

    def test_damaged_and_absent_files(self, qexport: Run, packed: Path, tmp_path: Path) -> None:
        (tmp_path / "cut.qpk").write_bytes(packed.read_bytes()[:-3])
        (tmp_path / "other.qpk").write_bytes(b"?" * 1000)
        for command in (["inspect"], ["run", "--input", tmp_path]):
            for name in ("cut.qpk", "other.qpk", "absent.qpk"):
                result = qexport(*command, tmp_path / name)
                assert result.exit_code == 1 and result.stderr.startswith("Error: "), (command, name)
                assert "internal error" not in result.stderr and not result.stdout


class TestRun:
    def test_same_answers_as_onnx(self, qexport: Run, folder: Path, images: Path) -> None:
        answers = [qexport("run", folder / name, "--input", images, "--json") for name in ("model.qpk", "model.onnx")]
        assert answers[0].exit_code == 0 and answers[0].stdout == answers[1].stdout
        assert len(json.loads(answers[0].stdout)) == 20

    def test_needs_neither_onnx_nor_torch(self, packed: Path, images: Path) -> None:
        program = (
            "import sys; from qexport.cli.main import main\ntry: main(sys.argv[1:])\n"
            "finally: print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
        )
        for arguments in (["run", packed, "--input", images], ["inspect", packed]):
            command = [sys.executable, "-c", program, *map(str, arguments)]
            assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("set()\n")

    def test_an_unknown_instruction_set(
        self, qexport: Run, packed: Path, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QXR_ISA", "altivec")
        result = qexport("run", packed, "--input", images)
        assert result.exit_code == 1 and "QXR_ISA: unknown instruction set" in result.stderr


class TestValidate:
    def test_pass(self, qexport: Run, folder: Path, checkpoint: Path, images: Path, tmp_path: Path) -> None:
        files = [folder / "model.onnx", folder / "model.qpk"]
        result = qexport(
            "validate", *files, "--checkpoint", checkpoint, "--data", images, "--json", tmp_path / "result.json"
        )
        assert (result.exit_code, result.stderr) == (0, "")
        report = json.loads((tmp_path / "result.json").read_text())
        onnx, packed = report["artifacts"]
        assert packed["exact"] and packed["differing"] == {} and packed["images_all_tensors"] == packed["images"] == 20
        absorbed = describe_onnx(folder / "model.onnx")["metadata"]["qexport.absorbed"]
        assert packed["tensors"] == onnx["tensors"] + len(absorbed), "every layer"
        paths = [f"{isa}, {n}" for isa in reversed(available_isas()) for n in ("1 thread", "2 threads")]
        assert packed["paths"] == paths
        assert report["levels"][-1]["name"] == "model.qpk" and report["levels"][-1]["agreement"] == 100.0

    def test_a_changed_threshold_fails(
        self, qexport: Run, packed: Path, checkpoint: Path, images: Path, tmp_path: Path
    ) -> None:
        data = bytearray(packed.read_bytes())
        header = np.frombuffer(bytes(data[: f.HEADER_SIZE]), f.HEADER)[0]
        start = int(header["ops_offset"])
        ops = np.frombuffer(bytes(data[start : start + int(header["op_count"]) * f.OPERATOR.itemsize]), f.OPERATOR)
        threshold = next(op for op in ops if op["opcode"] == f.Opcode.THRESHOLD and op["constant_size"] >= 64)
        # The first step comes earlier for all channels; no claim depends on it.
        offset, channels = (
            int(threshold["constant_offset"]),
            int(threshold["constant_size"]) // 4 // int(threshold["count"]),
        )
        first = np.frombuffer(bytes(data[offset : offset + 4 * channels]), "<i4") - 1000
        data[offset : offset + 4 * channels] = first.astype("<i4").tobytes()
        (tmp_path / "changed.qpk").write_bytes(sealed(data))
        result = qexport(
            "validate", tmp_path / "changed.qpk", "--checkpoint", checkpoint, "--data", images, "--limit", 8
        )
        assert result.exit_code == 1
        assert "FAIL" in result.stdout and "tensors differ from the reference" in result.stdout

    def test_a_file_of_somebody_else(
        self, qexport: Run, packed: Path, checkpoint: Path, images: Path, tmp_path: Path
    ) -> None:
        data = packed.read_bytes()
        start = int(np.frombuffer(data[: f.HEADER_SIZE], f.HEADER)[0]["metadata_offset"])
        changed = bytearray(data[:start] + b"{}")
        changed[16:20] = len(changed).to_bytes(4, "little")
        (tmp_path / "foreign.qpk").write_bytes(sealed(changed))
        for command in (["validate", "--checkpoint", checkpoint, "--data", images], ["run", "--input", images]):
            result = qexport(*command, tmp_path / "foreign.qpk")
            assert result.exit_code == 1 and "the model was not written by qexport" in result.stderr
        assert qexport("inspect", tmp_path / "foreign.qpk").exit_code == 0


def sealed(data: bytearray) -> bytes:
    """The file with the checksum that fits."""
    data[f.CRC_OFFSET : f.CRC_OFFSET + 4] = bytes(4)
    data[f.CRC_OFFSET : f.CRC_OFFSET + 4] = zlib.crc32(data).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("command", [("inspect",), ("embed", "-o", "out"), ("bench",)])
def test_a_file_that_is_none_or_missing_is_named(qexport: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "notes.qpk").write_text("These are notes, and much longer than the header of a packed file is." * 3)
    for name, reason in {"notes.qpk": "this is no .qpk file", "missing.qpk": "no such file"}.items():
        result = qexport(*command, tmp_path / name)
        assert result.exit_code == 1 and f"{tmp_path / name}: {reason}\n" in result.stderr, result.stderr
