"""Amnesiac ML: take back what the batches with the removed rows did to the parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from puma_dash.core.recorder import needed
from puma_dash.core.registry import Described
from puma_dash.core.retraining import training_estimate
from puma_dash.core.training import AdamRecipe
from puma_dash.core.types import ProjectError, listing
from puma_dash.core.unlearning.base import Update
from puma_dash.core.unlearning.tuning import planned_rows, refuse_strength, tuned

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature, Estimate
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.recorder import Records
    from puma_dash.core.types import Project


@dataclass(frozen=True)
class Amnesiac(Described):
    """theta_org - sum of the logged updates of every batch that held a marked row; then a short fine-tune.

    Each epoch has at least one such batch, so that small data with many epochs lose nearly all of their
    training: what then comes back is the fine-tune. ``diagnostics["undone"]`` says which share it was;
    the authors see accuracy hold up to about 1 %.
    """

    label = "Amnesiac ML (logged updates taken back)"
    reference = "Graves, Nagisetty & Ganesh (2021), Amnesiac machine learning"
    needs = ("recorder",)

    learning_rate: float = field(
        default=1e-3, metadata={"help": "Peak learning rate of the repair by Adam.", "min": 0.0}
    )
    epochs: int = field(
        default=2, metadata={"help": "Passes of the repair over the retained rows; 0 for none.", "min": 0}
    )
    batch_size: int = field(default=128, metadata={"help": "Rows per step of the repair.", "min": 1})

    def check(self, project: Project) -> Records:
        """The records of ``project``.

        Raises:
            ProjectError: they do not have the batches and their updates.
        """
        return needed(project, "Amnesiac ML", "batches", "updates")

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The model with those updates taken back and repaired; nothing is predicted.

        Raises:
            ProjectError: records are missing, rows are up-weighted, or a strength other than 1.
        """
        records = self.check(engine.project)
        refuse_strength(plan, "Amnesiac ML")
        if plan.upweight:
            raise ProjectError(
                "expected removals or new labels for Amnesiac ML, which can only take batches back, but the "
                f'plan up-weights rows {listing(plan.upweight)}; try method="retrain".'
            )
        assert records.updates is not None
        marked = torch.zeros(engine.n, dtype=torch.bool)
        marked[list(plan.rows)] = True
        touched = torch.tensor([bool(marked[rows].any()) for rows in records.batches])
        back = records.updates[touched].double().sum(0)
        delta = engine.to(records.restricted(back, engine.parameters.names))
        model = engine.model_at(engine.theta - delta)
        if self.epochs:
            recipe = AdamRecipe(engine.loss, self.learning_rate, self.epochs, self.batch_size)
            model = tuned(engine, model, plan, recipe, seed, "Repairing")
        return Update(
            model=model,
            weights=planned_rows(engine, plan)[1],
            strength=1.0,
            predicted={},
            diagnostics={
                "batches": len(touched),
                "batches_undone": int(touched.sum()),
                "undone": float(touched.double().mean()),
                "repair_epochs": self.epochs,
                "seed": seed,
            },
        )

    def estimate(self, engine: Engine, plan: PatchPlan) -> Estimate:
        """What it costs in seconds and bytes: the repair."""
        return training_estimate(engine, engine.n, self.epochs, self.batch_size)
