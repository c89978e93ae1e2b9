"""The charts of the Health page, with what they say in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from puma_dash.core.evaluation.calibration import Bins
from puma_dash.ui.figures import NO_BOX, histogram_figure, psi_limits
from puma_dash.ui.style import (
    BEFORE,
    HARMFUL,
    INK,
    LASSO,
    OUTLINE,
    RIGHT,
    WRONG,
    canvas,
    floats,
    legend_key,
    plain,
)
from puma_dash.ui.text import percent

READ_CONFUSIONS = (
    "Rows are true classes, columns predictions; blue is right, orange wrong, the stronger the larger its "
    "share of the row. Click a cell to pick its rows."
)
READ_RELIABILITY = (
    "Dots below the dotted line: over-confident; above: under-confident. Grey is where 95 % of perfectly "
    "calibrated models would lie in each bin: only dots outside are evidence. Click a bin to pick its rows."
)
READ_PSI = (
    "Bars count training rows, on a logarithmic scale; the dotted lines are three robust standard deviations "
    "from the median. What lies left of them is worth a look first."
)
PICKED = {"color": LASSO, "width": 3}


def confusion_figure(
    counts: NDArray, names: Sequence[str], *, title: str, subtitle: str, picked: tuple[int, int] | None
) -> go.Figure:
    """Returns the confusion matrix; point k*i + j of its only clickable trace is class i predicted as j.

    Args:
        counts: Rows of each class (down) by prediction (across) (k, k), maybe of some classes only.
        names: Names of these classes (k,).
        title: What is read off it.
        subtitle: How many rows it rests on, and how many classes are shown.
        picked: The cell to frame.
    """
    k = len(names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    diagonal = np.eye(k, dtype=bool)
    figure = canvas(title, height=150 + max(230, min(31 * k, 420)), subtitle=subtitle)
    for where, (pale, strong) in ((diagonal, RIGHT), (~diagonal, WRONG)):
        # The square root lets a cell of one row be seen beside one of twenty.
        shown = np.where(where & (counts > 0), np.sqrt(shares), np.nan)
        figure.add_heatmap(
            z=floats(shown),
            zmin=0,
            zmax=max(0.05, float(np.nan_to_num(shown).max(initial=0))),
            colorscale=[[0, pale], [1, strong]],
            showscale=False,
            hoverinfo="skip",
            xgap=2,
            ygap=2,
        )
    true, predicted = np.divmod(np.arange(k * k), k)
    shown_names = [plain(name, 24) for name in names]
    figure.add_scatter(
        x=predicted.astype(np.float32),
        y=true.astype(np.float32),
        mode="markers+text",
        textfont={"color": INK},
        marker={"symbol": "square", "size": 24, "opacity": 0},
        text=[f"{count:,}" if count else "" for count in counts.ravel()],
        hovertext=[
            f"{shown_names[i]} predicted {shown_names[j]}: {counts[i, j]:,} of {counts[i].sum():,} "
            f"({percent(shares[i, j])})"
            for i, j in zip(true, predicted, strict=True)
        ],
        hovertemplate=f"%{{hovertext}}{NO_BOX}",
        showlegend=False,
    )
    if picked is not None:
        i, j = picked
        figure.add_shape(type="rect", x0=j - 0.5, x1=j + 0.5, y0=i - 0.5, y1=i + 0.5, line=PICKED)
    short = [plain(name, 12) for name in names]
    ticks = {"tickvals": floats(range(k)), "ticktext": short, "showline": False}
    figure.update_xaxes(title_text="predicted class", range=(-0.55, k - 0.45), **ticks)
    figure.update_yaxes(title_text="true class", range=(k - 0.45, -0.55), **ticks)
    # A click anywhere in a cell is one on the point in its middle.
    return figure.update_layout(hovermode="closest", hoverdistance=-1)


def confusion_alt(counts: NDArray, names: Sequence[str]) -> str:
    """Returns the alternative text of the confusion matrix: its most frequent errors."""
    errors = counts - np.diag(np.diag(counts))
    order = np.argsort(-errors, axis=None, kind="stable")[:5]
    cells = [np.unravel_index(cell, counts.shape) for cell in order]
    told = [f"{names[i]} taken for {names[j]} {errors[i, j]:,} times" for i, j in cells if errors[i, j]]
    right = int(np.trace(counts))
    text = f"Confusion matrix of {len(names)} classes, {right:,} of {int(counts.sum()):,} rows right"
    return f"{text}: {', '.join(told)}." if told else f"{text}."


def band_figure(
    bins: Bins,
    band: tuple[NDArray, NDArray],
    *,
    title: str,
    subtitle: str,
    picked: int | None,
) -> go.Figure:
    """Returns the reliability diagram with the consistency band of each bin, above the rows in each bin.

    Point b of its clickable traces is the b-th bin that holds rows.

    Args:
        bins: Bins (b,); empty ones are left out.
        band: Lowest and highest accuracy (b,) of perfectly calibrated models.
        title: What is read off it.
        subtitle: How many rows it rests on.
        picked: The bin to frame, by its number among all.
    """
    filled = np.flatnonzero(bins["count"])
    edges = [floats(bins[edge][filled]) for edge in ("bin_low", "bin_high")]
    confidence, accuracy, count = (floats(bins[name][filled]) for name in ("confidence", "accuracy", "count"))
    low, high = (floats(end[filled]) for end in band)
    outside = outside_band(accuracy, low, high)
    middle, width = (edges[0] + edges[1]) / 2, edges[1] - edges[0]
    left = float(np.floor(min(edges[0].min(), 0.9) * 10 + 1e-3) / 10)
    bottom = float(np.floor(min(accuracy.min(), low.min(), 0.9) * 10 + 1e-3) / 10)

    figure = canvas(title, height=470, subtitle=subtitle)
    figure.add_bar(
        x=middle,
        y=high - low,
        base=low,
        width=width,
        name="95 % band",
        marker={"color": OUTLINE, "opacity": 0.28, "line": {"width": 0}},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=floats([0, 1]),
        y=floats([0, 1]),
        mode="lines",
        line={"color": OUTLINE, "width": 1.5, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=confidence,
        y=accuracy,
        customdata=np.stack([count, low, high], axis=1),
        mode="markers",
        marker={
            "color": [HARMFUL if out else BEFORE for out in outside],
            "symbol": ["diamond" if out else "circle" for out in outside],
            "size": 12,
            "line": {"width": 0},
        },
        cliponaxis=False,
        showlegend=False,
        hovertemplate="confidence %{x:.3f}, accuracy %{y:.3f}<br>%{customdata[0]:,} rows, band "
        f"%{{customdata[1]:.3f}} to %{{customdata[2]:.3f}}{NO_BOX}",
    )
    figure.add_trace(legend_key("within it", {"symbol": "circle", "size": 12, "color": BEFORE}))
    figure.add_trace(legend_key("outside", {"symbol": "diamond", "size": 12, "color": HARMFUL}))
    figure.add_bar(
        x=middle,
        y=count,
        width=width,
        yaxis="y2",
        showlegend=False,
        marker={"color": BEFORE, "opacity": 0.55, "line": {"color": BEFORE, "width": 1.5}},
        text=[f"{rows:,.0f}" for rows in count],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertemplate=f"%{{y:,}} rows{NO_BOX}",
    )
    if picked is not None:
        ends = {"x0": float(bins["bin_low"][picked]), "x1": float(bins["bin_high"][picked])}
        figure.add_shape(type="rect", y0=0, y1=1, xref="x", yref="paper", line=PICKED, **ends)
    axis = {**figure.layout.yaxis.to_plotly_json(), "showgrid": True}
    figure.update_xaxes(title_text="confidence in the prediction", range=(left - 0.01, 1.01), anchor="y2")
    top = float(np.log10(max(count.max(), 1))) + 0.25
    return figure.update_layout(
        barmode="overlay",
        hovermode="closest",
        yaxis={
            **axis,
            "title": {"text": "accuracy"},
            "range": (bottom - 0.02, 1.02),
            "domain": (0.36, 1),
        },
        yaxis2={
            **axis,
            "title": {"text": "rows"},
            "domain": (0, 0.24),
            "type": "log",
            "range": (-0.2, top),
            "dtick": 1,
            "tickformat": "~s",
        },
    )


def outside_band(accuracy: NDArray, low: NDArray, high: NDArray) -> NDArray[np.bool_]:
    """Returns which accuracies lie outside their band, rounding aside."""
    return (accuracy < low - 1e-6) | (accuracy > high + 1e-6)


def band_alt(bins: Bins, band: tuple[NDArray, NDArray]) -> str:
    """Returns the alternative text of the reliability diagram: the bins outside their band."""
    filled = np.flatnonzero(bins["count"])
    out = filled[outside_band(bins["accuracy"][filled], band[0][filled], band[1][filled])]
    text = f"Reliability diagram of {int(bins['count'].sum()):,} rows in {len(filled)} bins"
    if not len(out):
        return f"{text}: every accuracy is within its consistency band."
    told = [f"{bins['accuracy'][b]:.2f} where confidence is {bins['confidence'][b]:.2f}" for b in out]
    return f"{text}: outside the consistency band in {len(out)}, accuracy {'; '.join(told)}."


def psi_figure(psi: NDArray, limits: tuple[float, float], *, title: str) -> go.Figure:
    """Returns the distribution of psi with the beginnings of its tails.

    Args:
        psi: psi (n,).
        limits: Where the harmful tail ends and the valuable one begins.
        title: What is read off it.
    """
    figure = histogram_figure(psi, title=title)
    shown = 1.2 * psi_limits(psi)
    for limit in limits:
        if abs(limit) < shown:
            figure.add_vline(limit, line={"color": OUTLINE, "width": 2, "dash": "dot"})
    return figure


def psi_alt(psi: NDArray, harmful: int, valuable: int) -> str:
    """Returns the alternative text of the histogram of psi."""
    return (
        f"Histogram of psi of {len(psi):,} training rows: {harmful:,} in the harmful tail, {valuable:,} in "
        "the valuable tail."
    )


def clicked(event: dict[str, Any]) -> int | None:
    """Returns the number of the point that was clicked, None where none was."""
    points = event.get("point_indices") or []
    number = points[0] if points else None
    return number if isinstance(number, int) and number >= 0 else None
