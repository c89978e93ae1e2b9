"""Whether methods of valuation agree about a project: of their orders of the rows, and of the first ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.types import ProjectError, Valuation

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

FIRST = 0.05


def agreement(
    scores: Mapping[str, Valuation | ArrayLike], first: float = FIRST
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spearman's rank correlation of each two methods, and the overlap of their most suspicious rows.

    Args:
        scores: name -> a valuation of the same project, or its scores (n,); lower is more suspicious.
        first: the share of the rows that counts as most suspicious.

    Returns:
        The correlations, -1 to 1, 0 with scores that are all equal, and the overlaps |A and B| / |A|, 0 to 1,
        where A and B are the ``first`` rows of either; by chance it is about ``first``. Rows of equal
        score count in their order.

    Raises:
        ProjectError: the scores are of different projects or rows.
    """
    import pandas as pd

    marks = {found.fingerprint for found in scores.values() if isinstance(found, Valuation)}
    values = {
        name: np.asarray(found.scores if isinstance(found, Valuation) else found, dtype=np.float64)
        for name, found in scores.items()
    }
    if len(marks) > 1 or len({found.shape for found in values.values()}) > 1:
        raise ProjectError("expected scores of one project, but they are of different ones.")
    frame = pd.DataFrame(values)
    count = max(1, round(first * len(frame)))
    chosen = np.zeros((len(values), len(frame)))
    for k, column in enumerate(values.values()):
        chosen[k, np.argsort(column, kind="stable")[:count]] = 1
    overlap = pd.DataFrame(chosen @ chosen.T / count, index=frame.columns, columns=frame.columns)
    return frame.corr(method="spearman").fillna(0.0), overlap
