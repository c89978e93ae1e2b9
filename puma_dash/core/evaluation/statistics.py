"""Uncertainty of a before/after comparison on the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from puma_dash.core.evaluation.measures import Measures

RESAMPLES = 2_000
ROW_RESAMPLES = 500
BATCH_NUMBERS = 2**22


def paired_intervals(
    before: np.ndarray,
    after: np.ndarray,
    targets: np.ndarray,
    measures: Measures,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile-bootstrap interval of the change of each metric, resampling rows of both models together.

    Args:
        before: answers of the first model: probabilities (n, classes), or values (n, k).
        after: those of the second model.
        targets: class numbers (n,), or values (n, k).
        measures: of the task.
        seed: of the resampling.
        level: coverage.

    Returns:
        Metric -> (low, high) of after - before, NaN where it is not defined.

    References:
        Efron & Tibshirani (1993), An introduction to the bootstrap.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    old, new = (measures.per_row(answers, targets) for answers in (before, after))
    n = len(targets)

    def changes(index: np.ndarray, axis: int) -> np.ndarray:
        """Changes of every metric (metrics, resamples) for resampled rows (resamples, n)."""
        counts = times_drawn(index)
        was, now = (measures.metrics_from(rows, counts) for rows in (old, new))
        return np.stack([now[name] - was[name] for name in now])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a metric not defined has no interval
        result = bootstrap(
            (np.arange(n),),
            changes,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, BATCH_NUMBERS // n),
            method="percentile",
            confidence_level=level,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return {
        name: (float(low), float(high))
        for name, low, high in zip(measures.metrics_from(new), result.low, result.high, strict=True)
    }


def times_drawn(index: np.ndarray) -> np.ndarray:
    """How often each row was drawn (..., n), for drawn row numbers (..., n)."""
    n = index.shape[-1]
    drawn = index.astype(np.int64).reshape(-1, n)
    counts = np.stack([np.bincount(rows, minlength=n) for rows in drawn])
    return counts.reshape(index.shape).astype(np.float64)


def row_draws(
    statistic: Callable[[np.ndarray], float], strata: np.ndarray, *, seed: int, resamples: int = ROW_RESAMPLES
) -> np.ndarray:
    """The statistic on ``resamples`` resamples of the rows (m,), each within its stratum: (resamples,)."""
    rng = np.random.default_rng(seed)
    _, stratum, size = np.unique(strata, return_inverse=True, return_counts=True)
    order, start, room = np.argsort(stratum, kind="stable"), (np.cumsum(size) - size)[stratum], size[stratum]
    return np.array([statistic(order[start + rng.integers(room)]) for _ in range(resamples)])


def half_width(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Half the width (...) of Student's t-interval of the mean of ``values`` (k, ...); nan where k = 1."""
    from scipy.stats import t

    k = len(values)
    spread = values.std(0, ddof=1) if k > 1 else np.full(values.shape[1:], np.nan)
    return t.ppf((1 + level) / 2, max(k - 1, 1)) * spread / np.sqrt(k)


def mcnemar_p(fixed: int, broken: int) -> float:
    """Two-sided p-value of the exact McNemar test that fixes and breaks are equally likely (McNemar 1947)."""
    if fixed + broken == 0:
        return 1.0
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, fixed], [broken, 0]], exact=True).pvalue)
