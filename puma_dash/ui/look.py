"""How the rows of a map are coloured: what lies on top, in which colour, and the legend that says so.

A row has one level, of so few that a picture needs one byte a pixel for all rows dimmed, selected rows bright
and marks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from puma_dash.ui.style import (
    CATEGORICAL,
    DIVERGING,
    OTHERS,
    SEQUENTIAL,
    floats,
    legend_key,
    plain,
    psi_limits,
    rgb,
    short,
)

STEPS = 62  # of psi on each side of 0
LEVELS = 2 * STEPS + 1
BAR: dict[str, Any] = {
    **{"orientation": "h", "lenmode": "pixels", "len": 210, "thickness": 10, "outlinewidth": 0},
    **{"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "ypad": 4},
}
"""Above the map, whose width it leaves alone."""


@dataclass(frozen=True, eq=False)
class Look:
    """How rows are coloured.

    Args:
        level: What lies on top of what (n,), in 1 to LEVELS.
        large: Which rows are drawn larger (n,).
        palette: RGB of each level (LEVELS, 3).
        scale: Plotly's colour scale with its bar, where there is one.
        key: Empty traces that make the legend.
    """

    level: NDArray[np.uint8]
    large: NDArray[np.bool_]
    palette: NDArray[np.uint8]
    scale: dict[str, Any]
    key: list[go.Scatter]


def psi_look(psi: ArrayLike) -> Look:
    """Returns the diverging look; levels alternate between harmful and valuable while |psi| grows."""
    values = np.nan_to_num(floats(psi))
    limit = psi_limits(values)
    share = np.clip(values / np.float32(limit), -1, 1)
    step = np.rint(share * STEPS).astype(np.int16)
    level = (2 * np.abs(step) + (step >= 0)).astype(np.uint8)

    levels = np.arange(1, LEVELS + 1)
    level_share = levels // 2 / STEPS * np.where(levels % 2, 1, -1)
    colors = np.array([rgb(color) for _, color in DIVERGING])
    palette = np.stack([np.interp(level_share, [-1, 0, 1], channel) for channel in colors.T], axis=1)
    scale = {
        "colorscale": DIVERGING,
        "cmin": -limit,
        "cmax": limit,
        "showscale": True,
        "colorbar": {
            "tickvals": floats([-limit, 0, limit]),
            "ticktext": [f"≤ −{short(limit)} harmful", "psi 0", f"≥ {short(limit)} valuable"],
            **BAR,
        },
    }
    return Look(level, np.abs(share) > 0.5, palette.astype(np.uint8), scale, [])


def sequential_look(values: ArrayLike) -> Look:
    """Returns the look of numbers from low to high, the higher the further on top; missing ones are grey."""
    values = floats(values)
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], [1, 99]).tolist() if finite.any() else (0.0, 1.0)
    share = np.where(finite, (np.clip(values, low, high) - low) / (high - low or 1.0), 0)
    level = np.where(finite, 2 + np.rint(share * (LEVELS - 2)), 1).astype(np.uint8)

    colors = np.array([rgb(color) for _, color in SEQUENTIAL])
    along = np.linspace(0, 1, LEVELS - 1)
    palette = np.stack([np.interp(along, [at for at, _ in SEQUENTIAL], part) for part in colors.T], axis=1)
    palette = np.insert(palette, 0, rgb(OTHERS), axis=0).astype(np.uint8)
    scale = {
        "colorscale": SEQUENTIAL,
        "cmin": low,
        "cmax": high,
        "showscale": True,
        "colorbar": {
            "tickvals": floats([low, (low + high) / 2, high]),
            "ticktext": [f"≤ {short(low, 3)}", short((low + high) / 2, 3), f"≥ {short(high, 3)}"],
            **BAR,
        },
    }
    missing = int((~finite).sum())
    key = [legend_key(f"missing ({missing:,})", {"color": OTHERS, "size": 9})] if missing else []
    return Look(level, np.zeros(len(values), bool), palette, scale, key)


def category_look(codes: ArrayLike, categories: Sequence[str], xy: NDArray[np.float32]) -> Look:
    """Returns the categorical look: a colour for each of the most frequent categories, grey for the rest.

    Each row draws one of several layers by lot, weighted so that where categories overlap none hides another,
    and a category of few rows stays in sight.
    """
    codes = np.asarray(codes, dtype=np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    shown = np.sort(np.argsort(-counts, kind="stable")[: len(CATEGORICAL)])
    slots = np.full(len(categories) + 1, len(shown), dtype=np.uint8)  # the last is for code -1, missing
    slots[shown] = np.arange(len(shown))
    slot = slots[np.maximum(codes, -1)]

    colors = [*CATEGORICAL[: len(shown)], OTHERS]
    labels = [plain(categories[code], 24) for code in shown]
    labels.append("missing" if len(shown) == len(categories) else "others")
    totals = np.bincount(slot, minlength=len(colors))
    layers = LEVELS // len(colors)
    lot = _lots(xy) ** (totals / max(totals.max(), 1))[slot]
    layer = np.minimum(layers * lot, layers - 1).astype(np.uint8)
    level = 1 + layer * np.uint8(len(colors)) + slot
    palette = np.resize(np.array([rgb(color) for color in colors], dtype=np.uint8), (LEVELS, 3))

    key = [
        legend_key(f"{label} ({total:,})", {"color": color, "size": 9})
        for label, color, total in zip(labels, colors, totals, strict=True)
        if total or color != OTHERS
    ]
    return Look(level, np.zeros(len(codes), bool), palette, {}, key)


def _lots(xy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns numbers in 0 to 1 (n,) as good as random, the same for the same coordinates in any order."""
    bits = xy.view(np.uint32)
    mixed = bits[:, 0] * np.uint32(2654435761) ^ bits[:, 1] * np.uint32(2246822519)
    return mixed / 2.0**32
