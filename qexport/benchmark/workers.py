"""Worker processes as the parent sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any

from qexport.benchmark.engines import Job
from qexport.errors import ArtifactError, QExportError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What libraries read that are told their threads in no other way."""

STOP_SECONDS = 5


class WorkerProcess:
    """A process that holds one engine; a context manager that ends it.

    Args:
        label: what to call the engine in messages.
        engine: its name in ENGINES.
        job: what it opens.
        cores: it is pinned to them; None leaves that to the system.
    """

    def __init__(self, label: str, engine: str, job: Job, cores: list[int] | None) -> None:
        self.label, self.engine, self.job = label, engine, job
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qexport.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(job.threads))},
        )
        self._send({"engine": engine, "cores": cores, "job": asdict(job)})

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request of worker.py.

        Raises:
            ArtifactError: the engine refuses the file, or its process ended.
        """
        self._send({"do": what, **arguments})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed(f"its process ended with status {self._process.wait()}: {self._last_error()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._failed(answer["error"])
        return answer

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, which is missing too, says why

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def _failed(self, text: str) -> QExportError:
        return ArtifactError(f"{self.label} failed", where=self.job.path, got=text)


@contextmanager
def started(jobs: Sequence[tuple[str, str, Job]], cores: list[int] | None) -> Iterator[list[WorkerProcess]]:
    """Processes for (label, engine, job), ended when the context ends."""
    with ExitStack() as stack:
        yield [stack.enter_context(WorkerProcess(label, engine, job, cores)) for label, engine, job in jobs]
