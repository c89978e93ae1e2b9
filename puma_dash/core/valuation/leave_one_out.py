"""Leave-one-out: the truth about single rows, by training once for each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.registry import Described, seed_field
from puma_dash.core.retraining import (
    Check,
    Training,
    jobs_field,
    outputs_of,
    results,
    retraining_estimate,
)
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature, Estimate
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class LeaveOneOut(Described):
    """n (C(theta without j) - C(theta)): what psi_j predicts, by n + 1 trainings.

    All start from the same fresh parameters and see their rows in the order of the same seed. The factor 1/n
    of J stays, as in all retraining here. On networks the answers are mostly noise of training, which one
    removed row is enough to stir up: correlation of any prediction with them is near 0. On convex models they
    are exact.
    """

    label = "leave-one-out retraining"
    reference = "Cook & Weisberg (1982), Residuals and influence in regression"
    needs = ("criterion", "trainer")

    most_minutes: float = field(
        default=10.0,
        metadata={"help": "Refuse where one training says that all would take longer.", "min": 0.0},
    )
    seed: int = seed_field("all trainings")
    jobs: int | None = jobs_field()

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,) in the unit of psi; rows of weight 0 get 0.

        Raises:
            ProjectError: it would take longer than allowed.
        """
        data, own = criterion.evaluation(engine), engine.project.train.weights
        rows = np.arange(engine.n) if own is None else np.flatnonzero(own.numpy(force=True))
        work = Without(Training.of(engine), data.inputs.cpu(), engine.batch_size, self.seed)
        tasks = [None, *rows.tolist()]
        begin, found = time.perf_counter(), []
        for outputs in results(engine, work, tasks, self.jobs, "Leave-one-out"):
            z = torch.from_numpy(outputs).to(engine.device, engine.dtype)
            found.append(float(criterion(z, data, engine.loss)))
            if len(found) == 1:
                self._check(len(tasks) * (time.perf_counter() - begin), len(tasks))
        scores = torch.zeros(engine.n, dtype=torch.float64)
        scores[torch.from_numpy(rows)] = engine.n * (torch.tensor(found[1:]).double() - found[0])
        return scores, {
            "retrainings": len(tasks),
            "trainer": work.training.described,
            "criterion_value": found[0],
        }

    def estimate(self, engine: Engine) -> Estimate:
        """What the n + 1 trainings will cost, one after the other."""
        return retraining_estimate(engine, engine.n + 1, engine.n)

    def _check(self, seconds: float, times: int) -> None:
        if seconds > 60 * self.most_minutes:
            raise ProjectError(
                f"expected {times:,} retrainings to take at most {self.most_minutes:g} minutes on one core, "
                f"but they will take about {seconds / 60:,.0f}; try LeaveOneOut(most_minutes="
                f"{int(seconds / 60) + 1}), or psi, which predicts the same."
            )


@dataclass(frozen=True, eq=False)
class Without:
    """Outputs on the evaluation rows, by a model trained without a row."""

    training: Training
    inputs: Tensor
    rows: int
    seed: int

    def __call__(self, row: int | None, check: Check) -> np.ndarray:
        """(m, c) without ``row``, or with all where it is None."""
        return outputs_of(self.training.without(row, self.seed, check), self.inputs, self.rows)
