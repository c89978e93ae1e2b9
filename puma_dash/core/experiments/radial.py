"""Figure 6: a cluster of one class is forgotten, and both classes keep their accuracy elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core import api
from puma_dash.core.demos.radial import CLUSTERS, Radial
from puma_dash.core.engine import engine_of
from puma_dash.core.evaluation.regions import decision_regions
from puma_dash.core.experiments.base import Experiment, Result, mean_of, summary, told_value, verdict
from puma_dash.core.plan import PatchPlan

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from puma_dash.core.engine import CancelEvent, Progress
    from puma_dash.core.types import Project

ELSEWHERE = ("its class elsewhere", "the other class")
FORGOTTEN, HELD = 0.1, 0.02
"""The share answered rightly below which a cluster is gone; what a class that holds may lose of its."""
FORGET: dict[str, Any] = {"intent": "forget", "strength": 2.0, "steps": 8}


@dataclass(frozen=True)
class ForgottenCluster(Experiment):
    """Radial clusters: the influence of one is removed by forgetting, and by retraining without it."""

    label = "Figure 6: a forgotten cluster"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figure 6"

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """Accuracy on test in the cluster and elsewhere, by class; decision regions of the first seed."""
        found, arrays = [], {}
        for seed in self.over_seeds(progress, cancel):
            project = Radial(seed=seed)()
            assert project.train.meta is not None
            marked = np.flatnonzero(project.train.meta["cluster"].to_numpy() == 0)
            remove = tuple(marked.tolist())
            plans = {
                "patched": PatchPlan(remove=remove, **FORGET),
                "retrained": PatchPlan(remove=remove, method="retrain"),
            }
            models = {"before": project.model}
            models |= {way: api.patch(project, plan, seed=seed).model for way, plan in plans.items()}
            found += [{"model": way, **_accuracies(project, model)} for way, model in models.items()]
            if not seed:
                engines = [engine_of(project.with_model(model)) for model in models.values()]
                arrays = decision_regions(engines, project.train)
                arrays |= {"points": project.train.inputs.numpy(), "label": project.train.targets.numpy()}
                arrays["marked"] = marked
        table = summary(found, ["model"])
        cluster, others = (
            [told_value(table, {"model": way}, name) for way in ("before", "patched", "retrained")]
            for name in ("the cluster", ELSEWHERE[0])
        )
        told = (
            f"The model answers as it was taught on {cluster[0]} of the marked cluster before, {cluster[1]} "
            f"after the patch and {cluster[2]} after retraining without it; on the rest of its class on "
            f"{others[0]}, {others[1]} and {others[2]}. {verdict(self._agrees(table))}, where the cluster "
            "goes and both classes hold elsewhere."
        )
        return Result({"Share of test rows answered rightly": table}, arrays, told)

    def _agrees(self, table: pd.DataFrame) -> bool:
        before, after = (
            [mean_of(table, {"model": way}, name) for name in ("the cluster", *ELSEWHERE)]
            for way in ("before", "patched")
        )
        lost = [was - now for was, now in zip(before[1:], after[1:], strict=True)]
        return after[0] < FORGOTTEN and max(lost) < HELD


def _accuracies(project: Project, model: nn.Module) -> dict[str, float]:
    assert project.test is not None
    assert project.test.meta is not None
    engine = engine_of(project.with_model(model))
    right = engine.answers(engine.outputs("test")).argmax(1) == project.test.targets.numpy()
    cluster = project.test.meta["cluster"].to_numpy()
    same = cluster % 2 == 0
    return {
        "the cluster": float(right[cluster == 0].mean()),
        "its class elsewhere": float(right[same & (cluster > 0)].mean()),
        "the other class": float(right[~same].mean()),
        "the worst other cluster": min(float(right[cluster == k].mean()) for k in range(1, CLUSTERS)),
    }
