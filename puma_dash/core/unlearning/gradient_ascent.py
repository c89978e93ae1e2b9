"""Gradient ascent on the removed rows: the warning example."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from puma_dash.core.curvature import Estimate
from puma_dash.core.curvature.costs import BACKWARD, RECORDED, Costs
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError
from puma_dash.core.unlearning.base import Update, chosen_change, training_weights

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan


@dataclass(frozen=True)
class GradientAscent(Described):
    """theta <- theta - tau lr (1 / k) sum_j e_j a_j grad l_j(theta), k rows, so that removed losses rise.

    Nothing holds the other rows, and the loss of a removed row has no top: with more steps it ends in a
    model that is wrong on purpose where retraining would still be right. Here to be compared, not used.
    """

    label = "gradient ascent on the removed rows"
    reference = "Jang et al. (2023), Knowledge unlearning for mitigating privacy risks in language models"
    needs = ()

    learning_rate: float = field(default=0.05, metadata={"help": "Size of the steps.", "min": 0.0})
    steps: int = field(default=10, metadata={"help": "Steps, each on all the marked rows.", "min": 1})

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The model after the steps; nothing is predicted.

        Raises:
            ProjectError: the parameters are not finite any more.
        """
        change, theta = chosen_change(engine, plan), engine.theta.clone()
        for step in range(self.steps):
            engine.tick(step, self.steps, "Gradient ascent")
            gradient = engine.weighted_gradient(change.e, change.rows, targets=change.targets, theta=theta)
            theta -= plan.strength * self.learning_rate / len(change.rows) * gradient
        if not theta.isfinite().all():
            raise ProjectError(
                f"expected finite parameters after {self.steps} steps of gradient ascent at learning rate "
                f"{self.learning_rate:g}, but they are not; try smaller steps, or another method."
            )
        return Update(
            model=engine.model_at(theta),
            weights=training_weights(engine, change),
            strength=plan.strength,
            predicted={},
            diagnostics={"steps": self.steps, "learning_rate": self.learning_rate},
        )

    def estimate(self, engine: Engine, plan: PatchPlan) -> Estimate:
        """What it costs in seconds and bytes."""
        costs, rows = Costs.of(engine), len(plan.rows)
        seconds = self.steps * costs.passes(rows, RECORDED + BACKWARD)
        return Estimate(
            seconds, int(3 * costs.graph(min(rows, engine.batch_size))), f"{self.steps} gradients"
        )
