"""Relinearised steps: the answer of the patch without its straight line.

Two objectives, both flat at theta_org but for (tau/n) sum_j e_j a_j grad l_j, so that one full step is the
PUMA patch and e = 0 is a no-op:

- unseen, "as if never trained on": the re-weighted objective with a stationarity correction,
  Q = J_w(theta) - grad J(theta_org)^T (theta - theta_org), w_j = a_j (1 + tau e_j);
- forget: the proximal Bregman objective of Bae et al. (2022), where the retained rows' outputs hold the model
  in place, Q = (1/n) sum_retained D(z_org, z) + ((wd + damping)/2) |theta - theta_org|^2
  + (tau/n) sum_j e_j a_j l_j.

Each step solves with B at the current theta and is shortened until Q falls. Those of "unseen" are never
longer (in B) than the first, so that a model that was not at a minimum is not trained further on the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from puma_dash.core.curvature import CURVATURES, Curvature
from puma_dash.core.objective import ignorance
from puma_dash.core.registry import resolve

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine
    from puma_dash.core.unlearning.base import Change

ARMIJO = 1e-4
SHORTENINGS = 8
FORGOTTEN = 2.0
"""A removed row is pushed no further once its loss has risen by this many times what a model that knows
nothing loses on average."""


class Objective(Protocol):
    """Q(theta) and its gradient."""

    trains: ClassVar[bool]
    """Whether the training objective is part of Q, which a model that was stopped early is not at rest in."""

    def at(self, theta: Tensor, gradient: bool) -> tuple[float, Tensor]:
        """Q and grad Q (p,), for which an empty tensor stands if it is not wanted."""


@dataclass(frozen=True, eq=False)
class Reweighted:
    """The sum over changed rows, (tau/n) sum_j e_j a_j l_j; losses of removed rows count up to a cap."""

    engine: Engine
    change: Change
    strength: float
    cap: Tensor
    """(m,) infinite but for removed rows, which would be pushed without end."""

    @classmethod
    def of(cls, engine: Engine, change: Change, strength: float) -> Reweighted:
        """The sum, in which removed rows count up to ``FORGOTTEN`` above their loss now."""
        if not len(change.rows):
            return cls(engine, change, strength, change.e)
        train = engine.split("train")
        room = FORGOTTEN * ignorance(engine.loss, train.targets, len(engine.project.classes))
        own = 1.0 if train.weights is None else train.weights[change.rows.to(engine.device)]
        ceiling = engine.losses(change.rows, targets=change.targets) + room * own
        return cls(
            engine, change, strength, torch.where(change.e < 0, ceiling, torch.full_like(ceiling, math.inf))
        )

    def at(self, theta: Tensor, gradient: bool) -> tuple[float, Tensor]:
        """The sum and its gradient: capped rows do not pull."""
        engine, change = self.engine, self.change
        if not len(change.rows):
            return 0.0, torch.zeros_like(theta)
        losses = engine.losses(change.rows, targets=change.targets, theta=theta)
        value = float((change.e * torch.minimum(losses, self.cap)).double().sum())
        if not gradient:
            return self.strength / engine.n * value, theta.new_empty(0)
        e = change.e * (losses <= self.cap)
        found = engine.weighted_gradient(e, change.rows, targets=change.targets, theta=theta)
        return self.strength / engine.n * value, self.strength / engine.n * found


@dataclass(frozen=True, eq=False)
class Unseen:
    """The re-weighted training objective, corrected so that theta_org is stationary without the change."""

    trains: ClassVar[bool] = True

    engine: Engine
    weights: Tensor
    """(n,) 1 + tau e_j of the rows that keep their label and are removed at most whole."""
    changed: Reweighted
    """The others: new labels, and removals beyond the whole."""
    correction: Tensor
    """grad J(theta_org) (p,)"""
    proximity: float
    """Holds theta near theta_org where training had no weight decay to do it."""

    @classmethod
    def of(cls, engine: Engine, change: Change, strength: float, damping: float) -> Unseen:
        """The objective of ``change`` at ``strength``."""
        if "gradient of J" not in engine.memo:
            own = engine.weighted_gradient(engine.theta.new_ones(engine.n)) / engine.n
            engine.memo["gradient of J"] = own + engine.weight_decay * engine.theta
        plain = change.keeps_label(engine) & (1 + strength * change.e >= 0)
        weights = engine.theta.new_ones(engine.n)
        weights.index_add_(0, change.rows.to(engine.device)[plain], strength * change.e[plain])
        return cls(
            engine,
            weights,
            Reweighted.of(engine, change.only(~plain), strength),
            engine.memo["gradient of J"],
            0.0 if engine.weight_decay > 0 else damping,
        )

    def at(self, theta: Tensor, gradient: bool) -> tuple[float, Tensor]:
        """Q and its gradient (p,)."""
        engine, move = self.engine, theta - self.engine.theta
        own, slope = engine.weighted_loss(self.weights, theta=theta, gradient=gradient)
        more, more_slope = self.changed.at(theta, gradient)
        decay = engine.weight_decay / 2 * float(theta @ theta) + self.proximity / 2 * float(move @ move)
        value = own / engine.n + decay + more - float(self.correction @ move)
        if not gradient:
            return value, slope
        decayed = engine.weight_decay * theta + self.proximity * move
        return value, slope / engine.n + decayed + more_slope - self.correction


@dataclass(frozen=True, eq=False)
class Forget:
    """The proximal Bregman objective: what the retained rows are told stays, the removed rows go."""

    trains: ClassVar[bool] = False

    engine: Engine
    changed: Reweighted
    retained: Tensor
    """(m,) the rows that stay"""
    reference: Tensor
    """(m, c) their outputs at theta_org"""
    targets: Tensor
    """(m,) their targets"""
    weights: Tensor
    """(m,) their training weights a_j"""
    proximity: float

    @classmethod
    def of(cls, engine: Engine, change: Change, strength: float, damping: float) -> Forget:
        """The objective of ``change`` at ``strength``."""
        stays = torch.ones(engine.n, dtype=torch.bool)
        stays[change.rows[(change.e < 0).cpu()]] = False
        retained = stays.nonzero().ravel()
        train, here = engine.split("train"), stays.to(engine.device)
        return cls(
            engine,
            Reweighted.of(engine, change, strength),
            retained,
            engine.training_outputs[here],
            train.targets[here],
            engine.theta.new_ones(len(retained)) if train.weights is None else train.weights[here],
            engine.weight_decay + damping,
        )

    def at(self, theta: Tensor, gradient: bool) -> tuple[float, Tensor]:
        """Q and its gradient (p,)."""
        engine, move = self.engine, theta - self.engine.theta

        def divergence(outputs: Tensor, part: slice) -> Tensor:
            found = engine.loss.divergence(self.reference[part], outputs, self.targets[part])
            return self.weights[part] * found

        held, slope = engine.total(divergence, self.retained, theta=theta, gradient=gradient)
        more, more_slope = self.changed.at(theta, gradient)
        value = held / engine.n + self.proximity / 2 * float(move @ move) + more
        return value, slope / engine.n + self.proximity * move + more_slope if gradient else slope


OBJECTIVES: dict[str, type[Unseen] | type[Forget]] = {"unseen": Unseen, "forget": Forget}


def relinearise(
    engine: Engine,
    objective: Objective,
    curvature: str | Curvature,
    first: Tensor,
    gradient: Tensor,
    steps: int,
) -> tuple[Tensor, list[float], float]:
    """theta (p,) after at most ``steps`` damped steps down ``objective``, their lengths, the worst residual.

    Args:
        engine: of the project.
        objective: what falls with every step.
        curvature: gives B^-1 at each theta.
        first: (p,) the first full step, which is the one-step patch.
        gradient: (p,) of the objective at theta_org.
        steps: how many at most; stops early where no shortened step lowers the objective.
    """
    chosen = resolve(CURVATURES, curvature, "curvature")
    theta, (value, _) = engine.theta, objective.at(engine.theta, gradient=False)
    direction, lengths = first, list[float]()
    residual, longest = 0.0, 0.0
    for step in range(steps):
        engine.tick(step, steps, f"Step {step + 1} of {steps}")
        if step:
            solution = chosen(engine, theta)(gradient[None])
            direction, residual = -solution.x[0], max(residual, solution.residual)
        slope = float(gradient @ direction)
        if slope >= 0:
            break
        longest = slope if not lengths else longest
        # -slope is the squared length in B: where Q holds the training objective, a longer step trains on.
        if objective.trains and slope < longest:
            direction, slope = math.sqrt(longest / slope) * direction, math.sqrt(longest * slope) * -1
        for shortening in range(SHORTENINGS + 1):
            length = 0.5**shortening
            candidate, ahead = objective.at(theta + length * direction, gradient=step + 1 < steps)
            if math.isfinite(candidate) and candidate <= value + ARMIJO * length * slope:
                break
        else:
            break
        theta, value, gradient = theta + length * direction, candidate, ahead
        lengths.append(length)
    return theta, lengths, residual
