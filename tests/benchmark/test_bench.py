"""The whole benchmark on a small network, and what it refuses. No time is asserted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qexport.backends.onnx.reader import read_onnx
from qexport.benchmark import bench as module
from qexport.benchmark import engines
from qexport.benchmark.bench import bench
from qexport.benchmark.engines import Job
from qexport.benchmark.workers import WorkerProcess
from qexport.errors import ArtifactError, DataError, OptionError

POSITIVE = ("median", "processor", "minimum", "macs_per_second", "load", "load_once", "first", "first_once")


@pytest.fixture(scope="module")
def report(converted: Path) -> dict[str, Any]:
    """Two rounds of all three files, and of ONNX Runtime in int8 and float32."""
    files = [converted / name for name in ("model.qpk", "model.onnx", "model.qdq.onnx")]
    return bench(files, against=("onnxruntime", "onnxruntime-fp32"), rounds=2, batch=3)


def test_the_report_is_plain_json_with_every_engine(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report)) == report
    names = [engine["name"] for engine in report["engines"]]
    assert names == ["model.qpk", "model.onnx", "model.qdq.onnx", "onnxruntime", "onnxruntime-fp32"]
    assert report["base"] == "model.qpk"
    assert report["settings"]["batch"] == 3 and report["settings"]["rounds"] == 2
    assert report["network"]["architecture"] == "qn-digits" and report["network"]["inputs"] == {"image": [1, 8, 8]}
    assert report["machine"]["cores"] >= 1 and report["machine"]["processor"]


def test_every_engine_has_its_figures(report: dict[str, Any]) -> None:
    for engine in report["engines"]:
        assert all(engine[key] > 0 for key in POSITIVE)
        assert engine["minimum"] <= engine["median"]
        assert len(engine["round_medians"]) == 2 and engine["runs"] >= 2 * module.LEAST_RUNS
        assert engine["what"].count(";") >= 1, "configuration; package and version"
    assert all(value == 1.0 for value in report["engines"][0]["ratio"].values() if value is not None)


def test_ratios_follow_from_the_figures(report: dict[str, Any]) -> None:
    base = report["engines"][0]
    for engine in report["engines"]:
        rounds = zip(base["round_medians"], engine["round_medians"], strict=True)
        assert engine["ratio"]["median"] == pytest.approx(np.median([theirs / ours for ours, theirs in rounds]))
        rounds = zip(base["round_processor_medians"], engine["round_processor_medians"], strict=True)
        assert engine["ratio"]["processor"] == pytest.approx(np.median([theirs / ours for ours, theirs in rounds]))
        assert engine["ratio"]["minimum"] == pytest.approx(engine["minimum"] / base["minimum"])
        assert engine["ratio"]["load"] == pytest.approx(engine["load"] / base["load"])


def test_integer_outputs_are_compared(report: dict[str, Any]) -> None:
    same = {engine["name"]: engine["same_outputs"] for engine in report["engines"]}
    assert same["model.qpk"] is True and same["model.onnx"] is True
    assert same["onnxruntime"] is None, "floats of another network"


def test_layers_and_peak_belong_to_the_packed_file(report: dict[str, Any]) -> None:
    assert report["peak"]["products_per_second"] > 0
    assert sum(row["macs"] for row in report["layers"]) == report["network"]["macs"]
    assert sum(row["share"] for row in report["layers"]) == pytest.approx(1.0)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no processor affinity")
def test_workers_run_where_they_are_pinned(converted: Path) -> None:
    core = max(os.sched_getaffinity(0))
    job = Job(str(converted / "model.qpk"), 1, 1, {"image": [1, 8, 8]}, True)
    with WorkerProcess("ours", "qexport", job, [core]) as worker:
        worker.ask("open")
        assert os.sched_getaffinity(worker.process_id) == {core}
        assert worker.ask("memory")["bytes"] is not None


def test_an_onnx_file_with_the_packed_one_beside_it(converted: Path) -> None:
    found = bench([converted / "model.onnx"], against=(), rounds=1)
    assert [engine["name"] for engine in found["engines"]] == ["model.onnx"]
    assert "layers" not in found and "peak" not in found


def test_files_of_one_name_are_told_apart(converted: Path, tmp_path: Path) -> None:
    shutil.copy(converted / "model.qpk", tmp_path)
    found = bench([converted / "model.qpk", tmp_path / "model.qpk"], against=(), rounds=1)
    assert [e["name"] for e in found["engines"]] == [str(converted / "model.qpk"), str(tmp_path / "model.qpk")]
    assert found["engines"][1]["same_outputs"] is True


@pytest.mark.parametrize("name", engines.PEERS)
def test_a_missing_peer_is_named_with_its_package(name: str, converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = engines.ENGINES[name].package
    monkeypatch.setattr(engines, "find_spec", lambda asked: None if asked == package else object())
    with pytest.raises(OptionError, match=f"{name} is not installed") as caught:
        bench([converted / "model.qpk"], against=(name,))
    assert f"pip install {package}" in str(caught.value) and "qexport[bench]" in str(caught.value)


def test_an_unknown_peer_is_refused(converted: Path) -> None:
    with pytest.raises(OptionError, match="unknown engine") as caught:
        bench([converted / "model.qpk"], against=("tensorflow",))
    assert caught.value.got == "tensorflow" and "openvino" in str(caught.value)


@pytest.mark.parametrize(("setting", "value"), [("threads", 0), ("threads", 10_000), ("batch", 0), ("rounds", 0)])
def test_numbers_out_of_range_are_refused(converted: Path, setting: str, value: int) -> None:
    with pytest.raises(OptionError, match=f"number of {setting} is out of range"):
        bench([converted / "model.qpk"], against=(), **{setting: value})  # type: ignore[arg-type]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        bench([tmp_path / "model.qpk"])
    (tmp_path / "model.pt").write_bytes(b"weights")
    with pytest.raises(ArtifactError, match="not a model"):
        bench([tmp_path / "model.pt"])
    (tmp_path / "model.qpk").write_bytes(b"no packed file")
    with pytest.raises(ArtifactError):
        bench([tmp_path / "model.qpk"])
    with pytest.raises(OptionError, match="no model"):
        bench([])


def test_an_onnx_file_alone_is_refused(converted: Path, tmp_path: Path) -> None:
    shutil.copy(converted / "model.onnx", tmp_path)
    with pytest.raises(ArtifactError, match="alone does not say") as caught:
        bench([tmp_path / "model.onnx"])
    assert "onnx,qpk" in str(caught.value)


def test_files_of_two_conversions_are_refused(converted: Path, tmp_path: Path) -> None:
    model, _ = read_onnx(converted / "model.onnx")
    for prop in model.metadata_props:
        if prop.key == "qexport.source_sha256":
            prop.value = "0" * 64
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="not of one conversion"):
        bench([converted / "model.qpk", tmp_path / "other.onnx"], against=())


def test_what_an_engine_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    job = Job(str(tmp_path / "model.onnx"), 1, 1, {"image": [1, 8, 8]}, False)
    with WorkerProcess("onnxruntime", "onnxruntime", job, None) as worker:
        with pytest.raises(ArtifactError, match="onnxruntime failed") as caught:
            worker.ask("open")
        assert caught.value.where == str(tmp_path / "model.onnx") and caught.value.got


def test_a_worker_that_ends_is_told(converted: Path) -> None:
    job = Job(str(converted / "model.qpk"), 1, 1, {"image": [1, 8, 8]}, True)
    with WorkerProcess("ours", "qexport", job, None) as worker:
        worker.ask("open")
        os.kill(worker.process_id, 9)
        with pytest.raises(ArtifactError, match="ours failed") as caught:
            worker.ask("turn", runs=1)
        assert "status -9" in str(caught.value)
