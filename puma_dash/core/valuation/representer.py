"""Representer points: what each training row adds to the outputs of the last layer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import Costs
from puma_dash.core.curvature.streams import slopes
from puma_dash.core.embedding.base import penultimate
from puma_dash.core.registry import Described
from puma_dash.core.valuation.linear import fitted, mean_loss, with_ones

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine

FLAT = 1e-8
"""The fit ends where the gradient's largest entry is this share of that at W = 0."""
PASSES = 200
"""Evaluations that fitting a last layer takes, seen on small networks, for estimates."""


@dataclass(frozen=True)
class Representer(Described):
    """-|alpha_j| f_j^T f_j: how strongly row j holds up its own output, in units of the outputs.

    The last layer is refitted to the labels on what it takes in, f with a 1 appended, as the minimum of
    (1/n) sum_i a_i l_i + (l2/2) |W|^2. There W f = sum_j alpha_j f_j^T f exactly, with alpha_j =
    -(1/(l2 n)) a_j dl_j/dz_j (c,), z_j = W f_j. The published lambda has no factor 1/2: its .003 is l2 = .006
    here. The published fit is to the model's own outputs, which explains these but forgets the labels, and
    with them which are wrong.
    """

    label = "representer points"
    reference = "Yeh, Kim, Yen & Ravikumar (2018), Representer point selection for explaining deep networks"
    needs = ()

    l2: float = field(default=0.006, metadata={"help": "Weight decay of the refitted layer.", "min": 1e-8})

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,), and how well the rows' shares add up to the outputs.

        Raises:
            ProjectError: the model has no linear last layer.
        """
        points = representer_points(engine, self.l2)
        size = points.features.square().sum(1)
        together = points.features @ (points.alpha.T @ points.features).T  # (n, c)
        return -points.alpha.norm(dim=1) * size, {
            "seconds": points.seconds,
            "faithful": _correlation(together, points.outputs),
            "like_the_model": _correlation(points.outputs, engine.training_outputs.double().cpu()),
        }

    def estimate(self, engine: Engine) -> Estimate:
        """What features and fit will cost."""
        costs = Costs.of(engine)
        work = PASSES * 4 * engine.n * len(engine.theta) / 4 * costs.multiplication
        held = int(costs.graph(min(engine.n, engine.batch_size)) + 8 * engine.n * 64)
        return Estimate(costs.passes(engine.n) + work, held, "a last layer refitted")


@dataclass(frozen=True, eq=False)
class Points:
    """The refitted last layer, as a sum over rows: its output at f is sum_j alpha_j f_j^T f."""

    alpha: Tensor
    """(n, c)"""
    features: Tensor
    """(n, d + 1)"""
    outputs: Tensor
    """(n, c) of the refitted layer on the training rows."""
    seconds: float


def representer_points(engine: Engine, l2: float) -> Points:
    """alpha (n, c) of all training rows, in float64.

    Raises:
        ProjectError: the model has no linear last layer.
    """
    begin = time.perf_counter()
    train = engine.project.train
    features = with_ones(penultimate(engine))
    weights = features.new_ones(engine.n) if train.weights is None else train.weights.double()
    start = features.new_zeros(engine.training_outputs.shape[1], features.shape[1])
    engine.check_cancel()
    steepest = mean_loss(features, train.targets, engine.loss, weights, start)[1].abs().max()
    flat = FLAT * float(steepest)
    layer = fitted(features, train.targets, engine.loss, l2, weights, start, flat=flat)
    outputs = features @ layer.T
    alpha = -slopes(engine.loss, train, outputs) / (l2 * engine.n)
    return Points(alpha, features, outputs, time.perf_counter() - begin)


def _correlation(one: Tensor, other: Tensor) -> float:
    """Pearson, of all outputs, each row's mean taken off: logits may be shifted."""
    if one.shape[1] > 1:
        one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    return float(np.corrcoef(one.ravel().numpy(), other.ravel().numpy())[0, 1])
