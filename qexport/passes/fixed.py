"""Shared state of lowering, and how a pending tensor is settled as fixed point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from qexport.ir import Graph
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Add, Affine, Clip, Op, PRelu
from qexport.passes.fixedpoint import fit_rescale, step_for
from qexport.passes.folding import Fold
from qexport.passes.pending import Pending, apply_exact, rationals
from qexport.passes.streams import WIDE_BITS, Stream

MULTIPLIER_BITS = 30
"""gain / step stays below 2^29, which a 31-bit multiplier with a shift holds."""


@dataclass(frozen=True)
class FixedPoint:
    """A real tensor carried as integers of one step: |real - integer * step| <= error, saturation aside."""

    tensor: str
    step: Fraction
    error: float
    bits: int


@dataclass(eq=False)
class Carrier:
    """State of one lowering.

    Attributes:
        real: quantized real graph.
        out: integer graph under construction.
        streams: format of every Add.
        states: real tensor -> what its integers owe.
        folds: folded quantizers by name.
        fixed_points: real tensor -> its fixed-point form, where it has one.
    """

    real: Graph
    out: Graph
    streams: dict[str, Stream]
    states: dict[str, Pending] = field(default_factory=dict)
    folds: dict[str, Fold] = field(default_factory=dict)
    fixed_points: dict[str, FixedPoint] = field(default_factory=dict)
    _settled: dict[tuple[str, Fraction, int], Pending] = field(default_factory=dict)

    def own_step(self, name: str, headroom: int = 0) -> Fraction:
        """Step for a real tensor that shares it with none, from its proven range, `headroom` bits below 31."""
        return step_for(self.real.types[name].max_abs, WIDE_BITS - headroom)

    @staticmethod
    def limits(bits: int) -> tuple[int, int]:
        """Saturation of a stream of that width."""
        return (INT32_MIN, INT32_MAX) if bits == 32 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def integers(self, name: str) -> Pending:
        """State of a real tensor, with a ReLU on bias-free integers (codes, residual streams) made an exact clip.

        What `integer_units` lists arrives here as plain integers. The clip is made once and serves later readers.
        """
        state = self.states[name]
        while state.chain and not any(state.bias):
            op = state.chain[0]
            rising = all(g > 0 for g in state.gain)
            if isinstance(op, Affine):
                rest = state.chain[1:]
                state = replace(replace(state, chain=()).then_affine(op), chain=rest)
            elif isinstance(op, Clip) and op.lo in (None, 0) and op.hi is None and (rising or max(state.gain) < 0):
                clip = Clip(0, None) if rising else Clip(None, 0)
                tensor = (
                    state.tensor if op.lo is None else self.out.add(self.out.unique(f"{name}.relu"), clip, state.tensor)
                )
                state = replace(state, tensor=tensor, chain=state.chain[1:])
            else:
                break
        self.states[name] = state
        return state

    def fixed(self, name: str, step: Fraction, bits: int = 32) -> Pending:
        """The real tensor `name` as integers of one step, chain applied; made once per step."""
        key = (name, step, bits)
        if key not in self._settled:
            settled = self.settle(self.states[name], name, step, bits)
            self._settled[key] = settled
            self.fixed_points[name] = FixedPoint(settled.tensor, step, settled.error, bits)
        return self._settled[key]

    def settle(self, state: Pending, name: str, step: Fraction, bits: int = 32) -> Pending:
        """Apply what a pending tensor owes: rescale to `step`, then its clips; an affine in the chain starts again."""
        split = next((i for i, op in enumerate(state.chain) if isinstance(op, Affine)), len(state.chain))
        bends, rest = state.chain[:split], state.chain[split:]
        first, width = step, bits
        if rest:
            first, width = self._inner_step(state, bends), 32
        elif any(isinstance(op, PRelu) for op in bends):
            # Saturation may come before a clip, but not before a slope.
            first, width = max(step, self._inner_step(state, bends)), 32
        elif bends and (coarser := step_for(float(max(map(abs, state.gain))), MULTIPLIER_BITS)) > step:
            first, width = coarser, 32  # a clip left so little of the range that no multiplier reaches its step
        x = self._rescaled(replace(state, chain=()), name, first, width)
        for op in bends:
            x = self._bent(x, op, name) if isinstance(op, PRelu) else self._clipped(x, op, name, first)
        if not rest:
            return x if (first, width) == (step, bits) else self._rescaled(x, name, step, bits)
        for op in rest:
            x = x.then_affine(op) if isinstance(op, Affine) else x.then(op)
        return self.settle(x, name, step, bits)

    def _inner_step(self, state: Pending, bends: tuple[Op, ...]) -> Fraction:
        """Step before and after the `bends`: as fine as 30 bits of the proven range at those points allow."""
        x = self.out.types[state.tensor]
        reach = Fraction(0)
        for c, ends in enumerate(zip(x.lo.tolist(), x.hi.tolist(), strict=True)):
            for v in (state.gain[c] * n + state.bias[c] for n in ends):
                reach = max(reach, abs(v))
                for op in bends:
                    v = apply_exact(op, c, v)
                    reach = max(reach, abs(v))
        return step_for(float(reach), WIDE_BITS)

    def _rescaled(self, state: Pending, name: str, step: Fraction, bits: int) -> Pending:
        x = self.out.types[state.tensor]
        lo, hi = self.limits(bits)
        fits = x.lo.min() >= lo and x.hi.max() <= hi
        if state.uniform_gain == step and not any(state.bias) and fits:
            return state
        steps = rationals([step], x.channels)
        op, error = fit_rescale(state, x, steps, lo=lo, hi=hi)
        tensor = self.out.add(self.out.unique(f"{name}.fixed"), op, state.tensor)
        return Pending(tensor, steps, steps * 0, (), state.error + error * float(step))

    def _bent(self, state: Pending, op: PRelu, name: str) -> Pending:
        """PReLU of fixed point: the positive part as it is plus the negative part times the slope."""
        x = self.out.types[state.tensor]
        steps = rationals([state.gain[0]], x.channels)
        positive = self.out.add(self.out.unique(f"{name}.positive"), Clip(0, None), state.tensor)
        negative = self.out.add(self.out.unique(f"{name}.negative"), Clip(None, 0), state.tensor)
        owed = Pending(negative, steps * rationals(op.slope), steps * 0)
        rescale, error = fit_rescale(owed, self.out.types[negative], steps)
        scaled = self.out.add(self.out.unique(f"{name}.slope"), rescale, negative)
        tensor = self.out.add(self.out.unique(f"{name}.prelu"), Add(), positive, scaled)
        steepest = max(1.0, *(float(s) for s in op.slope))
        return replace(state, tensor=tensor, error=state.error * steepest + error * float(state.gain[0]))

    def _clipped(self, state: Pending, op: Op, name: str, step: Fraction) -> Pending:
        """An integer clip without the sides no integer reaches; a bound off the step is rounded, its error stated."""
        assert isinstance(op, Clip)
        x = self.out.types[state.tensor]
        lo = None if op.lo is None or int(x.lo.min()) * step >= op.lo else Fraction(op.lo) / step
        hi = None if op.hi is None or int(x.hi.max()) * step <= op.hi else Fraction(op.hi) / step
        if lo is None and hi is None:
            return state
        bounds = [None if v is None else round(v) for v in (lo, hi)]
        exact = bounds == [lo, hi]
        # A bound beyond int32 is one that a later clip of the chain takes back: the step was made for the chain's end.
        held = [None if v is None else min(max(v, INT32_MIN), INT32_MAX) for v in bounds]
        tensor = self.out.add(self.out.unique(f"{name}.clipped"), Clip(*held), state.tensor)
        return replace(state, tensor=tensor, error=state.error if exact else state.error + float(step) / 2)
