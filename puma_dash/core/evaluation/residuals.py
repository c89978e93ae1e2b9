"""Display metrics of predicted values, from scikit-learn, and what each row contributes to them."""

from __future__ import annotations

import math

import numpy as np

BINS = 30
"""Of residuals; even, so that 0 is an edge."""
SEEN = 0.99
"""Share of the residuals that the bins reach out to."""
ROUNDING = 1e-12
"""Share of the second moment of a target below which its variance is rounding."""


def metrics(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """RMSE, MAE and R² of values (n, k) against targets (n, k), the mean over the k outputs.

    RMSE is the root of the mean over rows and outputs. R² is not defined where a target does not vary.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    values, targets = values.astype(np.float64), targets.astype(np.float64)
    varies = bool((np.ptp(targets, axis=0) > 0).all())
    return {
        "rmse": math.sqrt(mean_squared_error(targets, values)),
        "mae": float(mean_absolute_error(targets, values)),
        "r2": float(r2_score(targets, values)) if varies else math.nan,
    }


def residual_edges(residuals: np.ndarray) -> np.ndarray:
    """Edges (BINS + 1,) of bins of equal width about 0; what lies beyond belongs to the outermost."""
    reach = float(np.quantile(np.abs(residuals), SEEN)) or float(np.abs(residuals).max()) or 1.0
    return np.linspace(-reach, reach, BINS + 1)


def per_row(values: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """What each row contributes, each (n, k): squared and absolute error, and the target about its mean."""
    residual = values.astype(np.float64) - targets
    centred = targets.astype(np.float64) - targets.mean(0, dtype=np.float64)
    return {"square": residual**2, "absolute": np.abs(residual), "target": centred}


def metrics_from(rows: dict[str, np.ndarray], counts: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The metrics (...,) of resamples that draw rows ``counts`` (..., n) times; of all rows without it."""
    columns = contributions(rows)
    return from_means(columns.mean(0) if counts is None else counts @ columns / columns.shape[0])


def contributions(rows: dict[str, np.ndarray]) -> np.ndarray:
    """The columns (n, 4 k) whose means the metrics are functions of, from what each row contributes."""
    return np.concatenate([rows["square"], rows["absolute"], rows["target"], rows["target"] ** 2], axis=1)


def from_means(means: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics (...,) of the means (..., 4 k) of ``contributions``."""
    square, absolute, middle, second = np.split(means, 4, axis=-1)  # (..., k) each
    variance = second - middle**2
    varies = variance > ROUNDING * second
    explained = 1 - square / np.where(varies, variance, 1.0)
    return {
        "rmse": np.sqrt(square.mean(-1).clip(0)),
        "mae": absolute.mean(-1),
        "r2": np.where(varies.all(-1), explained.mean(-1), np.nan),
    }
