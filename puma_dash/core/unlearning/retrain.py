"""Retraining from scratch on the re-weighted rows: the oracle every patch is compared with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from puma_dash.core.registry import Described
from puma_dash.core.training import AdamRecipe, Recipe, fresh
from puma_dash.core.types import ProjectError
from puma_dash.core.unlearning.base import Update, chosen_change, relabelled, training_weights

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
        if plan.strength != 1:
            raise ProjectError(
                f"expected strength 1 for retraining, which removes rows whole, but got {plan.strength:g}."
            )
        project = engine.project
        weights = training_weights(engine, chosen_change(engine, plan))
        targets = relabelled(project.train.targets, plan.relabel)
        trainer = project.trainer or AdamRecipe(engine.loss)
        extra: dict[str, Any] = {}
        if isinstance(trainer, Recipe):
            total = trainer.epochs
            extra["on_epoch"] = lambda epoch: engine.tick(epoch, total, "Retraining from scratch")
        ours = isinstance(trainer, Recipe)
        try:
            start = fresh(project.model, seed).to(engine.device if ours else "cpu")
        except ProjectError:
            if ours:
                raise
            start = copy.deepcopy(project.model)  # a trainer of the user's own may build its model itself
        model = trainer(
            start,
            replace(project.train, targets=targets),
            torch.as_tensor(weights),
            engine.weight_decay,
            seed,
            **extra,
        )
        described = repr(trainer) if project.trainer else f"{trainer!r} (our recipe, not the author's)"
        return Update(
            model=model.cpu().eval(),
            weights=weights,
            strength=1.0,
            predicted={},
            diagnostics={"trainer": described, "seed": seed, "rows": int((weights > 0).sum())},
        )
