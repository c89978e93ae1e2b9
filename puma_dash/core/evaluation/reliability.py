"""Reliability: accuracy against confidence, as numbers; drawing is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.evaluation.metrics import BINS, per_row

if TYPE_CHECKING:
    import pandas as pd


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """One row per equal-width bin of top-label confidence: bin_low, bin_high, confidence, accuracy, count.

    Empty bins have count 0 and NaN confidence and accuracy (Niculescu-Mizil & Caruana 2005).
    """
    import pandas as pd

    rows = per_row(probabilities, targets)
    edges = np.linspace(0, 1, BINS + 1)
    count = np.bincount(rows["bin"], minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(rows["bin"], rows["confidence"], BINS) / count
        accuracy = np.bincount(rows["bin"], rows["correct"], BINS) / count
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "confidence": confidence,
            "accuracy": accuracy,
            "count": count,
        }
    )
