"""Figure 3: a patch for robustness breaks fairness; with fairness held, both pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from puma_dash.core import api
from puma_dash.core.criteria.fairness import DemographicParity
from puma_dash.core.criteria.robustness import Adversarial
from puma_dash.core.demos.base import flip_labels, mlp, recipe, train
from puma_dash.core.experiments.base import (
    Experiment,
    Result,
    criterion_values,
    mean_of,
    summary,
    told_value,
    verdict,
)
from puma_dash.core.plan import PatchPlan
from puma_dash.core.types import Project, Split

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.engine import CancelEvent, Progress

SPLITS = ("validation", "test")
SIZES = (800, 1_000, 2_000)
REMOVED, STEPS, EPSILON = 80, 3, 0.3
MEASURED = ("adversarial loss", "parity gap")
NOT_HELD, HELD = "patched for robustness", "the same, parity held"


@dataclass(frozen=True)
class Rails(Experiment):
    """Decisions on people of two groups by merit and a number that goes with the group; 10 % wrong labels.

    The 80 rows of lowest psi for adversarial loss are removed, once with that loss as the only rail and once
    with the demographic parity gap held too.
    """

    label = "Figure 3: rails"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figure 3"

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """Changes of both criteria on validation, where the rails are, and on test."""
        found = []
        for seed in self.over_seeds(progress, cancel):
            project = people(seed)
            robust, fair = criteria("validation")
            rows = tuple(api.value(project, criterion=robust).harmful(REMOVED).tolist())
            on = [criterion for split in SPLITS for criterion in criteria(split)]
            values = criterion_values(project, on)
            before = np.array(values(project.model))
            for way, hold in ((NOT_HELD, (robust,)), (HELD, (robust, fair))):
                made = api.patch(project, PatchPlan(remove=rows, hold=hold, steps=STEPS), seed=seed)
                changes = (np.array(values(made.model)) - before).reshape(2, 2)
                for split, (loss, gap) in zip(SPLITS, changes, strict=True):
                    line = {"patch": way, "split": split, "strength": made.strength}
                    found.append({**line, **dict(zip(MEASURED, (loss, gap), strict=True))})
        table = summary(found, ["patch", "split"])
        one, both = (
            [told_value(table, {"patch": way, "split": "test"}, name) for name in MEASURED]
            for way in (NOT_HELD, HELD)
        )
        told = (
            f"Robustness alone: on test the adversarial loss changes by {one[0]} and the parity gap by "
            f"{one[1]}. With the gap held: {both[0]} and {both[1]}. {verdict(self._agrees(table))}, on data "
            "that were made for it: the source does not say which it used."
        )
        return Result({"Change by the patch, negative is better": table}, {}, told)

    def _agrees(self, table: pd.DataFrame) -> bool:
        robust, fair = (
            [mean_of(table, {"patch": way, "split": "test"}, name) for way in (NOT_HELD, HELD)]
            for name in MEASURED
        )
        return max(robust) < 0 < fair[0] and fair[1] <= 0


def criteria(split: str) -> list[Criterion]:
    """What is to fall and what is not to rise, on ``split``."""
    return [Adversarial(split=split, epsilon=EPSILON), DemographicParity(split=split)]


def people(seed: int) -> Project:
    """The trained project: 800 train, 1 000 validation, 2 000 test, a 2-16-16-2 network."""
    import pandas as pd

    rng, n = np.random.default_rng(seed), sum(SIZES)
    group, merit = rng.integers(2, size=n), rng.normal(size=n)
    proxy = 0.8 * rng.normal(size=n) + 2 * group - 1
    labels = (merit + 0.7 * proxy + 0.6 * rng.normal(size=n) > 0).astype(np.int64)
    points = np.stack([merit + 0.3 * rng.normal(size=n), proxy], axis=1).astype(np.float32)
    cuts = np.split(np.arange(n), np.cumsum(SIZES)[:-1])
    labels[cuts[0]], _ = flip_labels(labels[cuts[0]], 0.1, 2, rng)
    names = np.array(["a", "b"])
    splits = [
        Split(
            torch.from_numpy(points[cut]),
            torch.from_numpy(labels[cut]),
            groups=pd.DataFrame({"group": names[group[cut]]}),
        )
        for cut in cuts
    ]
    project = Project(
        name="People of two groups",
        model=mlp(2, 16, 16, 2, seed=seed),
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        weight_decay=1e-3,
        class_names=("no", "yes"),
        trainer=recipe(learning_rate=0.02, epochs=100, batch_size=100),
    )
    return train(project, seed)
