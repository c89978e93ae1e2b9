"""Uncertainty of a before/after comparison on the same rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from puma_dash.core.evaluation.metrics import BINS, METRICS, per_row

RESAMPLES = 2_000
ROW_RESAMPLES = 500
BATCH_NUMBERS = 2**22


def paired_intervals(
    before: np.ndarray, after: np.ndarray, targets: np.ndarray, *, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile-bootstrap interval of the change of each metric, resampling rows of both models together.

    Args:
        before: probabilities (n, c) of the first model.
        after: probabilities (n, c) of the second model.
        targets: class numbers (n,).
        seed: of the resampling.
        level: coverage.

    Returns:
        Metric -> (low, high) of after - before.

    References:
        Efron & Tibshirani (1993), An introduction to the bootstrap.
    """
    from scipy.stats import bootstrap

    old, new = per_row(before, targets), per_row(after, targets)

    def changes(index: np.ndarray, axis: int) -> np.ndarray:
        """Changes of every metric (metrics, resamples) for resampled rows (resamples, n)."""
        index = index.astype(np.int64)
        pairs = [(new[name][index] - old[name][index]).mean(axis) for name in ("correct", "nll", "brier")]
        return np.stack([*pairs, resampled_ece(new, index) - resampled_ece(old, index)])

    n = len(targets)
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
        for name, low, high in zip(METRICS, result.low, result.high, strict=True)
    }


def resampled_ece(rows: dict[str, np.ndarray], index: np.ndarray) -> np.ndarray:
    """ECE of each resample (...,) for row numbers (..., n): sum over bins |sum(correct - confidence)| / n."""
    flat = index.reshape(-1, index.shape[-1])
    gap = (rows["correct"] - rows["confidence"])[flat]
    place = rows["bin"][flat] + BINS * np.arange(len(flat))[:, None]
    sums = np.bincount(place.ravel(), gap.ravel(), BINS * len(flat)).reshape(-1, BINS)
    return (np.abs(sums).sum(1) / index.shape[-1]).reshape(index.shape[:-1])


def row_interval(
    statistic: Callable[[np.ndarray], float], n: int, *, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile-bootstrap interval of any statistic of row numbers (m,), resampling the ``n`` rows."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(ROW_RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar_p(fixed: int, broken: int) -> float:
    """Two-sided p-value of the exact McNemar test that fixes and breaks are equally likely (McNemar 1947)."""
    if fixed + broken == 0:
        return 1.0
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, fixed], [broken, 0]], exact=True).pvalue)
