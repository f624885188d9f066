"""One engine in a process of its own. `python -m qexport.benchmark.worker` is spoken to in lines of JSON.

The first line is {"engine", "cores", "job"}; every further line is a request, answered by one line:

- {"do": "open"}: opens the file and runs once: seconds of both; a digest of integer outputs; the instruction set
- {"do": "turn", "runs": n}: one run that is not counted, then n: their seconds, and those of processor time
- {"do": "reopen"}: opens the file once more and runs once, then drops it: seconds of both
- {"do": "memory"}: what the process has taken since just before it opened the file, at most, in bytes
- {"do": "peak"}: products a second of the session's instruction set, at best
- {"do": "layers", "runs": n}: seconds of each group of operators, run after run

An engine that fails answers {"error": text}.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.benchmark.engines import ENGINES, Job, Run
from qexport.benchmark.memory import MemoryMeter

SETTLE_SECONDS = 0.03
"""Pause at the end of a turn: threads of some engines spin for a while before they sleep, and disturb the next."""

PEAK_PRODUCTS, PEAK_REPEATS = 100_000_000, 50


class Worker:
    """The state between requests."""

    def __init__(self, engine: str, job: Job) -> None:
        self.engine, self.job = ENGINES[engine], job
        self.images = job.images()
        self.engine.prepare(job)
        gc.collect()
        self.memory = MemoryMeter()
        self.run: Run | None = None

    def open(self) -> dict[str, Any]:
        run, answer, outputs = self._open_and_run()
        self.run = run
        return {**answer, "outputs": _digest(outputs)}

    def reopen(self) -> dict[str, Any]:
        answer = self._open_and_run()[1]
        gc.collect()
        return answer

    def turn(self, runs: int) -> dict[str, Any]:
        assert self.run is not None
        self.run()
        seconds, processor = [], []
        for _ in range(runs):
            before = time.process_time()
            seconds.append(_seconds(self.run)[0])
            processor.append(time.process_time() - before)
        time.sleep(SETTLE_SECONDS)
        return {"seconds": seconds, "processor": processor}

    def measured_memory(self) -> dict[str, Any]:
        return {"bytes": self.memory.most()}

    def peak(self) -> dict[str, Any]:
        from qexport.session import InferenceSession, load_runtime

        runtime, isa = load_runtime(), InferenceSession(self.job.path).isa
        best = 0.0
        for _ in range(PEAK_REPEATS):
            seconds, products = _seconds(lambda: runtime.peak_products(isa, PEAK_PRODUCTS))
            best = max(best, products / seconds)
        return {"isa": isa, "products_per_second": best}

    def layers(self, runs: int) -> dict[str, Any]:
        from qexport.session import InferenceSession

        session = InferenceSession(self.job.path, threads=self.job.threads)
        one = {name: images[:1] for name, images in self.images.items()}
        session.time_layers(one)
        return {"seconds": [session.time_layers(one) for _ in range(runs)]}

    def _open_and_run(self) -> tuple[Run, dict[str, Any], list[NDArray]]:
        load, run = _seconds(lambda: self.engine.open(self.job, self.images))
        first, outputs = _seconds(run)
        return run, {"load": load, "first": first}, outputs

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "open":
                return self.open()
            case "turn":
                return self.turn(request["runs"])
            case "reopen":
                return self.reopen()
            case "memory":
                return self.measured_memory()
            case "peak":
                return self.peak()
            case "layers":
                return self.layers(request["runs"])
        raise ValueError(f"no such request: {request}")


def _seconds(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _digest(outputs: list[NDArray]) -> str | None:
    """Of integer outputs, in order; None where they are real numbers."""
    if not all(np.issubdtype(array.dtype, np.integer) for array in outputs):
        return None
    digest = hashlib.sha256()
    for array in outputs:
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    return digest.hexdigest()


def _pin(cores: list[int] | None) -> None:
    """Before any library starts threads: they inherit it."""
    if cores is not None and sys.platform == "linux":
        os.sched_setaffinity(0, cores)


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    beginning = json.loads(sys.stdin.readline())
    _pin(beginning["cores"])
    worker = None
    for line in sys.stdin:
        try:
            worker = worker or Worker(beginning["engine"], Job(**beginning["job"]))
            answer = worker.answer(json.loads(line))
        except Exception as error:  # engines raise classes of their own; the parent says which engine it was
            answer = {"error": str(error).strip() or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    gc.disable()
    main()
