"""Gaps between groups in how often a class is predicted, before and after; the interval of the change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from puma_dash.core.evaluation.estimates import RESAMPLES, TAILS

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.evaluation.outcomes import Answers

PARITY, ODDS = "demographic parity gap", "equalized odds gap"
MOST_GROUPS = 30
"""Columns with more values than this, or than half the rows, name no groups."""


class Change(NamedTuple):
    """A gap before and after, and the 95 % interval of its change."""

    before: float
    after: float
    change: float
    low: float
    high: float


def grouping(frame: pd.DataFrame) -> list[str]:
    """The columns that name groups of rows."""
    most = min(MOST_GROUPS, len(frame) // 2)
    return [name for name in frame.columns if 1 < frame[name].nunique() <= most]


def parity_changes(groups: pd.DataFrame | None, answers: Answers) -> dict[str, Change]:
    """Both gaps between the groups that each column names, of how often the last class is predicted.

    Demographic parity: the largest difference between groups among all rows (Dwork et al. 2012). Equalized
    odds: the largest among the rows of that class, or among the others (Hardt, Price & Srebro 2016); left out
    where a group has no rows of one kind. Rows whose group is missing count in none. Intervals are percentile
    bootstraps of both models on the same rows, in which groups, and kinds within them, keep their sizes.

    Args:
        groups: one row per row of the answers; None for no groups.
        answers: probabilities of both models (n, c) and the true classes (n,).

    Returns:
        "demographic parity gap of sex" -> its change.
    """
    import pandas as pd

    if groups is None:
        return {}
    positive = answers.before.shape[1] - 1
    was, now = (found.argmax(1) == positive for found in answers[:2])
    kind = (answers.targets != positive).astype(np.int64)
    found = {}
    for column in grouping(groups):
        group, names = pd.factorize(groups[column])
        known = group >= 0
        cell = ((kind * len(names) + group) * 4 + 2 * was + now)[known]
        counts = np.bincount(cell, minlength=8 * len(names)).reshape(2, len(names), 4)
        found[f"{PARITY} of {column}"] = _change(counts.sum(0, keepdims=True))
        if counts.sum(2).all():
            found[f"{ODDS} of {column}"] = _change(counts)
    return found


def _change(counts: np.ndarray) -> Change:
    """The change of the gap of rows counted (k, g, 4) by predicted never, only after, only before, twice."""
    n = counts.sum(2, keepdims=True)
    drawn = np.random.default_rng(0).multinomial(n[..., 0], counts / n, size=(RESAMPLES, *n.shape[:2]))
    (before, after), (was, now) = _gaps(counts), _gaps(drawn)
    low, high = np.quantile(now - was, TAILS)
    return Change(float(before), float(after), float(after - before), float(low), float(high))


def _gaps(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaps (...) before and after, of rows counted (..., k, g, 4): of the rates of groups, in any kind."""
    n = counts.sum(-1)
    rates = [(counts[..., a] + counts[..., 3]) / n for a in (2, 1)]
    before, after = ((rate.max(-1) - rate.min(-1)).max(-1) for rate in rates)
    return before, after
