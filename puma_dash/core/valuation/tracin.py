"""TracIn: what each row did to a criterion along the way, summed over checkpoints of training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.influence import scoring_estimate
from puma_dash.core.engine import Engine, whole_engine
from puma_dash.core.objective import Parameters
from puma_dash.core.recorder import needed
from puma_dash.core.registry import Described, seed_field

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.recorder import Records
    from puma_dash.core.types import Project


@dataclass(frozen=True)
class TracIn(Described):
    """sum_k lr_k grad C(theta_k)^T (a_j grad l_j(theta_k)), one forward-mode pass per checkpoint theta_k.

    Scores > 0 belong to rows that brought the criterion down (proponents), scores < 0 to those that kept it
    up (opponents), as with psi. With ``self_influence`` C is the row's own loss: -sum_k lr_k |a_j grad
    l_j(theta_k)|^2, which finds wrong labels and rare rows. Those norms are estimated from ``projections``
    random directions u with E (u^T g)^2 = |g|^2, one forward-mode pass each; the relative error of a row is
    about sqrt(2 / projections). What is no parameter (running means of BatchNorm) stays as it was at the end.
    """

    label = "TracIn (checkpoints of training)"
    reference = "Pruthi et al. (2020), Estimating training data influence by tracing gradient descent"
    needs = ("criterion", "recorder")

    every: int = field(
        default=1, metadata={"help": "Every how many recorded checkpoints are used, from the last.", "min": 1}
    )
    layers: str = field(
        default="all", metadata={"help": 'Parameters that take part: all, last, or a pattern ("fc*").'}
    )
    self_influence: bool = field(
        default=False, metadata={"help": "Of each row on itself, instead of on the criterion; negated."}
    )
    projections: int | None = field(
        default=None,
        metadata={
            "help": "Random directions that estimate self-influence; empty for exact norms.",
            "min": 1,
        },
    )
    seed: int = seed_field("the random directions")

    def check(self, project: Project) -> Records:
        """The records of ``project``.

        Raises:
            ProjectError: they have no checkpoints.
        """
        return needed(project, "TracIn", "checkpoints")

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,), lower is more suspicious, and which checkpoints they come from.

        Raises:
            ProjectError: there are no checkpoints, or no parameters of that name.
        """
        records = self.check(engine.project)
        assert records.checkpoints is not None
        picked = list(range(len(records.epochs)))[:: -self.every][::-1]
        rates = [records.rates[records.epochs[k] - 1] for k in picked]
        whole = whole_engine(engine)
        mask = self._mask(engine, whole)
        data = criterion.evaluation(engine)
        scores = torch.zeros(engine.n, dtype=torch.float64)
        for done, (k, rate) in enumerate(zip(picked, rates, strict=True)):
            engine.tick(done, len(picked), "TracIn, a checkpoint at a time")
            theta = whole.to(records.checkpoints[k])
            if self.self_influence:
                found = -self._squared_norms(whole, theta, mask)
            else:
                _, gradient = whole.criterion_gradient(criterion, theta, data=data)
                found = whole.directional_scores((mask * gradient)[None], theta=theta)[0]
            scores += rate * found.double().cpu()
        return scores, {
            "checkpoints": [records.epochs[k] for k in picked],
            "learning_rates": rates,
            "optimizer": records.optimizer,
        }

    def estimate(self, engine: Engine) -> Estimate:
        """What a scoring pass at each checkpoint used will cost."""
        times = -(-len(self.check(engine.project).epochs) // self.every)
        each = scoring_estimate(engine)
        return Estimate(times * each.seconds, each.bytes, f"{times} times {each.note}")

    def _mask(self, engine: Engine, whole: Engine) -> Tensor:
        """1 (p,) where an entry of theta takes part, else 0."""
        project = engine.project
        chosen = {*Parameters.of(project.model, self.layers, project.train.inputs[:1]).names}
        chosen &= {*engine.parameters.names}
        mask = torch.zeros_like(whole.theta)
        for name, part in zip(whole.parameters.names, whole.parameters.slices, strict=True):
            mask[part] = float(name in chosen)
        return mask

    def _squared_norms(self, whole: Engine, theta: Tensor, mask: Tensor) -> Tensor:
        """|mask * a_j grad l_j(theta)|^2 (n,), exact or estimated."""
        if self.projections is not None:
            generator = torch.Generator().manual_seed(self.seed)
            shape = (self.projections, len(theta))
            directions = whole.to(torch.randn(shape, generator=generator, dtype=torch.float64)) * mask
            return whole.directional_scores(directions, theta=theta).square().mean(0)
        from puma_dash.core.curvature.streams import Stream

        there = Engine(whole.project.with_model(whole.model_at(theta)), device=whole.device)
        stream = Stream(there, there.split("train"), message="TracIn")

        def norms(part: slice) -> Tensor:
            gradients = stream.gradients(part)
            return gradients.dots(gradients)

        if bool(mask.all()):
            return torch.cat(stream.over(norms))
        chosen = mask.bool()
        return torch.cat(stream.over(lambda part: stream.gradients(part).dense()[:, chosen].square().sum(1)))
