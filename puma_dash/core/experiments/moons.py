"""Figures 8 and 9: two moons, psi of calibration, three kinds of rows, and reliability before and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core import api
from puma_dash.core.criteria.calibration import Calibration
from puma_dash.core.demos.two_moons import TwoMoons
from puma_dash.core.engine import engine_of
from puma_dash.core.evaluation.metrics import metrics
from puma_dash.core.evaluation.reliability import reliability
from puma_dash.core.experiments.base import Experiment, Result, mean_of, summary, told_value, verdict
from puma_dash.core.plan import PatchPlan

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from puma_dash.core.engine import CancelEvent, Progress
    from puma_dash.core.types import Project

KINDS = ("mislabelled", "over-confident", "under-confident")
STEPS = 6


def kinds_of(project: Project) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``KINDS`` each training row is suspected to be (n,), -1 for none, and psi of calibration (n,).

    Rows that harm calibration are mislabelled where the model answers another class than their label, else
    over-confident: they pull the model towards a confidence that it does not earn. Of the rows that it is
    right about and that help calibration, those in the upper tenth are under-confident: more of them would
    help more.
    """
    engine = engine_of(project)
    psi = api.value(project, criterion=Calibration()).scores
    right = engine.answers(engine.outputs("train")).argmax(1) == project.train.targets.numpy()
    kind = np.full(len(psi), -1)
    kind[(psi < 0) & ~right], kind[(psi < 0) & right] = 0, 1
    helping = right & (psi > 0)
    kind[helping & (psi >= np.quantile(psi[helping], 0.9))] = 2
    return kind, psi


@dataclass(frozen=True)
class KindsOfRows(Experiment):
    """Two moons with 10 % flipped labels: what psi of calibration makes of every row."""

    label = "Figure 8: kinds of rows"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figure 8"

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """How many rows of each kind, how many of them have a flipped label, and how sure the model is."""
        found, arrays = [], {}
        for seed in self.over_seeds(progress, cancel):
            project = TwoMoons(seed=seed)()
            assert project.train.meta is not None
            (kind, psi), engine = kinds_of(project), engine_of(project)
            flipped = project.train.meta["flipped"].to_numpy()
            confidence = engine.answers(engine.outputs("train")).max(1)
            for k, name in enumerate((*KINDS, "others")):
                of = kind == (k if k < len(KINDS) else -1)
                line = {"rows": of.sum(), "share with a flipped label": flipped[of].mean()}
                line |= {"of all flipped": flipped[of].sum() / flipped.sum()}
                found.append({"kind": name, **line, "mean confidence": confidence[of].mean()})
            if not seed:
                arrays = {
                    "points": project.train.inputs.numpy(),
                    "kind": kind,
                    "psi": psi,
                    "flipped": flipped,
                }
                arrays["label"] = project.train.targets.numpy()
        table = summary(found, ["kind"])
        among, share = (
            told_value(table, {"kind": KINDS[0]}, name, 2)
            for name in ("of all flipped", "share with a flipped label")
        )
        told = (
            f"Of the flipped labels {among} fall among the rows called mislabelled, of which {share} are. "
            "Rows called over-confident are few, and the model is least sure of them. The source shows three "
            "such kinds and gives no numbers."
        )
        return Result({"Kinds of rows by psi of calibration": table}, arrays, told)


@dataclass(frozen=True)
class CalibratedMoons(Experiment):
    """Two moons: remove the mislabelled and some over-confident rows, up-weight the under-confident ones."""

    label = "Figure 9: calibration before and after"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figure 9"

    over_confident: float = field(
        default=0.25, metadata={"help": "Share of the over-confident rows removed.", "min": 0.0, "max": 1.0}
    )

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """Metrics on test before, patched in part and whole, and retrained; reliability of the first seed."""
        found = []
        arrays: dict[str, np.ndarray] = {}
        for seed in self.over_seeds(progress, cancel):
            project = TwoMoons(seed=seed)()
            models = {"before": project.model}
            for way, plan in self._plans(project).items():
                models[way] = api.patch(project, plan, seed=seed).model
            for way, model in models.items():
                probabilities, bins = _answers(project, model)
                assert project.test is not None
                found.append({"model": way, **metrics(probabilities, project.test.targets.numpy())})
                if not seed:
                    columns = ("bin_low", "bin_high", "confidence", "accuracy", "count")
                    arrays |= {f"{way}.{name}": bins[name].to_numpy() for name in columns}
        table = summary(found, ["model"])
        whole = list(models)[2]
        better = mean_of(table, {"model": whole}, "ece") < mean_of(table, {"model": "before"}, "ece")
        alone = told_value(table, {"model": list(models)[1]}, "ece")
        ece = [told_value(table, {"model": way}, "ece") for way in ("before", whole, "retrained")]
        told = (
            f"ECE on test goes from {ece[0]} to {ece[1]} by the patch and {ece[2]} by retraining on the same "
            f"rows; removing only the mislabelled ones leaves {alone}. {verdict(better)}, where the patched "
            "model is calibrated better in most bins."
        )
        return Result({"On test": table}, arrays, told)

    def _plans(self, project: Project) -> dict[str, PatchPlan]:
        kind, psi = kinds_of(project)
        order = np.argsort(psi, kind="stable")
        over = order[kind[order] == 1]
        mislabelled, under = np.flatnonzero(kind == 0), np.flatnonzero(kind == 2)
        gone = np.concatenate([mislabelled, over[: round(self.over_confident * len(over))]])
        patched: dict[str, Any] = {"hold": (Calibration(),), "steps": STEPS}
        whole: dict[str, Any] = {
            "remove": tuple(gone.tolist()),
            "upweight": dict.fromkeys(under.tolist(), 1.0),
        }
        return {
            "mislabelled removed": PatchPlan(remove=tuple(mislabelled.tolist()), **patched),
            "and over-confident, under-confident up": PatchPlan(**whole, **patched),
            "retrained": PatchPlan(**whole, method="retrain"),
        }


def _answers(project: Project, model: nn.Module) -> tuple[np.ndarray, pd.DataFrame]:
    assert project.test is not None
    engine = engine_of(project.with_model(model))
    probabilities = engine.answers(engine.outputs("test"))
    return probabilities, reliability(probabilities, project.test.targets.numpy())
