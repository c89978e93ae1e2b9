"""Retraining from scratch on the re-weighted rows: the oracle every patch is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from puma_dash.core.registry import Described
from puma_dash.core.training import from_scratch, trainer_of
from puma_dash.core.unlearning.base import Update
from puma_dash.core.unlearning.tuning import planned_rows, refuse_strength

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan


@dataclass(frozen=True)
class Retrain(Described):
    """The project's own trainer, or the Adam recipe, on weights a_j (1 + e_j); the factor 1/n stays."""

    label = "retraining from scratch"
    reference = "the exact answer, at the full cost"
    needs = ("trainer",)

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The retrained model; held criteria are measured, nothing is predicted."""
        refuse_strength(plan, "retraining")
        project = engine.project
        split, weights = planned_rows(engine, plan)
        trainer, described = trainer_of(project)
        model = from_scratch(
            trainer,
            project.model,
            split,
            torch.as_tensor(weights),
            engine.weight_decay,
            seed,
            engine.device,
            lambda epoch: engine.tick(epoch, trainer.epochs, "Retraining from scratch"),
        )
        return Update(
            model=model.cpu(),
            weights=weights,
            strength=1.0,
            predicted={},
            diagnostics={"trainer": described, "seed": seed, "rows": int((weights > 0).sum())},
        )
