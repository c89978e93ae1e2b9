"""Curvature: what B is and how B^-1 v is computed. Call one on an engine and get the inverse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from puma_dash.core.curvature.base import Curvature, Estimate, Inverse, Solution
from puma_dash.core.curvature.conjugate_gradient import ConjugateGradient
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
]

DENSE_PARAMETERS = 4_000
DENSE_PRODUCTS = 2e10
"""Auto takes the dense matrix while n c p^2 multiplications stay below this (about a second on one core)."""


@dataclass(frozen=True)
class Auto(Described):
    """The exact dense matrix where it is cheap, else conjugate gradients; both on the Gauss-Newton matrix."""

    label = "automatic"
    reference = "see Dense and ConjugateGradient"

    damping: float | str = field(
        default="auto", metadata={"help": "Added to the diagonal of B, in units of curvature."}
    )
    fidelity: float = field(
        default=0.99,
        metadata={"help": "Correlation with the exact psi to reach.", "min": 0.5, "max": 0.99999},
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
        return ConjugateGradient(damping=self.damping, fidelity=self.fidelity)


CURVATURES: dict[str, Any] = {
    "auto": Auto,
    "dense": Dense,
    "conjugate_gradient": ConjugateGradient,
    "kfac": KFAC,
    "ekfac": EKFAC,
    "lissa": LiSSA,
}


def inverse_of(engine: Engine, curvature: str | Curvature) -> Inverse:
    """The inverse of B at theta_org, computed once per engine and curvature."""
    chosen = resolve(CURVATURES, curvature, "curvature")
    if chosen not in engine.memo:
        engine.memo[chosen] = chosen(engine)
    return engine.memo[chosen]
