"""Honest baselines: what any valuation has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import Costs
from puma_dash.core.registry import Described, seed_field

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class NegativeLoss(Described):
    """-l_j: rows the model fits badly come first. Hard to beat at finding wrong labels.

    l_j is the plain loss: with class weights the rows of heavy classes would come first.
    """

    label = "training loss, negated"
    reference = "Northcutt, Jiang & Chuang (2021), Confident learning"
    needs = ()

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Minus the training losses (n,), in nats or squared target units."""
        return -engine.loss.plain(engine.outputs("train"), engine.split("train").targets), {}

    def estimate(self, engine: Engine) -> Estimate:
        """What a forward pass over the rows will cost."""
        costs = Costs.of(engine)
        return Estimate(costs.passes(engine.n), int(costs.graph(engine.batch_size)), "a forward pass")


@dataclass(frozen=True)
class Random(Described):
    """Uniform random scores: the floor."""

    label = "random"
    reference = "the floor of every comparison"
    needs = ()

    seed: int = seed_field("the order")

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,) from 0 to 1."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(engine.n, generator=generator, dtype=torch.float64), {}

    def estimate(self, engine: Engine) -> Estimate:
        """Nothing."""
        return Estimate(0.0, 0, "nothing")
