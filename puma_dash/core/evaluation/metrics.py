"""Display metrics of class probabilities, from scikit-learn and torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import pandas as pd

BINS = 15
MEANS = {"accuracy": "correct", "nll": "nll", "brier": "brier"}
"""The metrics that are means over rows, and of what."""


def metrics(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy, NLL, Brier score and ECE of probabilities (n, c) and class numbers (n,)."""
    from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

    classes = np.arange(probabilities.shape[1])
    return {
        "accuracy": float(accuracy_score(targets, probabilities.argmax(1))),
        "nll": float(log_loss(targets, normalised(probabilities), labels=classes)),
        "brier": float(
            brier_score_loss(targets, normalised(probabilities), labels=classes, scale_by_half=False)
        ),
        "ece": expected_calibration_error(probabilities, targets),
    }


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Top-label ECE over ``BINS`` equal-width bins, as a fraction (Naeini et al. 2015)."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    # torchmetrics would put a confidence of exactly 1 into a bin of its own.
    below_one = np.nextafter(np.float32(1), np.float32(0))
    return float(
        multiclass_calibration_error(
            torch.from_numpy(np.minimum(probabilities, below_one)),
            torch.from_numpy(np.ascontiguousarray(targets)),
            num_classes=probabilities.shape[1],
            n_bins=BINS,
            norm="l1",
        )
    )


def per_row(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """What each row contributes: correct, nll, brier, and confidence with its ECE bin, each (n,)."""
    probabilities = probabilities.astype(np.float64)
    rows = np.arange(len(targets))
    truth = np.zeros_like(probabilities)
    truth[rows, targets] = 1
    confidence = probabilities.max(1)
    tiny = np.finfo(probabilities.dtype).eps  # as scikit-learn's log_loss does
    return {
        "correct": (probabilities.argmax(1) == targets).astype(np.float64),
        "nll": -np.log(np.clip(normalised(probabilities)[rows, targets], tiny, 1 - tiny)),
        "brier": ((probabilities - truth) ** 2).sum(1),
        "confidence": confidence,
        "bin": bin_numbers(confidence),
    }


def metrics_from(rows: dict[str, np.ndarray], counts: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The metrics (...,) of resamples that draw rows ``counts`` (..., n) times; of all rows without it.

    As ``metrics`` to rounding, but at once. ECE is the sum over bins of |sum of gaps| / n.
    """
    gap, n = rows["correct"] - rows["confidence"], len(rows["bin"])
    if counts is None:
        counts, gaps = np.ones(n), np.bincount(rows["bin"], gap)
    else:
        gaps = counts @ (gap[:, None] * (rows["bin"][:, None] == np.arange(BINS)))
    means = {name: counts @ rows[of] / n for name, of in MEANS.items()}
    return {**means, "ece": np.abs(gaps).sum(-1) / n}


def bin_numbers(confidence: np.ndarray) -> np.ndarray:
    """Number of the equal-width bin of each confidence (n,); closed on the left, as in torchmetrics."""
    edges = torch.linspace(0, 1, BINS + 1).numpy()
    return np.clip(np.searchsorted(edges, confidence.astype(np.float32), side="right") - 1, 0, BINS - 1)


def per_class(probabilities: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> pd.DataFrame:
    """Rows and accuracy (recall) of each class."""
    import pandas as pd
    from sklearn.metrics import recall_score

    labels = np.arange(len(names))
    return pd.DataFrame(
        {
            "class": names,
            "n": np.bincount(targets, minlength=len(names)),
            "accuracy": recall_score(
                targets, probabilities.argmax(1), labels=labels, average=None, zero_division=np.nan
            ),
        }
    )


def normalised(probabilities: np.ndarray) -> np.ndarray:
    """Float64 rows that sum to 1 exactly enough for scikit-learn, whatever the model computed in."""
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(1, keepdims=True)
