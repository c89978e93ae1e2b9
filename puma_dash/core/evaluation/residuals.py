"""Display metrics of predicted values, from scikit-learn, and what each row contributes to them."""

from __future__ import annotations

import math

import numpy as np

BINS = 30
"""Of residuals; even, so that 0 is an edge."""
SEEN = 0.99
"""Share of the residuals that the bins reach out to."""


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
    counts = np.ones(len(rows["square"])) if counts is None else counts
    share = counts / counts.sum(-1, keepdims=True)
    square = share @ rows["square"]  # (..., k)
    middle = share @ rows["target"]
    variance = share @ rows["target"] ** 2 - middle**2
    smallest = np.finfo(np.float64).eps * (rows["target"] ** 2).mean(0)
    varies = variance > smallest
    explained = 1 - square / np.where(varies, variance, 1.0)
    return {
        "rmse": np.sqrt(square.mean(-1)),
        "mae": (share @ rows["absolute"]).mean(-1),
        "r2": np.where(varies.all(-1), explained.mean(-1), np.nan),
    }
