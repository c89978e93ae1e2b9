"""Confident learning: what models that have not seen a row think of its label."""

from __future__ import annotations

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
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature, Estimate
    from puma_dash.core.engine import Engine
    from puma_dash.core.types import Project


@dataclass(frozen=True)
class ConfidentLearning(Described):
    """p_y of the row's label by a model trained on the other folds (self-confidence), from 0 to 1.

    Or the normalised margin (p_y - max_{k != y} p_k + 1) / 2. Each of ``folds`` models, trained by the
    project's own trainer on all rows but those of its fold, judges these. The folds keep the shares of the
    classes.
    """

    label = "confident learning (cross-validated)"
    reference = "Northcutt, Jiang & Chuang (2021), Confident learning"
    needs = ("trainer",)

    folds: int = field(default=5, metadata={"help": "Models that are trained.", "min": 2})
    score: str = field(
        default="self_confidence",
        metadata={
            "help": "Probability of the label, or its margin.",
            "choices": "self_confidence normalized_margin",
        },
    )
    seed: int = seed_field("folds and trainings")
    jobs: int | None = jobs_field()

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,) from 0 to 1.

        Raises:
            ProjectError: not a classifier, or fewer rows than folds.
        """
        self.check(engine.project)
        from sklearn.model_selection import StratifiedKFold

        labels = engine.project.train.targets.long().cpu()
        counts = np.bincount(labels)
        cut = np.random.default_rng(self.seed).permutation(engine.n) % self.folds
        if counts[counts > 0].min() >= self.folds:
            stratified = StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)
            for number, (_, held) in enumerate(stratified.split(labels, labels)):
                cut[held] = number
        work = OutOfSample(Training.of(engine), cut, engine.batch_size, self.seed)
        found = results(engine, work, range(self.folds), self.jobs, "Cross-validation")
        outputs = np.empty((engine.n, engine.training_outputs.shape[1]))
        for number, part in enumerate(found):
            outputs[cut == number] = part
        p = engine.loss.probabilities(torch.from_numpy(outputs))
        own = p.gather(1, labels[:, None])[:, 0]
        facts = {
            "retrainings": self.folds,
            "trainer": work.training.described,
            "accuracy": float((p.argmax(1) == labels).double().mean()),
        }
        if self.score == "self_confidence":
            return own, facts
        others = p.scatter(1, labels[:, None], -torch.inf).amax(1)
        return (own - others + 1) / 2, facts

    def estimate(self, engine: Engine) -> Estimate:
        """What the trainings will cost, one after the other."""
        self.check(engine.project)
        return retraining_estimate(engine, self.folds, engine.n - engine.n // self.folds)

    def check(self, project: Project) -> None:
        """Refuses a project without classes, or with fewer rows than folds.

        Raises:
            ProjectError: it is one.
        """
        if project.task is not CLASSIFICATION:
            raise ProjectError(
                f"expected a classification project, but this one is a {project.task.name}; "
                "try the method leave_one_out or self_influence."
            )
        n = len(project.train)
        if self.folds > n:
            raise ProjectError(f"expected at most {n} folds, one per row, but got {self.folds}.")


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Outputs on the rows of a fold, by a model trained on all others."""

    training: Training
    cut: np.ndarray
    """(n,) the fold of each row."""
    rows: int
    seed: int

    def __call__(self, number: int, check: Check) -> np.ndarray:
        """(m, c) of fold ``number``."""
        held = self.cut == number
        model = self.training.on(np.flatnonzero(~held), self.seed, check)
        return outputs_of(model, self.training.train.inputs[torch.from_numpy(held)], self.rows)
