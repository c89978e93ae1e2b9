"""Relinearised steps: the answer of the patch without its straight line.

Two objectives, both flat at theta_org but for (tau/n) sum_j e_j a_j grad l_j, so that one full step is the
PUMA patch and e = 0 is a no-op:

- unseen, "as if never trained on": the re-weighted objective with a stationarity correction,
  Q = J_w(theta) - grad J(theta_org)^T (theta - theta_org), w_j = a_j (1 + tau e_j);
- forget: the proximal Bregman objective of Bae et al. (2022), where the retained rows' outputs hold the model
  in place, Q = (1/n) sum_retained D(z_org, z) + ((wd + damping)/2) |theta - theta_org|^2
  + (tau/n) sum_j e_j a_j l_j.

Each step solves with B at the current theta, is never longer (in B) than the first, so that a model that was
not at a minimum is not trained further on the way, and is shortened until Q falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from puma_dash.core.curvature import CURVATURES, Curvature
from puma_dash.core.registry import resolve
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine
    from puma_dash.core.unlearning.base import Change

ARMIJO = 1e-4
SHORTENINGS = 8
FORGOTTEN = 2.0
"""A removed row is pushed no further once its loss has risen by this many times log(classes)."""


class Objective(Protocol):
    """Q(theta) and its gradient."""

    def value(self, theta: Tensor) -> float:
        """Q."""

    def gradient(self, theta: Tensor) -> Tensor:
        """grad Q (p,)."""


@dataclass(frozen=True, eq=False)
class Reweighted:
    """The sum over the changed rows, (tau/n) sum_j e_j a_j l_j; losses of removed rows count up to a cap."""

    engine: Engine
    change: Change
    strength: float
    cap: Tensor
    """(m,) infinite but for removed rows that would be pushed without end."""

    @classmethod
    def of(cls, engine: Engine, change: Change, strength: float, capped: bool) -> Reweighted:
        """The sum; if ``capped``, removed rows count up to ``FORGOTTEN`` above their loss now."""
        cap = torch.full_like(change.e, math.inf)
        if capped:
            room = FORGOTTEN * math.log(max(len(engine.project.class_names or ()), 2))
            weights = engine.split("train").weights
            own = 1.0 if weights is None else weights[change.rows.to(engine.device)]
            ceiling = engine.losses(change.rows, targets=change.targets) + room * own
            cap = torch.where(change.e < 0, ceiling, cap)
        return cls(engine, change, strength, cap)

    def value(self, theta: Tensor) -> float:
        """The sum at ``theta``."""
        losses = self.engine.losses(self.change.rows, targets=self.change.targets, theta=theta)
        total = self.change.e @ torch.minimum(losses, self.cap)
        return self.strength / self.engine.n * float(total)

    def gradient(self, theta: Tensor) -> Tensor:
        """Its gradient (p,): capped rows do not pull."""
        change = self.change
        losses = self.engine.losses(change.rows, targets=change.targets, theta=theta)
        e = change.e * (losses <= self.cap)
        found = self.engine.weighted_gradient(e, change.rows, targets=change.targets, theta=theta)
        return self.strength / self.engine.n * found


@dataclass(frozen=True, eq=False)
class Unseen:
    """The re-weighted training objective, corrected so that theta_org is stationary without the change."""

    engine: Engine
    changed: Reweighted
    correction: Tensor
    """grad J(theta_org) (p,)"""
    proximity: float
    """Holds theta near theta_org where training had no weight decay to do it."""

    @classmethod
    def of(cls, engine: Engine, change: Change, strength: float, damping: float) -> Unseen:
        """The objective of ``change`` at ``strength``."""
        own = engine.weighted_gradient(engine.theta.new_ones(engine.n)) / engine.n
        capped = bool((1 + strength * change.e < 0).any())
        return cls(
            engine,
            Reweighted.of(engine, change, strength, capped),
            own + engine.weight_decay * engine.theta,
            0.0 if engine.weight_decay > 0 else damping,
        )

    def value(self, theta: Tensor) -> float:
        """Q at ``theta``."""
        engine, move = self.engine, theta - self.engine.theta
        own = float(engine.losses(theta=theta).sum()) / engine.n
        decay = engine.weight_decay / 2 * float(theta @ theta) + self.proximity / 2 * float(move @ move)
        return own + decay + self.changed.value(theta) - float(self.correction @ move)

    def gradient(self, theta: Tensor) -> Tensor:
        """Its gradient (p,)."""
        engine = self.engine
        own = engine.weighted_gradient(theta.new_ones(engine.n), theta=theta) / engine.n
        decay = engine.weight_decay * theta + self.proximity * (theta - engine.theta)
        return own + decay + self.changed.gradient(theta) - self.correction


@dataclass(frozen=True, eq=False)
class Forget:
    """The proximal Bregman objective: what the retained rows are told stays, the removed rows go."""

    engine: Engine
    changed: Reweighted
    reference: Tensor
    """Outputs (n, c) at theta_org."""
    retained: Tensor
    """(n,) training weight a_j of the rows that stay, 0 of the removed."""
    proximity: float

    @classmethod
    def of(cls, engine: Engine, change: Change, strength: float, damping: float) -> Forget:
        """The objective of ``change`` at ``strength``."""
        weights = engine.split("train").weights
        retained = engine.theta.new_ones(engine.n) if weights is None else weights.clone()
        retained[change.rows[(change.e < 0).cpu()].to(engine.device)] = 0
        return cls(
            engine,
            Reweighted.of(engine, change, strength, capped=True),
            engine.outputs("train"),
            retained,
            engine.weight_decay + damping,
        )

    def value(self, theta: Tensor) -> float:
        """Q at ``theta``."""
        engine, move = self.engine, theta - self.engine.theta
        held = self.retained @ engine.loss.divergence(self.reference, engine.outputs("train", theta))
        return float(held) / engine.n + self.proximity / 2 * float(move @ move) + self.changed.value(theta)

    def gradient(self, theta: Tensor) -> Tensor:
        """Its gradient (p,)."""
        engine = self.engine
        outputs = engine.outputs("train", theta).requires_grad_()
        held = self.retained @ engine.loss.divergence(self.reference, outputs) / engine.n
        (cotangents,) = torch.autograd.grad(held, outputs)
        pulled = engine.pullback(engine.split("train"), cotangents, theta)
        return pulled + self.proximity * (theta - engine.theta) + self.changed.gradient(theta)


OBJECTIVES: dict[str, type[Unseen] | type[Forget]] = {"unseen": Unseen, "forget": Forget}


def relinearise(
    engine: Engine,
    objective: Objective,
    curvature: str | Curvature,
    first: Tensor,
    steps: int,
) -> tuple[Tensor, list[float], float]:
    """theta (p,) after at most ``steps`` damped steps down ``objective``, their lengths, the worst residual.

    Args:
        engine: of the project.
        objective: what falls with every step.
        curvature: gives B^-1 at each theta.
        first: (p,) the first full step, which is the one-step patch.
        steps: how many at most; stops early where no shortened step lowers the objective.
    """
    chosen = resolve(CURVATURES, curvature, "curvature")
    theta, value = engine.theta, objective.value(engine.theta)
    gradient, direction = objective.gradient(theta), first
    lengths: list[float] = []
    residual, longest = 0.0, 0.0
    for step in range(steps):
        engine.tick(step, steps, f"Step {step + 1} of {steps}")
        if step:
            gradient = objective.gradient(theta)
            solution = chosen(engine, theta)(gradient[None])
            direction, residual = -solution.x[0], max(residual, solution.residual)
        slope = float(gradient @ direction)
        if slope >= 0:
            break
        longest = slope if not lengths else longest
        if slope < longest:  # -slope is the squared length in B: a longer step would train the model further
            direction, slope = math.sqrt(longest / slope) * direction, math.sqrt(longest * slope) * -1
        for shortening in range(SHORTENINGS + 1):
            length = 0.5**shortening
            candidate = objective.value(theta + length * direction)
            if math.isfinite(candidate) and candidate <= value + ARMIJO * length * slope:
                break
        else:
            break
        theta, value = theta + length * direction, candidate
        lengths.append(length)
    return theta, lengths, residual


def check_intent(engine: Engine, intent: str) -> None:
    """Refuses to forget where losses have no scale of their own."""
    if intent == "forget" and engine.project.train.targets.ndim > 1:
        raise ProjectError(
            'expected a classification project for intent="forget", but its targets are real values; '
            'try intent="unseen".'
        )
