"""g^T B^-1 h for the gradients g and h of any rows, without a solve per row.

Where B is dense its factor gives the exact value. Elsewhere the Gauss-Newton matrix of M sampled gradients
stands in for that of all rows, F = J^T J + d I (``sample_space``), and with W = L^-1 J g

    g^T F^-1 h = (g^T h - W_g^T W_h) / d.

In products of a training row with itself its own share of the curvature matters, and F has it wrong: a row
that was drawn counts for many, any other not at all. So F is taken without it, and the share as it is in B
is added by whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from puma_dash.core.curvature import Dense, inverse_of, settled
from puma_dash.core.curvature.damping import settle_damping
from puma_dash.core.curvature.sample_space import Draw, SampleSpace, sample_inverse
from puma_dash.core.layers import Layout
from puma_dash.core.row_gradients import RowGradients
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature, Inverse
    from puma_dash.core.engine import Engine

ROWS, SHARE = (1_000, 2_000), 5
"""Where nobody chose, F has one gradient for so many rows, within these bounds."""
FEWEST = 100
"""There are no fewer gradients in F to make room for large layers; then those are left out of it."""


class Form(Protocol):
    """(g, h) -> g^T B^-1 h."""

    facts: dict[str, Any]
    exact: bool
    """Whether it is B itself."""
    apart: bool
    """Whether ``blocks`` leaves out each row's own share of the curvature."""

    def half(self, rows: RowGradients) -> Tensor:
        """What ``products`` needs of its left side, computed once for many right sides."""

    def products(self, left: RowGradients, half: Tensor, right: RowGradients) -> Tensor:
        """g_i^T B^-1 h_j (m, k) of m rows on the left and k on the right."""

    def blocks(self, parts: list[RowGradients], rows: Tensor) -> Tensor:
        """g_ia^T B^-1 g_ib (m, c, c) of c gradients of each of the training rows ``rows`` (m,)."""


@dataclass(frozen=True, eq=False)
class ExactForm:
    """By one exact solve for each row on the left."""

    inverse: Inverse
    facts: dict[str, Any]
    exact = True
    apart = False

    def half(self, rows: RowGradients) -> Tensor:
        """B^-1 g (m, p)."""
        return self.inverse(rows.dense()).x

    def products(self, left: RowGradients, half: Tensor, right: RowGradients) -> Tensor:
        """g_i^T B^-1 h_j (m, k)."""
        return right.times(half)

    def blocks(self, parts: list[RowGradients], rows: Tensor) -> Tensor:
        """g_ia^T B^-1 g_ib (m, c, c)."""
        solved = torch.stack([self.half(part) for part in parts], dim=1)  # (m, c, p)
        return solved @ torch.stack([part.dense() for part in parts], dim=2)


@dataclass(frozen=True, eq=False)
class SampledForm:
    """By the matrix F of M sampled gradients."""

    space: SampleSpace
    draw: Draw
    undone: Tensor
    """L^-1 (M, M)"""
    facts: dict[str, Any]
    exact = False

    @property
    def apart(self) -> bool:
        """Nothing has to be put right where every gradient is in F."""
        return not self.draw.complete

    def half(self, rows: RowGradients) -> Tensor:
        """W (M, m)."""
        return self.space.whitened(rows)

    def products(self, left: RowGradients, half: Tensor, right: RowGradients) -> Tensor:
        """g_i^T F^-1 h_j (m, k)."""
        return (left.gram(right).to(half) - half.T @ self.half(right)) / self.space.shift

    def blocks(self, parts: list[RowGradients], rows: Tensor) -> Tensor:
        """g_ia^T F^-1 g_ib (m, c, c), F without what row i has added to it."""
        halves = torch.stack([self.half(part) for part in parts])  # (c, M, m)
        dots = torch.stack([torch.stack([one.dots(other) for other in parts]) for one in parts])
        found = dots.to(halves).permute(2, 0, 1) - torch.einsum("aki,bki->iab", halves, halves)
        found /= self.space.shift
        if self.apart:
            own = self.draw.of_rows(rows)  # (m, s)
            drawn = (own >= 0).any(1).nonzero().ravel()
            found[drawn] += self._regained(halves[:, :, drawn], own[drawn])
        return found

    def _regained(self, halves: Tensor, own: Tensor) -> Tensor:
        """What the blocks (m, c, c) gain when the columns ``own`` (m, s; -1 for none) leave J.

        With E the rows of J that go, (F - E^T E)^-1 = F^-1 + F^-1 E^T (I - E F^-1 E^T)^-1 E F^-1, where
        E F^-1 g = V^T W_g and I - E F^-1 E^T = d V^T V for V the columns of L^-1 that belong to E. Less
        than d under L scales all inverses alike, and leaves what is returned as it stands.
        """
        there = (own >= 0).to(self.undone)
        v = self.undone.T[own.clamp_min(0)] * there[:, :, None]  # (m, s, M)
        seen = torch.einsum("isk,aki->isa", v, halves)
        left = self.space.shift * v @ v.transpose(1, 2) + torch.diag_embed(1 - there)
        return seen.transpose(1, 2) @ torch.linalg.solve(left, seen)


def form_of(
    engine: Engine, curvature: str | Curvature, count: int | None = None, balanced: bool = False
) -> Form:
    """g^T B^-1 h with the B of ``curvature``; computed once per engine, curvature and count.

    Args:
        engine: of the project.
        curvature: exact for a dense B, else only its damping counts.
        count: M, sampled gradients; None chooses. The dense B takes all rows.
        balanced: whether F is to be right on average, rather than rank rows best.

    Raises:
        ProjectError: the exact Hessian without a dense B, or no F can be had.
    """
    chosen = settled(engine, curvature)
    key = ("form", chosen, count, balanced)
    if key not in engine.memo:
        if isinstance(chosen, Dense):
            inverse = inverse_of(engine, chosen)
            engine.memo[key] = ExactForm(inverse, inverse.facts)
        else:
            engine.memo[key] = _sampled(engine, chosen, count, balanced)
    return engine.memo[key]


def _sampled(engine: Engine, chosen: Any, count: int | None, balanced: bool) -> SampledForm:
    if getattr(chosen, "matrix", "ggn") != "ggn":
        raise ProjectError(
            "expected the Gauss-Newton matrix where rows are not solved for one by one, but got "
            f'{chosen!r}; try matrix="ggn", or puma.Dense(matrix="hessian") for a small model.'
        )
    damping = settle_damping(engine, chosen.damping)
    count = count or min(max(engine.n // SHARE, ROWS[0]), ROWS[1])
    while count > FEWEST and Layout.of(engine, count).missing:
        count //= 2  # fewer gradients of all layers rather than many without the largest
    missing = Layout.of(engine, count).missing
    space = sample_inverse(engine, engine.weight_decay + damping, count, balanced)
    if space is None:
        raise ProjectError(
            "expected layers with gradients by row and wd + damping > 0, but cannot factor their Gram matrix "
            f"at damping {damping:g}; try puma.ConjugateGradient(damping=0.01)."
        )
    eye = torch.eye(len(space.rows)).to(space.factor)
    undone = torch.linalg.solve_triangular(space.factor, eye, upper=False)
    described = {
        "curvature": "sampled Gauss-Newton",
        "damping": damping,
        "weight_decay": engine.weight_decay,
        "rows": len(space.rows),
        **({"left_out": missing} if missing else {}),
    }
    return SampledForm(space, Draw.of(engine, count), undone, described)
