"""report.json: what was frozen, bounds, sizes, proofs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from qexport.conversion.build import Built
from qexport.ir import Graph, Node
from qexport.ops import Conv2d, Linear

REPORT_VERSION = 1


def conversion_report(
    built: Built, weight_bytes: dict[str, int], files: dict[str, int], notes: list[str]
) -> dict[str, Any]:
    """The report as plain JSON types.

    Args:
        built: the conversion.
        weight_bytes: stored bytes of each layer's weights in the ONNX file.
        files: size of every file written, by name.
        notes: remarks of the backends.
    """
    checkpoint, lowered = built.checkpoint, built.lowered
    return {
        "report_version": REPORT_VERSION,
        "checkpoint": {
            "file": checkpoint.source.name,
            "sha256": checkpoint.sha256,
            "family": checkpoint.family,
            "architecture": checkpoint.arch,
            "notes": list(checkpoint.notes),
        },
        "settings": json.loads(built.settings.to_json()),
        "files": files,
        "outputs": [{"name": u.tensor, "scale": float(u.scale), "error_bound": u.error} for u in lowered.outputs],
        "layers": [
            {**layer_row(lowered.graph, node), "stored_bytes": weight_bytes.get(node.name)}
            for node in layer_nodes(lowered.graph)
        ],
        "quantizers": _quantizers(built),
        "fixed_points": [
            {"tensor": f.tensor, "step": float(f.step), "bits": f.bits, "error_bound": f.error}
            for f in lowered.fixed_points.values()
        ],
        "frozen_weights": {
            name: {"levels": list(w.level_set), "near_threshold": built.frozen.near_thresholds.get(name, 0)}
            for name, w in built.frozen.weights.items()
        },
        "temperature": checkpoint.temperature,
        "quantizer_gaps": _gaps(built),
        "proof": proof_summary(built),
        "sizes": sizes(lowered.graph, weight_bytes),
        "notes": notes,
    }


def layer_nodes(graph: Graph) -> list[Node]:
    """Convolutions and linear layers of an integer graph, in order."""
    return [node for node in graph.nodes if isinstance(node.op, Conv2d | Linear)]


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of one image."""
    assert isinstance(node.op, Conv2d | Linear)
    positions = int(np.prod(graph.types[node.name].shape[1:], dtype=np.int64))
    return int(node.op.weight.array.size) * positions


def layer_row(graph: Graph, node: Node) -> dict[str, Any]:
    """What one layer of the integer graph is, as plain JSON types; in report.json and in every artifact's metadata."""
    assert isinstance(node.op, Conv2d | Linear)
    weight, out, x = node.op.weight, graph.types[node.name], graph.types[node.inputs[0]]
    assert x.number is not None
    return {
        "name": node.name,
        "kind": node.op.kind,
        "shape": list(weight.array.shape),
        "weights": int(weight.array.size),
        "weight_bits": weight.bits,
        "edge": weight.edge_bits > 0,
        "levels": list(weight.level_set) if weight.level_set is not None else None,
        "input": x.number.name,
        "accumulator": [int(out.lo.min()), int(out.hi.max())],
        "macs": macs(graph, node),
    }


def _quantizers(built: Built) -> list[dict[str, Any]]:
    proofs = {p.name: p for p in built.proofs}
    found = []
    for name, fold in built.lowered.folds.items():
        proof = proofs.get(name)
        found.append(
            {
                "name": name,
                "levels": fold.function.levels.tolist(),
                "scale": float(fold.function.scale),
                "thresholds": fold.function.thresholds.astype(float).tolist(),
                "calibrated": name.endswith(".quantized"),
                "form": "rescale" if fold.coded else "thresholds",
                "error_bound": fold.error,
                "values_proven": proof.values if proof else 0,
                "values_enumerated": proof.enumerated if proof else 0,
                "exact_rationals": proof.exact if proof else 0,
                "tied_thresholds": proof.ties if proof else 0,
            }
        )
    return found


def _gaps(built: Built) -> dict[str, dict[str, Any]]:
    """Soft quantizers against what they froze to; none where the temperature is unknown."""
    if built.checkpoint.temperature is None:
        return {}
    return {name: asdict(gap) for name, gap in built.frozen.gaps.items()}


def proof_summary(built: Built) -> dict[str, int]:
    """Counts over all folded quantizers."""
    by_thresholds = [p for p in built.proofs if not built.lowered.folds[p.name].coded]
    return {
        "quantizers": len(built.proofs),
        "values": sum(p.values for p in built.proofs),
        "enumerated": sum(p.enumerated for p in built.proofs),
        "exhaustive_layers": sum(p.is_exhaustive for p in by_thresholds),
        "interval_layers": sum(not p.is_exhaustive for p in by_thresholds),
        "rescaled_layers": len(built.proofs) - len(by_thresholds),
        "tied_thresholds": sum(p.ties for p in built.proofs),
    }


def sizes(graph: Graph, weight_bytes: dict[str, int]) -> dict[str, int]:
    """Totals over all layers."""
    layers = layer_nodes(graph)
    weights = sum(int(n.op.weight.array.size) for n in layers if isinstance(n.op, Conv2d | Linear))
    return {
        "weights": weights,
        "float32_bytes": 4 * weights,
        "stored_bytes": sum(weight_bytes.values()),
        "macs": sum(macs(graph, n) for n in layers),
    }
