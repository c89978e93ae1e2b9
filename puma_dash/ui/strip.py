"""A strip with the distribution of psi, small enough to stand beside numbers: an SVG, drawn at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from puma_dash.ui.style import HARMFUL, OUTLINE, VALUABLE, psi_limits, short

BINS = 60  # even, so that 0 is an edge and no bin mixes harmful and valuable rows
WIDTH, HEIGHT, LABELS = 360, 44, 13


class Bins(NamedTuple):
    """How many rows have which psi."""

    limit: float
    """The outermost bins, at -limit and limit, also hold everything beyond."""
    counts: NDArray[np.int64]
    """(BINS,)"""

    @classmethod
    def of(cls, psi: ArrayLike, limit: float | None = None) -> Bins:
        """The bins of ``psi`` (n,), by default as wide as the map's colours reach."""
        values = np.asarray(psi)
        reach = psi_limits(values) if limit is None else limit
        at = (values + reach) * (BINS / (2 * reach))
        np.clip(at, 0, BINS - 1, out=at)
        at[np.isnan(at)] = BINS  # to be left out
        return cls(reach, np.bincount(at.astype(np.intp), minlength=BINS)[:BINS])


def psi_strip(all_rows: Bins, selected: Bins) -> str:
    """Returns an SVG: bars of all rows, dimmed, and of those selected before them, on a log scale."""
    top = np.log1p(max(all_rows.counts.max(), 1))
    step = WIDTH / BINS
    bars = []
    for counts, opacity in ((all_rows.counts, 0.28), (selected.counts, 1)):
        for color, side in ((HARMFUL, range(BINS // 2)), (VALUABLE, range(BINS // 2, BINS))):
            path = "".join(
                f"M{i * step:.1f} {HEIGHT}h{step - 1:.1f}v-{height:.1f}h-{step - 1:.1f}z"
                for i in side
                if (height := HEIGHT * np.log1p(counts[i]) / top)
            )
            bars.append(f'<path d="{path}" fill="{color}" fill-opacity="{opacity}"/>')
    base = HEIGHT + LABELS - 2
    ends = ((0, "start", f"≤ −{short(all_rows.limit)}"), (WIDTH, "end", f"≥ {short(all_rows.limit)}"))
    words = [
        f'<text x="{x}" y="{base}" text-anchor="{anchor}">{label}</text>'
        for x, anchor, label in (*ends, (WIDTH / 2, "middle", "psi 0"))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + LABELS}" '
        f'font-family="sans-serif" font-size="11"><g>{"".join(bars)}</g>'
        f'<path d="M{WIDTH / 2} 0v{HEIGHT}" stroke="{OUTLINE}"/>'
        f'<g fill="{OUTLINE}">{"".join(words)}</g></svg>'
    )
