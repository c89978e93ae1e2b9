"""How far a model is from a minimum of its objective, and which weight decay would bring it closer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from puma_dash.core.curvature import inverse_of

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine


class Stationarity(NamedTuple):
    """What one Newton step would gain, in the unit of the loss."""

    loss: float
    """Mean training loss."""
    gain: float
    """By how much one step would lower J with the weight decay declared."""
    best: float
    """The weight decay for which one step would gain least."""
    least: float
    """That gain."""

    @property
    def share(self) -> float:
        """The gain as a share of the loss: no unit."""
        return self.gain / max(self.loss, 1e-300)


def stationarity(engine: Engine) -> Stationarity:
    """How far theta_org is from a minimum of J, by the gain of one damped Gauss-Newton step.

    With r = grad J(theta_org) that gain is about r^T B^-1 r / 2, half the squared Newton decrement. As a
    share of the training loss it has no unit, and it tells how much of what retraining changes comes from
    training further.

    Norms of gradients say less: the noise of mini-batches lives in steep directions, where it costs little,
    and |r| / (|grad loss| + wd |theta|) was .14 to 1 on networks trained well, nearly and not at all alike.
    J itself is no measure either: a weight decay declared too large makes it large too. In the same metric
    the gain is least for the weight decay -(grad loss)^T B^-1 theta / theta^T B^-1 theta.

    Raises:
        ProjectError: B is not positive definite.
        RuntimeError: the model cannot be differentiated in forward mode.

    References:
        Boyd & Vandenberghe (2004), Convex optimization, section 9.5.
    """
    theta = engine.theta
    slope = engine.weighted_gradient(theta.new_ones(engine.n)) / engine.n
    solved = inverse_of(engine, "auto")(torch.stack([slope, theta])).x
    gg, gt, tt = (float(v) for v in (slope @ solved[0], slope @ solved[1], theta @ solved[1]))
    best = max(0.0, -gt / tt) if tt > 0 else 0.0
    gain, least = (max(0.0, gg + 2 * wd * gt + wd**2 * tt) / 2 for wd in (engine.weight_decay, best))
    return Stationarity(float(engine.losses().mean()), gain, best, least)
