"""Runs directories of `qexport embed --target wasm` in Node.js."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from embedded_program import HERE, run

from qexport.backends.packed.writer import to_packed
from qexport.embed import embed
from qexport.ir import Graph

ISAS = ("scalar", "simd128")
"""Kernels of the module."""


def node() -> str:
    """The command; skips where it is not installed."""
    return shutil.which("node") or pytest.skip("Node.js is not installed")


def write_site(graph: Graph, folder: Path, **metadata: object) -> Path:
    """The directory of a graph; metadata as JSON under the key `qexport.NAME`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "network.qpk"
    model.write_bytes(to_packed(graph, metadata={f"qexport.{key}": json.dumps(v) for key, v in metadata.items()}))
    embed(model, folder, target="wasm")
    return folder


def run_site(folder: Path, isa: str, feeds: Sequence[np.ndarray]) -> np.ndarray:
    """Outputs [N, all outputs] for samples [N, ...] of every input."""
    rows = np.concatenate([a.reshape(len(a), -1).astype(np.uint8) for a in feeds], axis=1)
    done = run([node(), HERE / "run_model.mjs", folder, isa], input=rows.tobytes())
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, "<i4").reshape(len(rows), -1)


def run_script(folder: Path, script: str) -> object:
    """What a script prints as JSON; it runs as a module in a directory of `embed`, with its parts imported."""
    head = (
        "import fs from 'node:fs';\n"
        "import { compile, load, pixelsOf, QxrError, ranked } from './qxr.js';\n"
        "await compile(fs.readFileSync('qxr.wasm'));\n"
        "const file = () => new Uint8Array(fs.readFileSync('model.qpk'));\n"
    )
    (folder / "script.mjs").write_text(head + script, encoding="utf-8")
    done = run([node(), "script.mjs"], cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
