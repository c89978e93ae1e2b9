"""A plan as a list of re-weighted rows, and the first-order change of the parameters it stands for.

A re-weighting w_j = a_j (1 + e_j) moves the optimum by delta = -(1/n) B^-1 sum_j e_j a_j grad l_j and a
criterion by -(1/n) sum_j e_j psi_j. A relabelled row appears twice: e = -1 as it was, e = +1 with its new
label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.curvature.influence import influences_of
from puma_dash.core.task import REGRESSION
from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Inverse
    from puma_dash.core.engine import Engine
    from puma_dash.core.plan import Label, PatchPlan
    from puma_dash.core.types import Project


@dataclass(frozen=True, eq=False)
class Update:
    """What an unlearning method returns: the new model and what it takes to judge it."""

    model: nn.Module
    weights: np.ndarray
    """(n,) training weights a_j (1 + e_j) at strength 1."""
    strength: float
    """The strength applied, at most the one asked for."""
    predicted: dict[str, float]
    """Held criterion -> predicted dC at the applied strength; empty where the method predicts nothing."""
    diagnostics: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Change:
    """Rows, the labels to use for them, and by how much they are re-weighted."""

    rows: Tensor
    """(m,)"""
    targets: Tensor
    """(m,)"""
    e: Tensor
    """(m,)"""

    def keeps_label(self, engine: Engine) -> Tensor:
        """Bool (m,): which rows appear with their own label."""
        own = engine.split("train").targets[self.rows.to(engine.device)]
        return (self.targets == own).reshape(len(own), -1).all(1)

    def only(self, which: Tensor) -> Change:
        """The part of the change where ``which`` (m,) is true."""
        return Change(self.rows[which.cpu()], self.targets[which], self.e[which])

    def and_also(self, other: Change) -> Change:
        """Both changes together."""
        return Change(
            torch.cat([self.rows, other.rows]),
            torch.cat([self.targets, other.targets]),
            torch.cat([self.e, other.e]),
        )


@dataclass(frozen=True, eq=False)
class Influences:
    """psi of several criteria: s_c = B^-1 grad C_c and the scores of all training rows."""

    criteria: tuple[Criterion, ...]
    directions: Tensor
    """(m, p)"""
    psi: Tensor
    """(m, n)"""
    residual: float

    def total(self, engine: Engine, change: Change) -> Tensor:
        """-sum_j e_j psi_cj (m,) over ``change``: n times the predicted dC of each criterion."""
        same = change.keeps_label(engine)
        total = -(self.psi[:, change.rows[same.cpu()]] @ change.e[same])
        if not same.all():
            moved = ~same.cpu()
            scores = engine.directional_scores(
                self.directions, change.rows[moved], targets=change.targets[~same]
            )
            total -= scores @ change.e[~same]
        return total


def check_plan_for(project: Project, plan: PatchPlan) -> None:
    """Refuses a plan that does not fit the project.

    Raises:
        ProjectError: rows or labels out of range, labels unchanged, a whole class removed.
    """
    n = len(project.train)
    outside = [row for row in plan.rows if row >= n]
    if outside:
        raise ProjectError(f"expected training rows 0 to {n - 1}, but the plan names {listing(outside)}.")
    weights = project.train.weights
    gone_before = [] if weights is None else [row for row in plan.rows if weights[row] == 0]
    if gone_before:
        raise ProjectError(
            f"expected rows that take part in training, but rows {listing(gone_before)} have weight 0: an "
            "earlier version removed them; try leaving them out of the plan."
        )
    weighs = np.ones(n, dtype=bool) if weights is None else weights.numpy(force=True) > 0
    if project.task is REGRESSION:
        _check_values(plan, project.train.targets, weighs)
    else:
        _check_classes(plan, project.train.targets.numpy(force=True), weighs, project.classes)


def _check_values(plan: PatchPlan, targets: Tensor, weighs: np.ndarray) -> None:
    """Of a regression with ``targets`` (n, k); ``weighs`` (n,) says which rows take part so far."""
    k = targets.shape[1]
    for row, value in plan.relabel.items():
        given = value if isinstance(value, tuple) else (value,)
        plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in given)
        if len(given) != k or not plain or not np.isfinite(given).all():
            values = "a finite number" if k == 1 else f"{k} finite numbers"
            raise ProjectError(f"expected {values} as the new target of row {row}, but got {value!r}.")
    same = (relabelled(targets, plan.relabel) == targets).all(1)
    unchanged = [row for row in plan.relabel if same[row]]
    if unchanged:
        raise ProjectError(
            f"expected new targets, but rows {listing(unchanged)} already have the target given."
        )
    if len(plan.remove) == weighs.sum():
        raise ProjectError("expected rows to remain, but the plan removes all of them.")


def _check_classes(plan: PatchPlan, targets: np.ndarray, weighs: np.ndarray, names: tuple[str, ...]) -> None:
    """Of a classifier with ``targets`` (n,); ``weighs`` (n,) says which rows take part so far."""
    for row, label in plan.relabel.items():
        if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < len(names):
            raise ProjectError(
                f"expected new labels from 0 to {len(names) - 1}, but row {row} is given {label!r}."
            )
    unchanged = [row for row, label in plan.relabel.items() if label == targets[row]]
    if unchanged:
        raise ProjectError(
            f"expected new labels, but rows {listing(unchanged)} already have the label given."
        )
    weighs = weighs.copy()
    counts = np.bincount(targets[weighs], minlength=len(names))
    after = targets.copy()
    after[list(plan.relabel)] = list(plan.relabel.values())
    weighs[list(plan.remove)] = False
    left = np.bincount(after[weighs], minlength=len(names))
    gone = [names[k] for k in np.flatnonzero((counts > 0) & (left == 0))]
    if gone:
        raise ProjectError(
            f"expected rows of every class to remain, but the plan leaves none of {', '.join(gone)}; "
            "try a plan that keeps some of them, or retrain a model without that class."
        )


def relabelled(targets: Tensor, relabel: Mapping[int, Label]) -> Tensor:
    """A copy of ``targets`` (n,) or (n, k) with the new ones of the rows that ``relabel`` names."""
    found = targets.clone()
    if relabel:
        new = torch.tensor(list(relabel.values()), dtype=found.dtype, device=found.device)
        found[torch.tensor(list(relabel))] = new.reshape(len(new), *found.shape[1:])
    return found


def chosen_change(engine: Engine, plan: PatchPlan) -> Change:
    """The removals, up-weights and relabels of ``plan``."""
    own = engine.split("train").targets
    rows = [*plan.remove, *plan.upweight, *plan.relabel, *plan.relabel]
    e = [-1.0] * len(plan.remove) + [float(v) for v in plan.upweight.values()]
    e += [-1.0] * len(plan.relabel) + [1.0] * len(plan.relabel)
    index = torch.tensor(rows, dtype=torch.long)
    targets = own[index.to(engine.device)].clone()
    if plan.relabel:
        targets[-len(plan.relabel) :] = relabelled(own, plan.relabel)[torch.tensor(list(plan.relabel))]
    return Change(index, targets, torch.tensor(e, dtype=engine.dtype, device=engine.device))


def influences(engine: Engine, criteria: tuple[Criterion, ...], inverse: Inverse) -> Influences:
    """psi (m, n) of ``criteria``; what an earlier question has solved is reused."""
    if not criteria:
        empty = engine.theta.new_zeros
        return Influences((), empty(0, len(engine.theta)), empty(0, engine.n), 0.0)
    solved = influences_of(engine, criteria, inverse)
    return Influences(
        criteria,
        torch.stack([found.direction for found in solved]),
        torch.stack([found.psi for found in solved]),
        max(found.residual for found in solved),
    )


class Direction(NamedTuple):
    """The first-order change of the parameters, at strength 1."""

    delta: Tensor
    """(p,) -B^-1 gradient"""
    gradient: Tensor
    """(p,) (1/n) sum_j e_j a_j grad l_j"""
    residual: float
    facts: dict[str, Any]
    """How it was solved."""


def direction_of(engine: Engine, change: Change, inverse: Inverse) -> Direction:
    """The direction of ``change``, by ONE solve of the aggregated gradient."""
    gradient = engine.weighted_gradient(change.e, change.rows, targets=change.targets) / engine.n
    solution = inverse(gradient[None])
    return Direction(-solution.x[0], gradient, solution.residual, {**inverse.facts, **solution.facts})


def change_of(engine: Engine, model: nn.Module) -> Tensor:
    """theta of ``model`` - theta_org (p,); empty where it is of another kind, such as an ensemble."""
    if not {*engine.parameters.names} <= {name for name, _ in model.named_parameters()}:
        return engine.theta.new_empty(0)
    return engine.theta_of(model) - engine.theta


def training_weights(engine: Engine, change: Change) -> np.ndarray:
    """a_j (1 + e_j) (n,) of ``change``; a relabelled row keeps its weight."""
    total = torch.ones(engine.n, dtype=torch.float64)
    total.index_add_(0, change.rows, change.e.to("cpu", torch.float64))
    base = engine.project.train.weights
    return (total if base is None else total * base.to("cpu", torch.float64)).numpy()
