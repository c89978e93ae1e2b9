"""The influence of every training row on one criterion: what valuation shows and patches are planned with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import BACKWARD, FORWARD_MODE, RECORDED, Costs

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature.base import Inverse
    from puma_dash.core.engine import Engine


class Influence(NamedTuple):
    """The influence of every training row on one criterion."""

    value: float
    direction: Tensor
    """B^-1 grad C (p,)"""
    psi: Tensor
    """(n,)"""
    residual: float
    iterations: int


def influence_of(engine: Engine, criterion: Criterion, inverse: Inverse) -> Influence:
    """One solve and one forward-mode pass; kept by the engine, since patches ask for it again."""
    known = engine.memo.setdefault(inverse, {})
    if criterion not in known:
        value, gradient = engine.criterion_gradient(criterion)
        solution = inverse(gradient[None])
        engine.tick(1, 2, "Scoring the training rows")
        psi = engine.directional_scores(solution.x)[0]
        known[criterion] = Influence(value, solution.x[0], psi, solution.residual, solution.iterations)
    return known[criterion]


def scoring_estimate(engine: Engine) -> Estimate:
    """What a criterion's gradient and the scores of all training rows will cost, without the solve."""
    costs, split = Costs.of(engine), engine.project.validation or engine.project.train
    seconds = costs.passes(len(split), 1 + RECORDED + BACKWARD) + costs.passes(engine.n, FORWARD_MODE)
    batch = min(max(len(split), engine.n), engine.batch_size)
    return Estimate(seconds, int(3 * costs.graph(batch) + costs.vectors(3)), f"scores of {engine.n:,} rows")
