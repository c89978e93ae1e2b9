"""Fine-tuning on the rows that remain: what everybody tries first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from puma_dash.core.registry import Described
from puma_dash.core.retraining import training_estimate
from puma_dash.core.training import AdamRecipe
from puma_dash.core.unlearning.base import Update
from puma_dash.core.unlearning.tuning import planned_rows, refuse_strength, tuned

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature, Estimate
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan


@dataclass(frozen=True)
class FineTune(Described):
    """A few epochs of Adam from theta_org on weights a_j (1 + e_j), at a low learning rate.

    It forgets by drifting: at a low rate the removed rows stay, at a high one it is retraining.
    """

    label = "fine-tuning on the retained rows"
    reference = "Golatkar, Achille & Soatto (2020), Eternal sunshine of the spotless net (baseline)"
    needs = ()

    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of Adam.", "min": 0.0})
    epochs: int = field(default=5, metadata={"help": "Passes over the retained rows.", "min": 1})
    batch_size: int = field(default=128, metadata={"help": "Rows per step.", "min": 1})

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The tuned model; held criteria are measured, nothing is predicted.

        Raises:
            ProjectError: a strength other than 1.
        """
        refuse_strength(plan, "fine-tuning")
        recipe = AdamRecipe(engine.loss, self.learning_rate, self.epochs, self.batch_size)
        model = tuned(engine, engine.project.model, plan, recipe, seed, "Fine-tuning")
        return Update(model, planned_rows(engine, plan)[1], 1.0, {}, {"recipe": repr(recipe), "seed": seed})

    def estimate(self, engine: Engine, plan: PatchPlan) -> Estimate:
        """What it costs in seconds and bytes."""
        return training_estimate(engine, engine.n, self.epochs, self.batch_size)
