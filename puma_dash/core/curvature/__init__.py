"""Curvature: what B is and how B^-1 v is computed. Call one on an engine and get the inverse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from puma_dash.core.curvature.base import Curvature, Estimate, Inverse, Solution
from puma_dash.core.curvature.conjugate_gradient import ConjugateGradient
from puma_dash.core.curvature.damping import damping_field
from puma_dash.core.curvature.dense import Dense
from puma_dash.core.curvature.kfac import EKFAC, KFAC
from puma_dash.core.curvature.lissa import LiSSA
from puma_dash.core.registry import Described, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.engine import Engine

__all__ = [
    "CURVATURES",
    "EKFAC",
    "KFAC",
    "Auto",
    "ConjugateGradient",
    "Curvature",
    "Dense",
    "Estimate",
    "Inverse",
    "LiSSA",
    "Solution",
    "inverse_of",
    "settled",
]

DENSE_PARAMETERS = 4_000
DENSE_PRODUCTS = 2e10
"""Auto takes the dense matrix while n c p^2 multiplications stay below this (about a second on one core)."""
PATCH_FIDELITY = 0.9
PATCH_ROWS = 3_000
"""What the direction of a patch is solved to and on: the effect is measured, and a tenth of the cost loses
little of it."""


@dataclass(frozen=True)
class Auto(Described):
    """The exact dense matrix where it is cheap, else conjugate gradients; both on the Gauss-Newton matrix."""

    label = "automatic"
    reference = "see Dense and ConjugateGradient"

    damping: float | str = damping_field()
    fidelity: float = field(
        default=0.99,
        metadata={"help": "Correlation with the exact psi to reach.", "min": 0.5, "max": 0.99999},
    )
    rows: int | None = field(
        default=None,
        metadata={"help": "Training rows drawn for the curvature of large models; empty chooses.", "min": 1},
    )

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of B at ``theta``, by the cheaper faithful way."""
        return self._choice(engine)(engine, theta)

    def estimate(self, engine: Engine) -> Estimate:
        """What the way that is chosen will cost."""
        return self._choice(engine).estimate(engine)

    def _choice(self, engine: Engine) -> Curvature:
        p, c = len(engine.theta), len(engine.project.class_names or ())
        cheap = p <= DENSE_PARAMETERS and engine.n * c * p**2 <= DENSE_PRODUCTS
        if cheap:
            return Dense(damping=self.damping)
        rows = None if self.rows is None or self.rows >= engine.n / 2 else self.rows
        return ConjugateGradient(damping=self.damping, fidelity=self.fidelity, rows=rows)


CURVATURES: dict[str, Any] = {
    "auto": Auto,
    "dense": Dense,
    "conjugate_gradient": ConjugateGradient,
    "kfac": KFAC,
    "ekfac": EKFAC,
    "lissa": LiSSA,
}


def settled(engine: Engine, curvature: str | Curvature) -> Curvature:
    """The curvature that stands behind ``curvature`` on this engine: what "auto" chooses."""
    chosen = resolve(CURVATURES, curvature, "curvature")
    return chosen._choice(engine) if isinstance(chosen, Auto) else chosen


def inverse_of(engine: Engine, curvature: str | Curvature) -> Inverse:
    """The inverse of B at theta_org, computed once per engine and curvature."""
    chosen = settled(engine, curvature)
    if chosen not in engine.memo:
        engine.memo[chosen] = chosen(engine)
    return engine.memo[chosen]


def for_patches(curvature: str | Curvature, n: int) -> Curvature:
    """The curvature of a patch's direction: a stated fidelity is lowered, since the effect is measured.

    So are the rows, of the ``n`` for training, where that saves much. Explicit rows and tolerances stay.
    """
    chosen = resolve(CURVATURES, curvature, "curvature")
    if getattr(chosen, "fidelity", None) is None:
        return chosen
    rows = chosen.rows or (PATCH_ROWS if n > 2 * PATCH_ROWS else None)
    return replace(chosen, fidelity=min(chosen.fidelity, PATCH_FIDELITY), rows=rows)
