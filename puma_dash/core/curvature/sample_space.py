"""The Gauss-Newton matrix of a few thousand gradients, inverted in sample space: a preconditioner.

With J (M, p) gradients of drawn rows, each along one column of the root of its H, weighted so that J^T J
estimates the Gauss-Newton matrix, the inverse of F = J^T J + d I needs only an (M, M) factor:

    F^-1 v = (v - J^T (J J^T + d I)^-1 J v) / d.

It steers conjugate gradients. On its own it is no answer: it amplifies what the M rows have not seen. For the
same reason the preconditioner's d lies above wd + damping: what is unseen has some curvature too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import BACKWARD, RECORDED, Costs
from puma_dash.core.curvature.sampling import curvature_shares, systematic
from puma_dash.core.layers import ROW_NUMBERS, Layout, Recording
from puma_dash.core.row_gradients import RowGradients

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

MOST_ROWS = 3_000
"""The factor costs M^3; from here on more rows save fewer products than they cost."""
SHARE = 4
"""Smaller projects take one gradient for this many rows."""


@dataclass(frozen=True, eq=False)
class SampleSpace:
    """F^-1 as a function."""

    rows: RowGradients
    """J"""
    factor: Tensor
    """(M, M) lower Cholesky factor of J J^T + d I."""
    shift: float
    """d"""

    def __call__(self, vectors: Tensor) -> Tensor:
        """F^-1 v for every row v of ``vectors`` (k, p)."""
        inner = self.rows.times(vectors).T.to(self.factor)  # (M, k)
        solved = torch.cholesky_solve(inner, self.factor).T.to(vectors)
        return (vectors - self.rows.combination(solved)) / self.shift

    def whitened(self, rows: RowGradients) -> Tensor:
        """W (M, k) with g_i^T F^-1 g_j = (g_i^T g_j - W_i^T W_j) / d for the gradients g of ``rows``."""
        return torch.linalg.solve_triangular(self.factor, self.rows.gram(rows).to(self.factor), upper=False)


def preconditioner(engine: Engine, shift: float, count: int | None = None) -> SampleSpace | None:
    """A matrix close to B^-1 in its effect on conjugate gradients; None where none can be had.

    Its d is the geometric mean of the eigenvalues of J J^T + (wd + damping) I: an estimate of the curvature
    in the directions that the M rows have not seen, and at least ``shift``.

    Args:
        engine: of the project.
        shift: wd + damping.
        count: M; None takes one gradient for ``SHARE`` rows, at most ``MOST_ROWS``.
    """
    count = count if count is not None else usual_count(engine)
    if count == 0 or shift <= 0:
        return None
    key = ("preconditioner", shift, count)
    if key not in engine.memo:
        rows, _ = gradients(engine, count)
        engine.memo[key] = None
        if rows.blocks:
            # Rounding may draw other gradients in another process: its factor would be that of other rows.
            drawn = sha256(Draw.of(engine, count).mark).hexdigest()
            name = f"preconditioner {count} {shift!r} of {drawn}"
            kept = engine.keep(name, lambda: _lifted(engine, count, shift))
            if len(kept["factor"]):
                factor = torch.from_numpy(kept["factor"]).to(engine.device)
                engine.memo[key] = SampleSpace(rows, factor, float(kept["shift"]))
    return engine.memo[key]


def _lifted(engine: Engine, count: int, shift: float) -> dict[str, np.ndarray]:
    """The preconditioner's factor, empty where there is none, and its d."""
    gram = sample_gram(engine, count)
    factor = _factor(gram, shift)
    if factor is not None:
        shift = math.exp(2 * float(factor.diagonal().log().mean()))
        factor = _factor(gram, shift)
    found = gram.new_empty(0, 0) if factor is None else factor
    return {"factor": found.numpy(force=True), "shift": np.array(shift)}


