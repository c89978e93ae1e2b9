"""Figures of the Compare page only: what a patch changed in the confusion matrix and in the plane."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from puma_dash.ui.raster import png_uri
from puma_dash.ui.style import (
    AFTER,
    BEFORE,
    CATEGORICAL,
    INK,
    OTHERS,
    OUTLINE,
    REMOVED,
    RIGHT,
    WRONG,
    canvas,
    floats,
    legend_key,
    plain,
    rgb,
)

MOST_CLASSES = 20
"""Up to which the confusion matrix can be read."""
NO_BOX = "<extra></extra>"


def confusion_change_figure(
    classes: Sequence[str], cells: Mapping[str, ArrayLike], *, title: str, n: int
) -> go.Figure:
    """Returns the confusion matrix before and after: counts in each cell, coloured by the change.

    Args:
        classes: Names of the classes (c,).
        cells: `target`, `predicted` (class numbers), `before` and `after` (counts) of the cells (k,).
        title: What is read off it.
        n: Rows that were counted.
    """
    c = len(classes)
    before, after = np.zeros((c, c)), np.zeros((c, c))
    at = np.asarray(cells["target"], dtype=int), np.asarray(cells["predicted"], dtype=int)
    before[at], after[at] = cells["before"], cells["after"]
    change = after - before
    better = np.where(np.eye(c, dtype=bool), change, -change)  # more on the diagonal, less beside it
    changed = change != 0
    limit = max(np.abs(change).max(initial=0), 1)
    told = np.where(changed, _counts(before) + "→" + _counts(after), _counts(after))
    told[(before == 0) & (after == 0)] = ""
    names = [plain(name, 16) for name in classes]

    figure = canvas(title, height=170 + 36 * c, subtitle=f"n = {n:,} rows; before→after where it changed")
    figure.add_heatmap(
        z=floats(np.where(changed, better, np.nan)),
        x=names,
        y=names,
        zmin=-limit,
        zmax=limit,
        colorscale=[[0, WRONG[1]], [0.5, WRONG[0]], [0.5, RIGHT[0]], [1, RIGHT[1]]],
        xgap=2,
        ygap=2,
        customdata=np.stack([before, after, change], axis=-1),
        hovertemplate="label %{y}, predicted %{x}<br>%{customdata[0]:,} → %{customdata[1]:,} "
        f"(%{{customdata[2]:+,}}){NO_BOX}",
        showscale=False,
    )
    x, y = np.meshgrid(np.arange(c), np.arange(c))
    figure.add_scatter(
        x=[names[k] for k in x.ravel()],
        y=[names[k] for k in y.ravel()],
        mode="text",
        text=told.ravel().tolist(),
        textfont={"size": 12 if c <= 12 else 10, "color": np.where(changed, INK, OUTLINE).ravel().tolist()},
        hoverinfo="skip",
        showlegend=False,
    )
    swatch = {"symbol": "square", "size": 12}
    figure.add_trace(legend_key("better", {**swatch, "color": RIGHT[1]}))
    figure.add_trace(legend_key("worse", {**swatch, "color": WRONG[1]}))
    figure.update_xaxes(title_text="predicted class", type="category")
    return figure.update_yaxes(title_text="label", type="category", autorange="reversed")


def regions_figure(
    regions: Mapping[str, ArrayLike],
    points: ArrayLike,
    targets: ArrayLike,
    marked: ArrayLike,
    classes: Sequence[str],
    *,
    title: str,
) -> go.Figure:
    """Returns what the model answers everywhere in the plane, before beside after, with the training rows.

    Args:
        regions: `x`, `y` (s,), `class` and `confidence` (2, s, s), y first.
        points: Training rows (n, 2).
        targets: Their class numbers (n,).
        marked: Whether the patch touched each (n,).
        classes: Names of the classes.
        title: What is read off it.
    """
    base = canvas(title, height=430, subtitle=f"{len(np.asarray(points)):,} training rows; rings: marked")
    figure = make_subplots(rows=1, cols=2, subplot_titles=("before", "after"), horizontal_spacing=0.06)
    figure.update_layout(base.layout)
    x, y = (np.asarray(regions[axis], dtype=float) for axis in "xy")
    colors = [CATEGORICAL[k] if k < len(CATEGORICAL) else OTHERS for k in range(len(classes))]
    xy, labels, ring = floats(points), np.asarray(targets), np.asarray(marked, dtype=bool)
    for column in (1, 2):
        figure.add_layout_image(
            source=_picture(
                np.asarray(regions["class"])[column - 1],
                np.asarray(regions["confidence"])[column - 1],
                colors,
            ),
            xref="x" if column == 1 else "x2",
            yref="y" if column == 1 else "y2",
            x=x[0],
            y=y[-1],
            sizex=x[-1] - x[0],
            sizey=y[-1] - y[0],
            sizing="stretch",
            layer="below",
        )
        for k, name in enumerate(classes):
            chosen = labels == k
            figure.add_scatter(
                x=xy[chosen, 0],
                y=xy[chosen, 1],
                mode="markers",
                name=plain(name, 24),
                legendgroup=str(k),
                showlegend=column == 1,
                marker={"size": 5, "color": colors[k], "line": {"width": 0.5, "color": "white"}},
                hovertemplate=f"{plain(name, 24)}{NO_BOX}",
                row=1,
                col=column,
            )
        figure.add_scatter(
            x=xy[ring, 0],
            y=xy[ring, 1],
            mode="markers",
            name="marked",
            showlegend=column == 1 and bool(ring.any()),
            marker={"size": 9, "symbol": "circle-open", "color": REMOVED, "line": {"width": 1.5}},
            hoverinfo="skip",
            row=1,
            col=column,
        )
    axis: dict[str, Any] = {**base.layout.xaxis.to_plotly_json(), "linecolor": OUTLINE}
    figure.update_xaxes(axis, range=[x[0], x[-1]], title_text="first input")
    figure.update_yaxes(axis, range=[y[0], y[-1]])
    figure.update_yaxes(title_text="second input", col=1)
    margin = base.layout.margin.to_plotly_json()
    return figure.update_layout(margin={**margin, "t": margin["t"] + 24, "b": 70})


def evidence_figure(
    models: Sequence[str], auc: ArrayLike, low: ArrayLike, high: ArrayLike, *, title: str, n: int
) -> go.Figure:
    """Returns the membership AUC of each model with its interval, about the line of no evidence at 0.5.

    Args:
        models: What they are called: before, after, and the yardsticks.
        auc: AUC of each (m,).
        low: Lower ends of the intervals (m,).
        high: Upper ends (m,).
        title: What is read off it.
        n: Rows that were scored.
    """
    x, left, right = (floats(values) for values in (auc, low, high))
    colors = [BEFORE, AFTER, *[OUTLINE] * (len(models) - 2)]
    figure = canvas(title, height=130 + 38 * len(models), subtitle=f"n = {n:,} removed or relabelled rows")
    figure.add_scatter(
        x=x,
        y=list(models),
        mode="markers",
        marker={"size": 11, "color": colors},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": right - x,
            "arrayminus": x - left,
            "color": OUTLINE,
            "thickness": 2,
            "width": 5,
        },
        customdata=np.stack([left, right], axis=-1),
        hovertemplate=f"%{{y}}: %{{x:.2f}} (%{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}){NO_BOX}",
        showlegend=False,
    )
    figure.add_vline(0.5, line={"color": OUTLINE, "width": 1.5, "dash": "dot"})
    floor = min(0.4, float(left.min(initial=1.0)))
    figure.update_xaxes(title_text="AUC (0.5: not told apart)", range=(floor - 0.02, 1.02), showgrid=True)
    return figure.update_yaxes(autorange="reversed")


def _picture(classes: NDArray, confidence: NDArray, colors: Sequence[str]) -> str:
    """Returns one plane as a PNG: hue says the class, opacity the confidence above chance."""
    palette = np.array([rgb(color) for color in colors], dtype=np.uint8)
    chance = 1 / max(len(colors), 2)
    alpha = 30 + 110 * np.clip((confidence.astype(float) - chance) / (1 - chance), 0, 1)
    pixels = np.concatenate([palette[classes], alpha[..., None].astype(np.uint8)], axis=-1)
    return png_uri(pixels[::-1])


def _counts(values: NDArray) -> NDArray:
    """Returns counts as text."""
    return values.astype(int).astype(str).astype(object)
