"""PUMA: remove the influence of the marked rows and re-weight others so that what must hold, holds.

The change the user chose moves held criterion c by s_c / n, s_c = -sum_j e_j psi_cj. Weights lambda on the
rows the user did not touch compensate it: minimise, over 0 <= lambda <= weight_max,

    |S (Psi lambda - s)|^2 + sparsity * pull * sum lambda + ridge * power * |lambda|^2,

with S = diag(1 / std psi_c). ``pull`` is the smallest L1 weight that leaves every row at 0 and ``power`` is
|S Psi|^2, so that both coefficients are free of units. By default only adverse changes (s_c > 0) are
compensated: the two-sided form of the paper also cancels an improvement one wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from puma_dash.core.criteria import resolve_criterion
from puma_dash.core.curvature import Curvature, for_patches, inverse_of
from puma_dash.core.registry import Described
from puma_dash.core.unlearning.base import (
    Change,
    Influences,
    Update,
    chosen_change,
    direction_of,
    influences,
    training_weights,
)
from puma_dash.core.unlearning.steps import OBJECTIVES, relinearise

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Inverse
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan

HALVINGS = 8
"""Guard rails try strength 1, 1/2, ... down to 1/2^HALVINGS of the one asked for."""
CORRECTIONS = 3
"""How often the compensation is asked for more, by what was measured, before the strength is halved."""
OVERSHOOT = 1.25
"""It is asked for this many times what was missing."""


@dataclass(frozen=True)
class Puma(Described):
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
        known = influences(engine, tuple(resolve_criterion(hold) for hold in plan.hold), inverse)
        change, facts = self._compensated(engine, plan, known, np.zeros(len(known.criteria)))
        return change, known, facts

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The patched model at the largest strength that the guard rails allow.

        Where the whole strength measures worse than forecast, the compensation is first asked for that much
        more; only then is the strength halved.
        """
        inverse = inverse_of(engine, curvature)
        known = influences(engine, tuple(resolve_criterion(hold) for hold in plan.hold), inverse)
        rails = Rails.of(engine, plan, known.criteria)
        coarse = for_patches(curvature, engine.n)
        attempt = Attempt(engine, plan, coarse, inverse_of(engine, coarse), rails)
        change, facts = self._compensated(engine, plan, known, np.zeros(len(known.criteria)))
        tried = attempt(change, plan.strength)
        residual, margin, corrections = known.residual, np.zeros(len(known.criteria)), 0
        while tried.binding in rails.names and corrections < CORRECTIONS and np.isfinite(tried.excess).all():
            margin = margin + OVERSHOOT * engine.n / plan.strength * np.maximum(tried.excess, 0)
            more, more_facts = self._compensated(engine, plan, known, margin)
            if torch.equal(more.rows, change.rows) and torch.equal(more.e, change.e):
                break  # nothing left to compensate with, or nothing that compensation is asked for
            corrections += 1
            change, facts = more, more_facts
            tried = attempt(change, plan.strength)
        strength, binding = plan.strength, tried.binding
        whole = dict(zip(rails.names, (tried.excess + rails.tolerance).tolist(), strict=True))
        for _ in range(HALVINGS):
            if tried.binding is None:
                break
            strength /= 2
            tried = attempt(change, strength)
            binding = tried.binding or binding
        if tried.binding is not None:
            strength, tried = 0.0, replace(tried, model=engine.model_at(engine.theta), steps=[])
        predicted = strength / engine.n * known.total(engine, change)
        return Update(
            model=tried.model,
            weights=training_weights(engine, change),
            strength=strength,
            predicted=dict(zip((c.name for c in known.criteria), predicted.tolist(), strict=True)),
            diagnostics={
                **attempt.inverse.facts,
                **facts,
                "residual": max(residual, tried.residual),
                "corrections": corrections,
                "binding": binding,
                "at_full_strength": whole,
                "steps": tried.steps,
            },
        )

    def _compensated(
        self, engine: Engine, plan: PatchPlan, known: Influences, margin: np.ndarray
    ) -> tuple[Change, dict[str, Any]]:
        """The chosen change and what compensates it and ``margin`` (m,) beyond its first-order effect."""
        chosen = chosen_change(engine, plan)
        free = np.setdiff1d(np.arange(engine.n), plan.rows)
        s = known.total(engine, chosen).cpu().numpy().astype(np.float64) + margin
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
        return chosen.and_also(compensating), {
            "compensating_rows": len(used),
            "compensating_largest": float(weights.max(initial=0.0)),
            "compensation_left": {c.name: float(v) for c, v in zip(known.criteria, left, strict=True)},
        }


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

    def weights_of(miss: np.ndarray) -> np.ndarray:
        """The weights (n,) that are best once the miss b - a @ weights (m,) is known."""
        return np.clip((a.T @ miss - lasso / 2) / square, 0.0, weight_max)

    def dual(miss: np.ndarray) -> tuple[float, np.ndarray]:
        """Convex in the miss (m,): as many unknowns as criteria, whatever the number of rows."""
        weights, pulls = weights_of(miss), a.T @ miss
        value = (
            miss @ miss - 2 * b @ miss + (2 * pulls * weights - lasso * weights - square * weights**2).sum()
        )
        return value, 2 * (miss - b + a @ weights)

    size = float(np.abs(b).max())
    found = minimize(dual, np.zeros_like(b), jac=True, method="BFGS", options={"gtol": 1e-10 * size})
    return weights_of(found.x)


