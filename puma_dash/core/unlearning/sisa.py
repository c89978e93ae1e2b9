"""SISA: an ensemble trained ahead on shards of the rows, slice after slice; removals retrain little of it."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.engine import engine_of
from puma_dash.core.recorder import Records, Shards, trained_shapes
from puma_dash.core.registry import Described
from puma_dash.core.retraining import training_estimate
from puma_dash.core.task import REGRESSION
from puma_dash.core.training import Recipe, fresh
from puma_dash.core.types import ProjectError
from puma_dash.core.unlearning.base import Update
from puma_dash.core.unlearning.tuning import planned_rows, recipe_of, refuse_strength

if TYPE_CHECKING:
    from collections.abc import Sequence

    from puma_dash.core.curvature import Curvature, Estimate
    from puma_dash.core.engine import CancelEvent, Engine, Progress
    from puma_dash.core.objective import Loss
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.types import Project, Split


class Ensemble(nn.Module):
    """The vote of several models: outputs whose probabilities are the mean of theirs.

    For cross-entropy the outputs are log mean_s p_s (b, c), for one logit log odds of the mean, for values
    the mean itself.
    """

    def __init__(self, members: Sequence[nn.Module], loss: Loss) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.values = loss.task is REGRESSION

    def extra_repr(self) -> str:
        """What is averaged."""
        return "mean of values" if self.values else "mean of probabilities"

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (b, c) for ``inputs`` (b, ...)."""
        each = torch.stack([member(inputs) for member in self.members])  # (s, b, c)
        if self.values:
            return each.mean(0)
        if each.shape[2] == 1:
            log = nn.functional.logsigmoid
            return log(each).logsumexp(0) - log(-each).logsumexp(0)
        return each.log_softmax(2).logsumexp(0) - float(np.log(len(each)))


def like(project: Project, names: Sequence[str]) -> nn.Module:
    """A copy of the project's model, or an ensemble of copies where ``names`` are those of its state."""
    own = project.model
    members = {name.split(".")[1] for name in names if name.startswith("members.")}
    if isinstance(own, Ensemble) or not members:
        return copy.deepcopy(own)
    return Ensemble([copy.deepcopy(own) for _ in members], cast("Loss", project.loss)).eval()


def train_shards(
    project: Project,
    shards: int = 5,
    slices: int = 3,
    *,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Records:
    """The project's records with an ensemble for SISA, trained ahead.

    Rows are dealt at random to ``shards`` parts, each cut into ``slices``. A member starts from fresh
    parameters and trains on the first slice, then on the first two, and so on, each for 2 e / (slices + 1)
    of the recipe's e epochs, so that it sees as many rows as in plain training. The recipe is the project's
    own where it is one of ours, else ``AdamRecipe``. Hand the result to the project:
    ``dataclasses.replace(project, records=puma.train_shards(project))``.

    Args:
        project: model and data.
        shards: members of the ensemble; more make removals cheaper, and each member weaker.
        slices: checkpoints of each member.
        seed: of shards, fresh parameters and batches.
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Raises:
        ProjectError: fewer rows than slices, or a model that cannot be drawn anew.
    """
    engine = engine_of(project, device, progress, cancel)
    known = project.records or Records(trained_shapes(project.model))
    return replace(known, shards=_trained_ahead(engine, _dealt(engine, shards, slices, seed)))


def _dealt(engine: Engine, shards: int, slices: int, seed: int) -> Shards:
    """The rows of each slice of each shard; nothing is trained yet.

    Raises:
        ProjectError: fewer rows than slices.
    """
    if shards < 1 or slices < 1 or shards * slices > engine.n:
        raise ProjectError(
            f"expected at least one shard, one slice and a row for each of them, but got {shards} shards of "
            f"{slices} slices for {engine.n} rows; try fewer."
        )
    recipe = recipe_of(engine)
    epochs = max(1, round(2 * recipe.epochs / (slices + 1)))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(engine.n))
    rows = tuple(
        tuple(part.sort().values for part in shard.tensor_split(slices))
        for shard in order.tensor_split(shards)
    )
    return Shards(rows, tuple(() for _ in rows), epochs, seed, repr(recipe))


def _trained_ahead(engine: Engine, dealt: Shards) -> Shards:
    """``dealt`` with the states of its members, trained on the rows as they are."""
    train, count = engine.project.train, len(dealt.rows)
    weights = torch.ones(engine.n, dtype=torch.float64) if train.weights is None else train.weights.double()
    states = tuple(_member(engine, dealt, s, 0, train, weights, (s, count)) for s in range(count))
    return replace(dealt, states=states)