def usual_count(engine: Engine) -> int:
    """M where nobody chose it."""
    return max(1, min(MOST_ROWS, engine.n // SHARE))


def preconditioner_estimate(engine: Engine, count: int) -> tuple[Estimate, float]:
    """What M = ``count`` gradients and their two factors will cost, and the seconds of each use."""
    costs, p = Costs.of(engine), len(engine.theta)
    numbers = min(p, engine.activations(), ROW_NUMBERS // max(count, 1))  # that one gradient is kept in
    seconds = costs.passes(count, RECORDED + BACKWARD)
    seconds += costs.multiplication * (count**2 * numbers / 2 + 2 * count**3 / 3)
    held = count * numbers + 3 * count**2
    use = costs.multiplication * 2 * (count * p + count**2)
    return Estimate(seconds, held * engine.dtype.itemsize, f"{count:,} gradients that precondition"), use


def sample_inverse(engine: Engine, shift: float, count: int, balanced: bool = False) -> SampleSpace | None:
    """F^-1 at d = wd + damping with the factor in float64, for quadratic forms; None where none can be had.

    F^-1 is too large on average: what the M gradients have not seen has some curvature. With w d in place of
    d under the factor, w from 0 to 1, it is right on average, for sums over rows; it ranks them a little
    worse. Where all gradients are drawn w is 1.

    Args:
        engine: of the project.
        shift: d
        count: M
        balanced: whether to be right on average.
    """
    rows, _ = gradients(engine, count)
    if not rows.blocks or shift <= 0:
        return None
    gram = sample_gram(engine, count).double()
    w = _scale(gram, shift, 1 / Draw.of(engine, count).inverse.to(gram)) if balanced else 1.0
    factor = _factor(gram, w * shift)
    return None if factor is None else SampleSpace(rows, factor, shift)


def _scale(gram: Tensor, shift: float, chances: Tensor) -> float:
    """w: how much less of the curvature J^T J + w d I acts than of the whole (Derezinski et al. 2020).

    A gradient g drawn with chance pi counts 1 / pi times, but adds to the inverse no more than
    1 / (1 + t), t = g^T F^-1 g / pi without it, against 1 / (1 + pi t) in B. With
    1 / (1 + t) = w d [(J J^T + w d I)^-1]_gg, w is the mean of the ratios over the gradients drawn.
    """
    values, vectors = torch.linalg.eigh(gram)
    values, squares, w = values.clamp_min(0), vectors.square(), 1.0
    for _ in range(100):
        left = squares @ (w * shift / (values + w * shift))
        before, w = w, float((chances + (1 - chances) * left).mean())
        if abs(before - w) <= 1e-4 * w:
            break
    return w


def _factor(gram: Tensor, shift: float) -> Tensor | None:
    lifted = gram.clone()
    lifted.diagonal().add_(shift)
    factor, failed = torch.linalg.cholesky_ex(lifted)
    return None if failed else factor  # a tiny shift drowns in rounding


@dataclass(frozen=True, eq=False)
class Draw:
    """Which columns k of the roots of a_i H_i make up J: M of them, drawn in proportion to their share."""

    rows: Tensor
    """(M,) i, ascending."""
    columns: Tensor
    """(M,) k"""
    inverse: Tensor
    """(M,) inverses of the probabilities."""
    complete: bool
    """Whether all columns are there that are not 0, so that J^T J is the Gauss-Newton matrix itself."""

    @property
    def mark(self) -> bytes:
        """What tells this draw from another."""
        return torch.stack([self.rows, self.columns]).numpy().tobytes()

    @classmethod
    def of(cls, engine: Engine, count: int) -> Draw:
        """``count`` columns, or all that are not 0; the same ones in every call."""
        shares = curvature_shares(engine).cpu()
        there = int((shares > 0).sum())
        drawn, inverse = systematic(shares.ravel(), min(count, there), seed=0)
        return cls(drawn // shares.shape[1], drawn % shares.shape[1], inverse, count >= there)

    def of_rows(self, rows: Tensor) -> Tensor:
        """Which of the M belong to each of ``rows`` (m,): (m, s), with -1 where a row has fewer than s."""
        first, last = (torch.searchsorted(self.rows, rows, right=right) for right in (False, True))
        found = first[:, None] + torch.arange(int((last - first).max()))
        return torch.where(found < last[:, None], found, -1)


def gradients(engine: Engine, count: int) -> tuple[RowGradients, Layout]:
    """J of ``count`` gradients and the layers behind them; they depend on no damping."""
    key = ("sample space", count)
    if key not in engine.memo:
        layout = Layout.of(engine, count)
        draw = Draw.of(engine, count)
        columns, scale = engine.to(draw.columns), engine.to((draw.inverse / engine.n).sqrt())

        def record(part: slice) -> RowGradients:
            inputs, targets, base = engine.training_rows(draw.rows[part])
            recording = Recording(engine, inputs, layout.layers)
            roots = engine.loss.root_columns(recording.outputs.detach(), targets, columns[part])
            return recording.gradients(roots * (scale[part] * base.sqrt())[:, None], layout.rest)

        engine.memo[key] = RowGradients.join(engine.over(len(draw.rows), record)), layout
    return engine.memo[key]


def sample_gram(engine: Engine, count: int) -> Tensor:
    """J J^T (M, M) of ``count`` gradients."""
    key = ("sample gram", count)
    if key not in engine.memo:
        engine.memo[key] = gradients(engine, count)[0].self_gram()
    return engine.memo[key]
