"""PUMA: remove the influence of the marked rows and re-weight others so that what must hold, holds.

The change the user chose moves held criterion c by s_c / n, s_c = -sum_j e_j psi_cj. Weights lambda on the
rows the user did not touch compensate it: minimise, over 0 <= lambda <= weight_max,

    |S (Psi lambda - s)|^2 + sparsity * pull * sum lambda + ridge * power * |lambda|^2,

with S = diag(1 / std psi_c). ``pull`` is the smallest L1 weight that leaves every row at 0 and ``power`` is
|S Psi|^2, so that both coefficients are free of units. By default only adverse changes (s_c > 0) are
compensated: the two-sided form of the paper also cancels an improvement one wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from puma_dash.core.criteria import resolve_criterion
from puma_dash.core.curvature import Curvature, inverse_of
from puma_dash.core.unlearning.base import (
    Change,
    Influences,
    Update,
    chosen_change,
    direction_of,
    influences,
    training_weights,
)
from puma_dash.core.unlearning.steps import OBJECTIVES, check_intent, relinearise

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Inverse
    from puma_dash.core.engine import Engine
    from puma_dash.core.types import PatchPlan

HALVINGS = 8
"""Guard rails try strength 1, 1/2, ... down to 1/2^HALVINGS of the one asked for."""


@dataclass(frozen=True)
class Puma:
    """Removal, compensation and guard rails in one patch."""

    label = "PUMA"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: performance unchanged model augmentation"
    needs = ("curvature",)

    sparsity: float = field(
        default=0.05,
        metadata={
            "help": "0 spreads the compensation, towards 1 few rows carry it.",
            "min": 0.0,
            "max": 0.99,
        },
    )
    ridge: float = field(
        default=1e-3,
        metadata={"help": "Keeps the compensating weights small and unique.", "min": 1e-8, "max": 1.0},
    )
    weight_max: float = field(
        default=1.0, metadata={"help": "Most that a compensating row may be up-weighted by.", "min": 0.0}
    )
    two_sided: bool = field(
        default=False, metadata={"help": "Also cancel improvements, as the paper's norm does."}
    )

    def reweight(self, engine: Engine, plan: PatchPlan, inverse: Inverse) -> tuple[Change, Influences, dict]:
        """The chosen change with its compensation, the influences behind it, and facts on the weights."""
        criteria = tuple(resolve_criterion(hold) for hold in plan.hold)
        known = influences(engine, criteria, inverse)
        chosen = chosen_change(engine, plan)
        free = np.setdiff1d(np.arange(engine.n), plan.rows)
        s = known.total(engine, chosen).cpu().numpy().astype(np.float64)
        target = s if self.two_sided else np.maximum(s, 0.0)
        psi = known.psi.cpu().numpy().astype(np.float64)
        scale = psi.std(axis=1)
        psi = psi[:, free]
        weights = compensation(
            psi, target, scale, sparsity=self.sparsity, ridge=self.ridge, weight_max=self.weight_max
        )
        used = np.flatnonzero(weights)
        rows = torch.as_tensor(free[used], dtype=torch.long)
        compensating = Change(
            rows,
            engine.split("train").targets[rows.to(engine.device)],
            torch.as_tensor(weights[used], dtype=engine.dtype, device=engine.device),
        )
        left = (target - psi @ weights) / engine.n
        facts = {
            "compensating_rows": len(used),
            "compensating_largest": float(weights.max(initial=0.0)),
            "compensation_left": {c.name: float(v) for c, v in zip(criteria, left, strict=True)},
        }
        return chosen.and_also(compensating), known, facts

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The patched model at the largest strength that the guard rails allow."""
        check_intent(engine, plan.intent)
        inverse = inverse_of(engine, curvature)
        engine.tick(0, 3, "Influence of the held criteria")
        change, known, facts = self.reweight(engine, plan, inverse)
        engine.tick(1, 3, "Direction of the patch")
        delta, residual = direction_of(engine, change, inverse)
        lengths: dict[float, list[float]] = {}

        def patched(strength: float) -> Tensor:
            """theta at ``strength``: straight, or by relinearised steps."""
            if plan.steps == 1:
                return engine.theta + strength * delta
            objective = OBJECTIVES[plan.intent].of(engine, change, strength, inverse.facts["damping"])
            theta, lengths[strength] = relinearise(engine, objective, curvature, strength * delta, plan.steps)
            return theta

        strength, model, binding = railed(engine, plan, known.criteria, patched)
        predicted = strength / engine.n * known.total(engine, change)
        return Update(
            model=model,
            weights=training_weights(engine, change),
            strength=strength,
            predicted=dict(zip((c.name for c in known.criteria), predicted.tolist(), strict=True)),
            diagnostics={
                **inverse.facts,
                **facts,
                "residual": max(residual, known.residual),
                "binding": binding,
                "steps": lengths.get(strength, [1.0] * (strength > 0)),
            },
        )


def compensation(
    psi: np.ndarray,
    target: np.ndarray,
    scale: np.ndarray,
    *,
    sparsity: float,
    ridge: float,
    weight_max: float,
) -> np.ndarray:
    """Lambda (n,) in [0, weight_max] with psi @ lambda close to target: the bounded elastic net above.

    Args:
        psi: (m, n) influences of the rows that may be up-weighted.
        target: (m,) what psi @ lambda should reach.
        scale: (m,) the standard deviation of each criterion's psi; criteria with none are left out.
        sparsity: L1 weight as a fraction of the smallest one whose answer is 0 everywhere.
        ridge: L2 weight as a fraction of |S psi|^2.
        weight_max: upper bound of each weight.
    """
    known = scale > 0
    a, b = psi[known] / scale[known, None], target[known] / scale[known]
    n = psi.shape[1]
    pull = 2 * (a.T @ b).max(initial=0.0)
    if pull <= 0 or weight_max <= 0:
        return np.zeros(n)
    lasso, square = sparsity * pull, ridge * float((a**2).sum())

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        miss = a @ weights - b
        value = miss @ miss + lasso * weights.sum() + square * (weights @ weights)
        return value / pull, (2 * (miss @ a) + lasso + 2 * square * weights) / pull

    found = minimize(
        objective,
        np.zeros(n),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, weight_max)] * n,
        options={"maxiter": 1_000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-10, "maxcor": 20},
    )
    return found.x


def railed(
    engine: Engine,
    plan: PatchPlan,
    criteria: tuple[Criterion, ...],
    patched: Callable[[float], Tensor],
) -> tuple[float, nn.Module, str | None]:
    """The model at the largest strength tau, tau/2, ... whose MEASURED adverse change keeps every tolerance.

    Returns:
        That strength (0 where none holds), the model there, and the name of what refused the strength above:
        the criterion furthest over its tolerance, or "finite outputs" where the outputs broke down.
    """
    before = {criterion.name: engine.criterion(criterion) for criterion in criteria}
    binding = None
    for halving in range(HALVINGS + 1):
        strength = plan.strength / 2**halving
        engine.tick(2, 3, f"Guard rails at strength {strength:g}")
        model = engine.model_at(patched(strength))
        theta = engine.theta_of(model)  # measured on the model that is handed out, in its own type
        excess = {
            criterion.name: engine.criterion(criterion, theta)
            - before[criterion.name]
            - plan.tolerance.get(criterion.name, 0.0)
            for criterion in criteria
        }
        if not engine.outputs("validation", theta).isfinite().all():
            binding = "finite outputs"
        elif all(value <= 0 for value in excess.values()):
            return strength, model, binding
        else:
            binding = max(excess, key=lambda name: excess[name])
    return 0.0, engine.model_at(engine.theta), binding
