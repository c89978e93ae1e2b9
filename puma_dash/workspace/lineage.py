"""What the versions before one did to the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from puma_dash.workspace.ledger import Ledger


def removed_before(ledger: Ledger, version: int | None) -> np.ndarray:
    """Rows (r,), ascending, that the accepted patches from the original up to ``version`` removed."""
    rows = [np.empty(0, np.int64)]
    while version is not None and (entry := ledger.entry(version)) is not None:
        rows.append(np.array(entry.details["plan"]["remove"], dtype=np.int64))
        version = entry.parent
    return np.unique(np.concatenate(rows))