def _member(
    engine: Engine,
    shards: Shards,
    s: int,
    since: int,
    split: Split,
    weights: Tensor,
    progress: tuple[int, int],
) -> tuple[dict[str, Tensor], ...]:
    """States of member ``s`` after each slice from ``since`` on, trained from where it stood before."""
    project, recipe = engine.project, _recipe(engine, shards)
    model = fresh(project.model, shards.seed + s).to(engine.device)
    if since:
        model.load_state_dict(shards.states[s][since - 1])
    states = []
    for r in range(since, len(shards.rows[s])):
        engine.tick(*progress, f"Shard {s + 1}, slice {r + 1}")
        seen = torch.cat(shards.rows[s][: r + 1])
        if weights[seen].any():
            part = split.take(seen.numpy())
            seed = int(np.random.SeedSequence([shards.seed, s, r]).generate_state(1)[0])
            recipe(
                model,
                part,
                weights[seen],
                engine.weight_decay,
                seed,
                on_epoch=lambda _: engine.check_cancel(),
            )
        states.append({name: value.detach().cpu().clone() for name, value in model.state_dict().items()})
    return tuple(states)


def _recipe(engine: Engine, shards: Shards) -> Recipe:
    """The recipe with the epochs of a slice.

    Raises:
        ProjectError: the ensemble was trained by another one.
    """
    recipe: Any = recipe_of(engine)
    if repr(recipe) != shards.recipe:
        raise ProjectError(
            f"expected the ensemble's shards to be trained by {recipe!r}, as the project says, but it was "
            f"{shards.recipe}; try puma.train_shards(project) again."
        )
    return replace(recipe, epochs=shards.epochs)


@dataclass(frozen=True)
class Sisa(Described):
    """The ensemble trained ahead; members that saw a changed row retrain from the slice before it on.

    That equals training those shards from scratch on the rows as the plan leaves them. The model is the vote
    of the members: it is compared with the project's model, so that what changes is also that each member
    saw a share of the rows only.

    Where the records have no ensemble it is trained first, on the rows as they are, and held with the
    project. The diagnostics tell those seconds as ``ahead_seconds``, and the patch does not count them.
    """

    label = "SISA (ensemble of shards, retrained in part)"
    reference = "Bourtoule et al. (2021), Machine unlearning"
    needs = ("trainer",)

    shards: int = field(default=5, metadata={"help": "Members, where none are trained ahead.", "min": 1})
    slices: int = field(default=3, metadata={"help": "Checkpoints of each of them.", "min": 1})

    def __call__(self, engine: Engine, plan: PatchPlan, curvature: str | Curvature, seed: int) -> Update:
        """The vote of the members; nothing is predicted.

        Raises:
            ProjectError: the ensemble was trained otherwise, or a strength other than 1.
        """
        refuse_strength(plan, "SISA")
        begin = time.perf_counter()
        shards = self._ensemble(engine)
        ahead = time.perf_counter() - begin
        split, weights = planned_rows(engine, plan)
        since = first_slices(shards, plan)
        members = []
        for s, first in enumerate(since):
            states = shards.states[s]
            if first < len(states):
                states = _member(engine, shards, s, first, split, torch.as_tensor(weights), (s, len(since)))
            member = copy.deepcopy(engine.project.model)
            member.load_state_dict(states[-1])
            members.append(member.eval())
        retrained = [s for s, first in enumerate(since) if first < len(shards.states[s])]
        return Update(
            model=Ensemble(members, engine.loss).eval(),
            weights=weights,
            strength=1.0,
            predicted={},
            diagnostics={
                "shards": len(since),
                "ahead_seconds": ahead,
                "shards_retrained": retrained,
                "trained": sum(_trained(shards, since)) / sum(_trained(shards, [0] * len(since))),
            },
        )

    def estimate(self, engine: Engine, plan: PatchPlan) -> Estimate:
        """What it costs in seconds and bytes, with the training ahead where that is still to be done."""
        own = engine.project.records and engine.project.records.shards
        ahead = own or engine.project.memo.get(self)
        shards = ahead or _dealt(engine, self.shards, self.slices, 0)
        rows = sum(_trained(shards, first_slices(shards, plan)))
        rows += 0 if ahead else sum(_trained(shards, [0] * len(shards.rows)))
        return training_estimate(engine, rows, shards.epochs, recipe_of(engine).batch_size)

    def _ensemble(self, engine: Engine) -> Shards:
        """That of the records; else one that is trained now, once."""
        project = engine.project
        if project.records is not None and project.records.shards is not None:
            return project.records.shards
        if self not in project.memo:
            project.memo[self] = _trained_ahead(engine, _dealt(engine, self.shards, self.slices, 0))
        return project.memo[self]


def first_slices(shards: Shards, plan: PatchPlan) -> list[int]:
    """For each shard the first slice that holds a row of ``plan``; the number of slices where none does."""
    touched = torch.tensor(plan.rows)
    return [
        next((r for r, rows in enumerate(slices) if torch.isin(rows, touched).any()), len(slices))
        for slices in shards.rows
    ]


def _trained(shards: Shards, since: Sequence[int]) -> list[int]:
    """Rows that one epoch on each slice from ``since`` on goes through, by shard."""
    return [
        sum(sum(map(len, slices[: r + 1])) for r in range(first, len(slices)))
        for slices, first in zip(shards.rows, since, strict=True)
    ]
