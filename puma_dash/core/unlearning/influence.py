"""Naive influence removal: the first-order change without compensation and without rails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from puma_dash.core.curvature import Inverse
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan


@dataclass(frozen=True)
class InfluenceRemoval(Described):
    """delta = -(tau/n) B^-1 sum_j e_j grad l_j over the rows the user chose, and nothing else."""

    label = "naive influence removal"
    reference = "Koh & Liang (2017), Understanding black-box predictions via influence functions"
    needs = ("curvature",)

    def reweight(self, engine: Engine, plan: PatchPlan, inverse: Inverse) -> tuple[Change, Influences, dict]:
        """The chosen change as it is, and the influences that predict its effect on the held criteria."""
        criteria = tuple(resolve_criterion(hold) for hold in plan.hold)
        return chosen_change(engine, plan), influences(engine, criteria, inverse), {}

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The model moved along delta."""
        inverse = inverse_of(engine, curvature)
        change, known, _ = self.reweight(engine, plan, inverse)
        direction = direction_of(engine, change, inverse_of(engine, for_patches(curvature, engine.n)))
        predicted = plan.strength / engine.n * known.total(engine, change)
        return Update(
            model=engine.model_at(engine.theta + plan.strength * direction.delta),
            weights=training_weights(engine, change),
            strength=plan.strength,
            predicted=dict(zip((c.name for c in known.criteria), predicted.tolist(), strict=True)),
            diagnostics={**direction.facts, "residual": max(direction.residual, known.residual)},
        )
