"""Threads of a validation: several networks side by side, each computed by one thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

WORKERS = 4
"""More are never busy: the networks of a batch wait for one another."""


@contextmanager
def side_by_side() -> Iterator[Executor]:
    """An executor for work that releases the interpreter lock; matrix products and torch stay on the calling thread.

    The products of a low-bit network are small. Divided among threads they wait for one another in a busy loop, which
    on a processor with other work took nine times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(WORKERS) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
