"""Forecasts as sums of psi: what re-weighting rows is predicted to do, at once, without model or torch.

To first order a re-weighting e of the n training rows changes criterion c by -(1/n) sum_j e_j psi_cj;
removing row j (e_j = -1) changes it by psi_cj / n. Negative is better, in the criterion's own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from puma_dash.core.types import ProjectError, Selection

if TYPE_CHECKING:
    import pandas as pd


def predicted_change(psi: ArrayLike, rows: Any = None, e: ArrayLike = -1.0) -> NDArray[np.float64]:
    """Predicted dC of each criterion: -(1/n) sum_j e_j psi_cj over ``rows``.

    The cost is that of one pass over ``psi``, however many rows are chosen.

    Args:
        psi: (m, n) influences on m criteria, or (n,) on one.
        rows: row numbers, each once and in any order, a bool mask (n,) or a Selection; None for all rows.
        e: the re-weighting, one for all ``rows`` or one for each in their order; -1 removes them.

    Returns:
        (m,) changes, or () for one criterion.

    Raises:
        ProjectError: rows repeated or out of range, or as many e as there are no rows.
    """
    table = np.asarray(psi)
    n = table.shape[-1]
    index = slice(None) if rows is None else _row_index(rows, n)
    count = n if isinstance(index, slice) else len(index)
    values = np.asarray(e, dtype=np.float64)
    if values.shape not in ((), (count,)):
        raise ProjectError(f"expected one e, or one for each of {count} rows, but got shape {values.shape}.")
    weights = np.zeros(n)
    weights[index] = values
    return -(table @ weights) / n


def curve_by_rows(
    by: ArrayLike, psi: ArrayLike, points: int = 200, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Predicted dC of each criterion when the k rows with the lowest ``by`` are removed, against k.

    Args:
        by: (n,) scores that order the rows, such as psi of one criterion; ties keep the order of the rows.
        psi: (m, n) influences on m criteria, or (n,) on one.
        points: about how many k, spaced evenly in log k from 1 to n.
        names: of the m criteria; default 0, 1, ...

    Returns:
        Columns k, ascending, and one per criterion. k = 0 and the k where each criterion is lowest are
        among the rows.
    """
    import pandas as pd

    order = np.argsort(np.asarray(by), kind="stable")
    n = len(order)
    curves = [
        np.concatenate([[0.0], np.cumsum(row[order], dtype=np.float64)]) / n for row in np.atleast_2d(psi)
    ]
    lowest = [int(curve.argmin()) for curve in curves]
    k = np.unique([0, *lowest, *np.geomspace(1, n, points).round().astype(int)])
    labels = range(len(curves)) if names is None else names
    return pd.DataFrame({"k": k} | {name: curve[k] for name, curve in zip(labels, curves, strict=True)})


def _row_index(rows: Any, n: int) -> NDArray[np.int64]:
    """Row numbers in the order given, from numbers, a bool mask (n,) or a Selection of ``n`` rows."""
    index = np.asarray(rows.rows if isinstance(rows, Selection) else rows)
    if index.dtype == bool:
        if index.shape != (n,):
            raise ProjectError(f"expected a mask of all {n} rows, but got shape {index.shape}.")
        return np.flatnonzero(index)
    if not index.size:
        return np.zeros(0, dtype=np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise ProjectError(f"expected row numbers or a mask, but got {index.dtype} of shape {index.shape}.")
    if index.min() < 0 or index.max() >= n:
        raise ProjectError(f"expected rows 0 to {n - 1}, but got {index.min()} to {index.max()}.")
    chosen = np.zeros(n, dtype=bool)
    chosen[index] = True
    if np.count_nonzero(chosen) < len(index):
        raise ProjectError("expected each row once, but some are repeated; try puma.Selection(rows).")
    return index
