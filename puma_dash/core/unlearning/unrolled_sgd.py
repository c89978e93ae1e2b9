"""Unrolled SGD: add back what the removed rows contributed to the sum of steps, to first order in theta_0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from puma_dash.core.curvature import Estimate
from puma_dash.core.curvature.costs import BACKWARD, RECORDED, Costs
from puma_dash.core.engine import whole_engine
from puma_dash.core.recorder import needed
from puma_dash.core.registry import Described
from puma_dash.core.unlearning.base import Update, chosen_change, training_weights

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.recorder import Records
    from puma_dash.core.types import Project


@dataclass(frozen=True)
class UnrolledSGD(Described):
    """theta_org - tau (lr epochs / batch size) sum_j e_j a_j grad l_j(theta_0), for removals + (...) sum_mk.

    Where the learning rate moves, lr epochs stands for the sum of the epochs' rates. It is exact to first
    order in the learning rate for plain SGD, after few and small steps; momentum and Adam make other steps,
    and long training leaves theta_0 behind. ``SGDRecipe(deviation=1.0)`` trains for it.
    """

    label = "unrolled SGD (gradients at the start)"
    reference = "Thudi, Deza, Chandrasekaran & Papernot (2022), Unrolling SGD"
    needs = ("recorder",)

    def check(self, project: Project) -> Records:
        """The records of ``project``.

        Raises:
            ProjectError: they do not have theta_0, the learning rates and the batches.
        """
        return needed(project, "unrolled SGD", "start", "rates", "batches")

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The model with those steps taken back; nothing is predicted.

        Raises:
            ProjectError: records are missing.
        """
        records = self.check(engine.project)
        assert records.start is not None
        whole, change = whole_engine(engine), chosen_change(engine, plan)
        batch_size = sum(map(len, records.batches)) / len(records.batches)
        factor = sum(records.rates) / batch_size
        gradient = whole.weighted_gradient(
            change.e, change.rows, targets=change.targets, theta=whole.to(records.start)
        )
        delta = -plan.strength * factor * records.restricted(gradient, engine.parameters.names)
        return Update(
            model=engine.model_at(engine.theta + delta),
            weights=training_weights(engine, change),
            strength=plan.strength,
            predicted={},
            diagnostics={
                "factor": factor,
                "epochs": len(records.rates),
                "batch_size": batch_size,
                "optimizer": records.optimizer,
            },
        )

    def estimate(self, engine: Engine, plan: PatchPlan) -> Estimate:
        """What it costs in seconds and bytes: one gradient of the marked rows."""
        costs, rows = Costs.of(engine), len(plan.rows)
        held = int(3 * costs.graph(min(rows, engine.batch_size)))
        return Estimate(costs.passes(rows, RECORDED + BACKWARD), held, f"a gradient of {rows:,} rows")
