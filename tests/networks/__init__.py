"""Small torch networks with known integer levels, one builder a feature; what the lowering and backend matrices run on.

Weights are levels times a scale and activations FrozenActivation modules, so nothing has to be trained or frozen first.
Parameters are dyadic rationals with few bits where a builder says `dyadic`: every float64 sum is then exact.

`CASES` is the table, in the order of the imports below; a new network belongs to the module of its operators.
"""

from __future__ import annotations

# isort: off
from networks import widths, layers, residuals, pooling, norms, joins, activations, float_layers  # noqa: F401

# isort: on
from networks.parts import Lambda, batch_norm, quantizer
from networks.table import CASES, Case

__all__ = ["CASES", "Case", "Lambda", "batch_norm", "quantizer"]
