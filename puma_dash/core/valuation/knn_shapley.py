"""Shapley values of nearest-neighbour voting: exact, without training anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import Costs
from puma_dash.core.embedding.base import SPACES, features
from puma_dash.core.registry import Described
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine
    from puma_dash.core.types import Project

BLOCK_NUMBERS = 2**21
"""Distances that are sorted at a time."""
SORTING = 30
"""Multiplications that sorting and placing one distance is worth."""


@dataclass(frozen=True)
class KnnShapley(Described):
    """The Shapley value of row j in v(S) = (1/K) sum over the K nearest in S of [same label], exactly.

    v is the mean over the evaluation rows of the votes for their label. With the rows sorted from near to
    far, s_n = [y_n = y] / max(K, n) and s_i = s_(i+1) + ([y_i = y] - [y_(i+1) = y]) min(K, i) / (K i). The
    values add up to the mean share of right votes. A sort per evaluation row; nothing is trained, and the
    model lends only its features.
    """

    label = "KNN-Shapley"
    reference = "Jia et al. (2019), Efficient task-specific data valuation for nearest neighbor algorithms"
    needs = ("validation",)

    neighbours: int = field(default=5, metadata={"help": "K, the rows that vote.", "min": 1})
    space: str = field(
        default="penultimate",
        metadata={"help": "What the rows are compared by.", "choices": " ".join(SPACES)},
    )

    def check(self, project: Project) -> None:
        """Refuses a project without classes.

        Raises:
            ProjectError: it has none.
        """
        if project.task is not CLASSIFICATION:
            raise ProjectError(
                "expected a classification project, since neighbours vote for labels, but this one is a "
                f"{project.task.name}; try the method self_influence."
            )

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Shapley values (n,), in shares of right votes; the evaluation rows are those of the criterion.

        Raises:
            ProjectError: not a classifier, or no linear last layer whose inputs could be compared.
        """
        self.check(engine.project)
        data, train = criterion.evaluation(engine), engine.split("train")
        near, far = (engine.to(torch.from_numpy(features(engine, self.space, rows))) for rows in (None, data))
        taking = None if train.weights is None else train.weights > 0
        rows = torch.arange(engine.n, device=engine.device) if taking is None else taking.nonzero().ravel()
        size = max(1, BLOCK_NUMBERS // len(rows))
        found = torch.zeros(engine.n, dtype=torch.float64, device=engine.device)
        for start in range(0, len(data), size):
            engine.tick(start, len(data), "Sorting neighbours")
            part = slice(start, start + size)
            order = rows[torch.cdist(far[part], near[rows]).argsort(dim=1, stable=True)]  # (b, n)
            right = (train.targets[order] == data.targets[part, None]).double()
            found.index_add_(0, order.ravel(), shapley_by_rank(right, self.neighbours).ravel())
        return found / len(data), {"neighbours": self.neighbours, "evaluation_rows": len(data)}

    def estimate(self, engine: Engine) -> Estimate:
        """What distances and sorting will cost."""
        costs, held_out = Costs.of(engine), len(engine.project.validation)
        pairs = held_out * engine.n
        seconds = costs.passes(engine.n + held_out) + pairs * 20 * SORTING * costs.multiplication
        return Estimate(
            seconds, 8 * 5 * min(pairs, BLOCK_NUMBERS), f"{held_out:,} sorts of {engine.n:,} rows"
        )


def shapley_by_rank(right: Tensor, neighbours: int) -> Tensor:
    """Shapley values (b, n) of rows sorted from near to far; ``right`` (b, n) says whose label is right."""
    n = right.shape[1]
    rank = torch.arange(1, n, dtype=right.dtype, device=right.device)
    steps = (right[:, :-1] - right[:, 1:]) * rank.clamp(max=neighbours) / (neighbours * rank)
    last = right[:, -1:] / max(neighbours, n)
    return torch.cat([steps, last], dim=1).flip(1).cumsum(1).flip(1)
