"""The fuzzer: its seeds mean the same to both readers and to the reference, past findings stay fixed, and half a minute
of new files finds nothing (`make fuzz` takes longer)."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from loader_program import RUNTIME, SANITIZERS, find_clang
from numpy.typing import NDArray
from runtime_program import Build, configure_and_build, replay

from qexport.backends.packed.reader import PackedModel, parse_packed
from qexport.errors import ArtifactError

FUZZ = RUNTIME / "fuzz"
SEEDS, FINDINGS = (sorted((FUZZ / name).iterdir()) for name in ("corpus", "regressions"))
SECONDS = 30


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzer and the replayer, built with clang, libFuzzer and sanitizers; skips where they are missing."""
    options = ("-DQXR_BUILD_FUZZ=ON", "-DQXR_BUILD_TESTS=ON")
    return configure_and_build(Build(find_clang(), ("-O1", *SANITIZERS), options), tmp_path_factory.mktemp("fuzz"))


def fuzz(programs: Path, cwd: Path, *arguments: str | Path) -> str:
    # libFuzzer's limit is on ru_maxrss, which starts at what the process that launched it takes: here pytest, some GB.
    command = [programs / "fuzz" / "qxr_fuzz", "-rss_limit_mb=0", "-malloc_limit_mb=1024", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def test_past_findings_stay_fixed(programs: Path, tmp_path: Path) -> None:
    assert FINDINGS
    fuzz(programs, tmp_path, *FINDINGS)


def test_new_files_break_nothing(programs: Path, tmp_path: Path) -> None:
    """From the committed seeds; every file the fuzzer keeps stays in the test's folder."""
    shutil.copytree(FUZZ / "corpus", tmp_path / "corpus")
    limits = [f"-max_total_time={SECONDS}", "-max_len=16384", "-timeout=60", "-seed=1"]
    log = fuzz(programs, tmp_path, *limits, tmp_path / "corpus")
    done = re.search(r"Done (\d+) runs", log)
    assert done is not None and int(done[1]) > 2 * len(SEEDS)


def test_both_readers_judge_alike(plain_check_files) -> None:
    """The seeds are networks that the fuzzer made of others; every one is valid."""
    in_c = [v.status == "OK" for v in plain_check_files([p.read_bytes() for p in SEEDS + FINDINGS])]
    assert in_c == [_accepts(p.read_bytes()) for p in SEEDS + FINDINGS]
    assert all(in_c[: len(SEEDS)])


def test_seeds_run_as_the_reference_computes(programs: Path, tmp_path: Path) -> None:
    """Strange geometry, groups and ranges: every tensor of every seed is what the numpy reference gives."""
    wrong = []
    for path in SEEDS:
        data = path.read_bytes()
        done = replay(programs, data, _samples(parse_packed(data), zlib.crc32(data)), tmp_path)
        if done.returncode:
            wrong.append((path.name, done.stdout, done.stderr[-2000:]))
    assert not wrong


def _accepts(data: bytes) -> bool:
    try:
        parse_packed(data)
    except ArtifactError:
        return False
    return True


def _samples(model: PackedModel, seed: int) -> bytes:
    """Two random samples and one of extremes, with every tensor of them, as runtime/tests/replay.c reads them.

    Operators are evaluated one by one: the IR refuses dead operators and some claims, the format does not.
    """
    rng = np.random.default_rng(seed)
    tensors: list[NDArray] = []
    for claim in model.claims[: model.sections.inputs]:
        extremes = rng.choice([0, 255], (1, *claim.shape))
        tensors.append(np.concatenate([rng.integers(0, 256, (2, *claim.shape)), extremes]))
    for op, reads in zip(model.ops, model.reads, strict=True):
        tensors.append(op.evaluate(*(tensors[t] for t in reads)))
    parts = []
    for i in range(3):
        parts += [x[i].astype(np.uint8).tobytes() for x in tensors[: model.sections.inputs]]
        parts += [x[i].astype("<i4").tobytes() for x in tensors]
    return b"".join(parts)
