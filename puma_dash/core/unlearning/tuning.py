"""A little more training on re-weighted rows: fine-tuning, and the repair after other methods."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from puma_dash.core.training import AdamRecipe, Recipe
from puma_dash.core.types import ProjectError
from puma_dash.core.unlearning.base import chosen_change, relabelled, training_weights

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.types import Split


def planned_rows(engine: Engine, plan: PatchPlan) -> tuple[Split, Any]:
    """The training rows with the labels of ``plan``, and their weights a_j (1 + e_j) as an array (n,)."""
    train = engine.project.train
    weights = training_weights(engine, chosen_change(engine, plan))
    return replace(train, targets=relabelled(train.targets, plan.relabel)), weights


def refuse_strength(plan: PatchPlan, method: str) -> None:
    """Refuses a strength other than 1 for a method that removes rows whole.

    Raises:
        ProjectError: it is another.
    """
    if plan.strength != 1:
        raise ProjectError(
            f"expected strength 1 for {method}, which removes rows whole, but got {plan.strength:g}."
        )


def tuned(
    engine: Engine, start: nn.Module, plan: PatchPlan, recipe: Recipe, seed: int, message: str
) -> nn.Module:
    """A copy of ``start`` trained on by ``recipe`` on the rows of ``plan``, on the CPU in eval mode."""
    split, weights = planned_rows(engine, plan)
    model = recipe(
        copy.deepcopy(start).to(engine.device),
        split,
        torch.as_tensor(weights),
        engine.weight_decay,
        seed,
        on_epoch=lambda epoch: engine.tick(epoch, recipe.epochs, message),
    )
    return model.cpu().eval()


def recipe_of(engine: Engine) -> Recipe:
    """The project's own recipe, or ours where it has none, or a trainer that cannot go on from a model."""
    trainer = engine.project.trainer
    return trainer if isinstance(trainer, Recipe) else AdamRecipe(engine.loss)
