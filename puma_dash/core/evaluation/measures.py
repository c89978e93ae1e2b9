"""What models are measured by, for each task: the one place that says which functions do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from puma_dash.core.evaluation import metrics, residuals
from puma_dash.core.task import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from puma_dash.core.task import Task

Rows = dict[str, np.ndarray]


class Measures(NamedTuple):
    """Functions of answers and targets: probabilities (n, c) and class numbers (n,), or values (n, k)."""

    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    """(answers, targets) -> the task's metrics, by third parties."""
    per_row: Callable[[np.ndarray, np.ndarray], Rows]
    """(answers, targets) -> what each row contributes."""
    metrics_from: Callable[..., Rows]
    """(rows, counts=None) -> the metrics (...,) of resamples that draw each row ``counts`` (..., n) times."""


_MEASURES = {
    CLASSIFICATION.name: Measures(metrics.metrics, metrics.per_row, metrics.metrics_from),
    REGRESSION.name: Measures(residuals.metrics, residuals.per_row, residuals.metrics_from),
}


def measures_of(task: Task) -> Measures:
    """What models of ``task`` are measured by."""
    return _MEASURES[task.name]
