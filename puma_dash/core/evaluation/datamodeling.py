"""Linear datamodeling score: whether scores, added up, foresee what retraining does to a criterion.

Models are retrained from scratch on random subsets S of the training rows, as everything is retrained here:
the others get weight 0, the factor 1/n stays. The score of a method is Spearman's rank correlation over the
subsets of the criterion's value C(theta_S) with its forecast, the sum of the scores of the rows left out:
leaving out row j moves C by about score_j / n. 1: in the same order; 0: the scores say nothing about it.

Retraining with another seed moves C, too, so that even the exact mean over all seeds would not have score 1.
What it would have is told beside the scores: with r the mean correlation of two trainings on the same rows,
the mean of k of them has reliability k r / (1 + (k - 1) r), and its root bounds what correlates with it.

References:
    Ilyas, Park, Engstrom, Leclerc & Madry (2022), Datamodels: predicting predictions from training data.
    Park, Georgiev, Ilyas, Leclerc & Madry (2023), TRAK: attributing model behavior at scale.
    Spearman (1910), Correlation calculated from faulty data.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core import api
from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.engine import engine_of, within
from puma_dash.core.registry import parsed
from puma_dash.core.retraining import Check, Training, outputs_of, results
from puma_dash.core.types import Project, ProjectError
from puma_dash.core.valuation import VALUATIONS

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.engine import CancelEvent, Progress

METHODS = ("psi", "influence", "tracin", "gradient_dot", "knn_shapley", "loss", "random")
SUBSETS, TRAININGS, LEFT_OUT = 32, 2, 0.5
FEWEST = 8
"""Subsets from which a rank correlation says anything."""
RESAMPLES, LEVEL = 1_000, 0.95


@dataclass(frozen=True, eq=False)
class DatamodelingScore:
    """How well each method foresees what retraining does to the criterion.

    ``table`` has a row per method, the best first: "score", Spearman's correlation, with "low" and "high" of
    its 95 % bootstrap interval over subsets, and "seconds" of the scores. ``ceiling`` is about what a
    perfect forecast would score, nan where each subset was trained on once. ``values`` (subsets, trainings)
    are the criterion's, ``predicted`` the forecasts (subsets,) of each method in the criterion's unit.
    """

    criterion: str
    table: pd.DataFrame
    ceiling: float
    values: np.ndarray
    predicted: dict[str, np.ndarray]
    refused: dict[str, str]
    fingerprint: str
    diagnostics: dict[str, Any]


def datamodeling_score(
    project: Project,
    methods: Iterable[str] = METHODS,
    *,
    criterion: str | Criterion | None = None,
    subsets: int = SUBSETS,
    trainings: int = TRAININGS,
    left_out: float = LEFT_OUT,
    seed: int = 0,
    jobs: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> DatamodelingScore:
    """How well each method's scores foresee what retraining on part of the rows does to ``criterion``.

    Args:
        project: model and data; it is retrained ``subsets * trainings`` times.
        methods: keys of ``VALUATIONS``, with settings in brackets where they are not the defaults.
        criterion: a key of ``CRITERIA`` or an instance; None is the plain loss.
        subsets: of the training rows, at random.
        trainings: on each, with other seeds; their mean counts.
        left_out: share of the rows that each subset leaves out.
        seed: of the subsets, the trainings and the bootstrap.
        jobs: processes that train side by side; None follows ``joblib.parallel_config``.
        device: as in ``puma.value``.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Raises:
        ProjectError: too few subsets, or no method could be asked.
    """
    import pandas as pd

    names = list(dict.fromkeys(methods))
    known = {name: parsed(VALUATIONS, name, "valuation method") for name in names}
    if subsets < FEWEST or trainings < 1 or not 0 < left_out < 1:
        raise ProjectError(
            f"expected at least {FEWEST} subsets, a training on each and a share between 0 and 1 to leave "
            f"out, but got {subsets}, {trainings} and {left_out}."
        )
    start, told = time.perf_counter(), progress or (lambda done, total, message: None)
    target = resolve_criterion(criterion or project.task.criterion)
    predicted, seconds, refused = {}, {}, {}
    rng = np.random.default_rng(seed)
    own = project.train.weights
    used = np.arange(len(project.train)) if own is None else np.flatnonzero(own.numpy(force=True))
    out = [rng.choice(used, round(left_out * len(used)), replace=False) for _ in range(subsets)]
    for k, (name, method) in enumerate(known.items()):
        part = within(told, 0.3 * k / len(names), 0.3 * (k + 1) / len(names))
        begin = time.perf_counter()
        try:
            scores = api.value(project, method, target, device=device, progress=part, cancel=cancel).scores
        except ProjectError as reason:
            refused[name] = str(reason)
            continue
        seconds[name] = time.perf_counter() - begin
        predicted[name] = np.array([scores[rows].sum() for rows in out]) / len(project.train)
    if not predicted:
        raise ProjectError("\n\n".join(refused.values()) or "expected at least one method, but got none.")
    engine = engine_of(project, device, within(told, 0.3, 1), cancel)
    data = target.evaluation(engine)
    work = LeftOut(Training.of(engine), data.inputs.cpu(), engine.batch_size)
    tasks = [(rows, seed + k) for rows in out for k in range(trainings)]

    def retrain() -> dict[str, np.ndarray]:
        found = results(engine, work, tasks, jobs, "Retraining on part of the rows")
        values = [
            float(target(torch.from_numpy(outputs).to(engine.device, engine.dtype), data, engine.loss))
            for outputs in found
        ]
        return {"values": np.array(values).reshape(subsets, trainings)}

    settings = f"{target!r}, {subsets} subsets without {left_out}, {trainings} trainings, seed {seed}"
    measured = engine.keep(f"datamodeling of {settings}", retrain)["values"]  # the same for more methods
    lines = [
        {"method": name, **_correlation(forecast, measured.mean(1), seed), "seconds": seconds[name]}
        for name, forecast in predicted.items()
    ]
    table = pd.DataFrame(lines).sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return DatamodelingScore(
        criterion=target.name,
        table=table,
        ceiling=noise_ceiling(measured),
        values=measured,
        predicted=predicted,
        refused=refused,
        fingerprint=project.fingerprint,
        diagnostics={
            "trainer": work.training.described,
            "left_out": left_out,
            "seed": seed,
            "device": str(engine.device),
            "seconds": time.perf_counter() - start,
        },
    )


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Outputs on the evaluation rows, by a model trained without some rows."""

    training: Training
    inputs: Tensor
    rows: int

    def __call__(self, task: tuple[np.ndarray, int], check: Check) -> np.ndarray:
        """(m, c) without the rows of the task, trained with its seed."""
        return outputs_of(self.training.without_rows(*task, check), self.inputs, self.rows)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of a (k,) and b (k,); 0 where one of them is constant."""
    from scipy.stats import rankdata

    centred = [ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b))]
    norm = np.prod([np.linalg.norm(ranks) for ranks in centred])
    return float(centred[0] @ centred[1] / norm) if norm else 0.0


def noise_ceiling(values: np.ndarray) -> float:
    """About the rank correlation of the row means of ``values`` (subsets, k) with their noiseless values.

    The root of the means' reliability (Spearman 1910, Brown 1910), from the mean correlation of two columns:
    0 where they do not agree at all, nan where there is one.
    """
    k = values.shape[1]
    if k < 2:
        return float("nan")
    r = max(0.0, np.mean([spearman(values[:, i], values[:, j]) for i in range(k) for j in range(i)]))
    return float(np.sqrt(k * r / (1 + (k - 1) * r)))


def _correlation(forecast: np.ndarray, measured: np.ndarray, seed: int) -> dict[str, float]:
    """Score and its percentile-bootstrap interval over the subsets."""
    rng, k = np.random.default_rng(seed), len(measured)
    drawn = [spearman(forecast[rows], measured[rows]) for rows in rng.integers(k, size=(RESAMPLES, k))]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"score": spearman(forecast, measured), "low": float(low), "high": float(high)}