@dataclass(frozen=True, eq=False)
class Rails:
    """The held criteria before the patch, and by how much each may get worse."""

    engine: Engine
    criteria: tuple[Criterion, ...]
    before: np.ndarray
    """(m,)"""
    tolerance: np.ndarray
    """(m,)"""

    @property
    def names(self) -> list[str]:
        """The criteria's names."""
        return [criterion.name for criterion in self.criteria]

    @classmethod
    def of(cls, engine: Engine, plan: PatchPlan, criteria: tuple[Criterion, ...]) -> Rails:
        """The rails of ``plan``."""
        before = [engine.criterion(criterion) for criterion in criteria]
        tolerance = [plan.tolerance.get(criterion.name, 0.0) for criterion in criteria]
        return cls(engine, criteria, np.array(before), np.array(tolerance))

    def excess(self, model: nn.Module) -> tuple[np.ndarray, str | None]:
        """By how much ``model`` passes each tolerance (m,), MEASURED, and the worst criterion that does.

        That name is "finite outputs" where the outputs broke down, None where everything holds.
        """
        theta = self.engine.theta_of(model)  # the model that is handed out, rounded to its own type
        if not self.engine.outputs("validation", theta).isfinite().all():
            return np.full(len(self.criteria), np.inf), "finite outputs"
        now = np.array([self.engine.criterion(criterion, theta) for criterion in self.criteria])
        excess = np.nan_to_num(now - self.before - self.tolerance, nan=np.inf)
        if (excess <= 0).all():
            return excess, None
        return excess, self.criteria[int(excess.argmax())].name


@dataclass(frozen=True, eq=False)
class Tried:
    """A model at one strength, and what the rails say of it."""

    model: nn.Module
    excess: np.ndarray
    binding: str | None
    steps: list[float]
    residual: float


@dataclass(frozen=True, eq=False)
class Attempt:
    """Moves the model by a change at a strength, straight or by relinearised steps, and measures."""

    engine: Engine
    plan: PatchPlan
    curvature: str | Curvature
    inverse: Inverse
    rails: Rails

    def __call__(self, change: Change, strength: float) -> Tried:
        """What came of it; a patch of several steps of which none lowers its objective is refused."""
        engine, plan = self.engine, self.plan
        engine.tick(0, 1, f"Patching at strength {strength:g}")
        delta, gradient, residual, _ = direction_of(engine, change, self.inverse)
        steps = [1.0]
        theta = engine.theta + strength * delta
        if plan.steps > 1:
            damping = self.inverse.facts["damping"]
            objective = OBJECTIVES[plan.intent].of(engine, change, strength, damping)
            theta, steps, last = relinearise(
                engine, objective, self.curvature, strength * delta, strength * gradient, plan.steps
            )
            residual = max(residual, last)
        model = engine.model_at(theta)
        excess, binding = self.rails.excess(model)
        return Tried(model, excess, binding if steps else "the objective of the steps", steps, residual)
