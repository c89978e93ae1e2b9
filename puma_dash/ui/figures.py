"""The figures: pure functions from arrays to Plotly figures.

They compute no metric and know no Streamlit. The map is long enough for a module of its own and is found here
like the rest; so are the colour limits of psi and the thumbnails.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from puma_dash.ui.map import backdrop, map_figure
from puma_dash.ui.raster import thumbnails
from puma_dash.ui.style import (
    AFTER,
    BEFORE,
    CATEGORICAL,
    CLEAR,
    HARMFUL,
    OUTLINE,
    VALUABLE,
    canvas,
    floats,
    legend_key,
    plain,
    psi_limits,
)

__all__ = [
    "backdrop",
    "class_figure",
    "histogram_figure",
    "map_figure",
    "predicted_measured_figure",
    "psi_limits",
    "reliability_figure",
    "strength_figure",
    "thumbnails",
]

NO_BOX = "<extra></extra>"  # Plotly's second hover box, white on every page
BINS = 60  # even, so that 0 is an edge and no bin mixes harmful and valuable rows


def reliability_figure(
    before: Mapping[str, ArrayLike],
    after: Mapping[str, ArrayLike] | None = None,
    *,
    title: str,
    n: int,
) -> go.Figure:
    """Returns the reliability diagram, accuracy against confidence, above the number of rows in each bin.

    Args:
        before: Arrays (b,) `bin_low`, `bin_high`, `confidence`, `accuracy`, `count`; empty bins are left out.
        after: The same for the patched model.
        title: What is read off it.
        n: Rows that were binned.
    """
    series = [("before", _occupied(before), BEFORE, "dash", "circle-open")]
    if after is not None:
        series.append(("after", _occupied(after), AFTER, "solid", "circle"))
    left = min(_floor(bins["bin_low"]) for _, bins, *_ in series)
    bottom = min(left, *(_floor(bins["accuracy"]) for _, bins, *_ in series))

    figure = canvas(title, height=520, subtitle=f"n = {n:,} rows")
    figure.add_scatter(
        x=floats([0, 1]),
        y=floats([0, 1]),
        mode="lines",
        line={"color": OUTLINE, "width": 1.5, "dash": "dot"},
        name="perfect calibration",
        hoverinfo="skip",
    )
    for name, bins, color, dash, symbol in series:
        figure.add_scatter(
            x=bins["confidence"],
            y=bins["accuracy"],
            customdata=bins["count"],
            mode="lines+markers",
            name=name,
            cliponaxis=False,
            line={"color": color, "width": 2.5, "dash": dash},
            marker={"color": color, "size": 9, "symbol": symbol, "line": {"color": color, "width": 2}},
            hovertemplate="<br>".join(
                (f"{name}, %{{customdata:,}} rows", "confidence %{x:.3f}", f"accuracy %{{y:.3f}}{NO_BOX}")
            ),
        )
    for name, bins, color, *_ in reversed(series):  # an outline on top of a filled bar shows both counts
        outlined = name == "before" and after is not None
        figure.add_bar(
            x=(bins["bin_low"] + bins["bin_high"]) / 2,
            y=bins["count"],
            width=bins["bin_high"] - bins["bin_low"],
            yaxis="y2",
            name=name,
            showlegend=False,
            marker={
                "color": CLEAR if outlined else color,
                "opacity": 1 if outlined else 0.55,
                "line": {"color": color, "width": 1.5},
            },
            hovertemplate=f"{name}, %{{y:,}} rows{NO_BOX}",
        )
    (_, first, *_), (_, last, *_) = series[0], series[-1]
    higher = dict(zip(first["bin_low"].tolist(), first["count"].tolist(), strict=True))
    figure.add_scatter(  # above both bars, where no line goes through them
        x=(last["bin_low"] + last["bin_high"]) / 2,
        y=np.maximum(last["count"], floats([higher.get(low, 0) for low in last["bin_low"].tolist()])),
        yaxis="y2",
        mode="text",
        text=[f"{count:,.0f}" for count in last["count"]],
        textposition="top center",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(
        title_text="confidence (predicted probability of the predicted class)",
        range=(left - 0.02, 1.02),
        anchor="y2",
    )
    rows = "rows" if after is None else "rows (number: after)"
    return figure.update_layout(
        barmode="overlay",
        yaxis={
            "title": {"text": "accuracy (fraction correct)"},
            "range": (bottom - 0.02, 1.02),
            "domain": (0.36, 1),
            "showgrid": True,
        },
        yaxis2={
            **figure.layout.yaxis.to_plotly_json(),
            "title": {"text": rows},
            "domain": (0, 0.25),
            **_log_counts(max(float(bins["count"].max(initial=1)) for _, bins, *_ in series)),
        },
    )


def histogram_figure(psi: ArrayLike, selected: ArrayLike | None = None, *, title: str) -> go.Figure:
    """Returns the distribution of psi on a logarithmic count, selected rows bright before all rows dimmed.

    Args:
        psi: psi (n,); the outermost bins also hold everything beyond them.
        selected: Which rows are selected (n,).
        title: What is read off it.
    """
    values = np.asarray(psi, dtype=np.float64)
    groups = {"all rows": np.isfinite(values)}
    if selected is not None:
        groups["selected rows"] = groups["all rows"] & np.asarray(selected, dtype=bool)
    limit = 1.2 * psi_limits(values)
    edges = np.linspace(-limit, limit, BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2

    figure = canvas(title, height=300)
    most = 1
    for name, rows in groups.items():
        counts, _ = np.histogram(np.clip(values[rows], -limit, limit), edges)
        most = max(most, counts.max())
        opacity = 0.35 if name == "all rows" and selected is not None else 1
        figure.add_bar(
            x=floats(middles),
            y=floats(counts),
            width=float(edges[1] - edges[0]),
            showlegend=False,
            name=name,
            marker={"color": [HARMFUL if middle < 0 else VALUABLE for middle in middles], "opacity": opacity},
            hovertemplate=f"psi %{{x:.2g}}<br>{name}: %{{y:,}}{NO_BOX}",
        )
        swatch = {"symbol": "square", "size": 12, "color": OUTLINE, "opacity": opacity}
        figure.add_trace(legend_key(f"{name} ({rows.sum():,})", swatch))
    figure.update_layout(barmode="overlay", showlegend=selected is not None)
    figure.update_xaxes(title_text="psi (harmful < 0 < valuable)", range=(-limit, limit), nticks=7)
    return figure.update_yaxes(title_text="rows", **_log_counts(most))


def predicted_measured_figure(
    predicted: Mapping[str, float], measured: Mapping[str, float], *, title: str
) -> go.Figure:
    """Returns the predicted and the measured change of each criterion about zero.

    Each criterion has its own scale, as they may differ a hundredfold; the values stand beside it.

    Args:
        predicted: Predicted change of each criterion; negative is better.
        measured: Measured change; a criterion may be missing.
        title: What is read off it.
    """
    names = list(predicted)
    values = floats([(predicted[name], measured.get(name, np.nan)) for name in names]).reshape(-1, 2)
    largest = np.nan_to_num(np.abs(values)).max(axis=1, keepdims=True)
    shares = floats(values / np.where(largest > 0, largest, 1))  # (criteria, 2)

    figure = canvas(title, height=160 + 38 * len(names))
    _dumbbells(figure, names, shares[:, 0], shares[:, 1], labels=("predicted", "measured"))
    figure.update_traces({"customdata": values[:, 0]}, {"name": "predicted"})
    figure.update_traces({"customdata": values[:, 1]}, {"name": "measured"})
    figure.update_traces(hovertemplate=f"%{{customdata:+.3g}}{NO_BOX}")
    figure.add_vline(0, line={"color": OUTLINE, "width": 1.5})
    for shift, heading, column in ((88, "predicted", values[:, 0]), (168, "measured", values[:, 1])):
        for row, text in enumerate([heading, *map(_signed, column)], start=-1):
            figure.add_annotation(
                text=text, x=1, xref="paper", xanchor="right", xshift=shift, y=row, showarrow=False
            )
    figure.update_xaxes(
        title_text="change of the criterion, each on its own scale",
        range=(-1.15, 1.15),
        tickvals=floats([-0.6, 0, 0.6]),
        ticktext=["← better", "0", "worse →"],
    )
    return figure.update_yaxes(range=(len(names) - 0.4, -1.5)).update_layout(margin_r=176)


def strength_figure(
    strengths: ArrayLike,
    changes: Mapping[str, ArrayLike],
    rails: Mapping[str, float],
    *,
    at: float,
    title: str,
) -> go.Figure:
    """Returns the predicted change of each criterion against strength, with its rail dashed.

    Args:
        strengths: Strengths (s,), ascending.
        changes: Predicted change of each criterion (s,); negative is better.
        rails: The most that each criterion may get worse.
        at: The strength that is asked for.
        title: What is read off it.
    """
    x = floats(strengths)
    ends = x[[0, -1]]
    figure = canvas(title, height=300)
    figure.add_hline(0, line={"color": OUTLINE, "width": 1.5})
    figure.add_vline(at, line={"color": OUTLINE, "width": 1.5, "dash": "dot"})
    for (name, change), color in zip(changes.items(), cycle(CATEGORICAL)):
        shown = plain(name, 24)
        figure.add_scatter(
            x=x,
            y=floats(change),
            mode="lines",
            name=shown,
            showlegend=True,
            line={"color": color, "width": 2.5},
            hovertemplate=f"{shown}<br>strength %{{x:.2f}}: %{{y:+.3g}}{NO_BOX}",
        )
        figure.add_scatter(
            x=ends,
            y=floats([rails[name]] * 2),
            mode="lines",
            name=f"{shown}, rail",
            showlegend=True,
            line={"color": color, "width": 2, "dash": "dash"},
            hovertemplate=f"{shown}: at most %{{y:+.3g}}{NO_BOX}",
        )
    figure.update_xaxes(title_text="strength (1: in full)", range=ends.tolist())
    return figure.update_yaxes(title_text="predicted change", showgrid=True)


def class_figure(
    class_names: Sequence[str],
    before: ArrayLike,
    after: ArrayLike,
    *,
    title: str,
    x_title: str,
    share: bool = True,
) -> go.Figure:
    """Returns a rate of each class before and after, joined by a line.

    Args:
        class_names: Names of the classes (c,).
        before: The rate before (c,), in 0 to 1.
        after: The rate after (c,).
        title: What is read off it.
        x_title: The rate.
        share: Whether it is one, or else a figure in units of its own.
    """
    figure = canvas(title, height=150 + 28 * len(class_names))
    scale, shown, unit = (100, ".1f", " %") if share else (1, ".4g", "")
    rates = (scale * floats(values) for values in (before, after))
    _dumbbells(figure, class_names, *rates, labels=("before", "after"))
    figure.update_traces(hovertemplate=f"%{{x:{shown}}}{unit}{NO_BOX}")
    return figure.update_xaxes(title_text=plain(x_title, 80), tickformat="~g", ticksuffix=unit, showgrid=True)


def _occupied(bins: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float32]]:
    """Returns the bins that hold rows."""
    filled = np.asarray(bins["count"]) > 0
    keys = ("bin_low", "bin_high", "confidence", "accuracy", "count")
    return {key: floats(np.asarray(bins[key])[filled]) for key in keys}


def _floor(values: NDArray[np.float32]) -> float:
    """Returns the smallest value rounded down to a tenth, 0.9 at most."""
    return float(np.floor(values.min(initial=0.9) * 10 + 1e-3) / 10)


def _log_counts(most: float) -> dict[str, Any]:
    """Returns a logarithmic axis for counts of 1 up to the most."""
    top = np.log10(most) + 0.15
    return {"type": "log", "range": (-0.2, top), "dtick": 1, "tickformat": "~s", "showgrid": True}


def _dumbbells(
    figure: go.Figure,
    names: Sequence[str],
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    *,
    labels: tuple[str, str],
) -> None:
    """Draws a line from a ring, what came before, to a disc, what came after, for each name from the top."""
    rows = np.arange(len(names), dtype=np.float32)
    figure.add_scatter(
        x=np.stack([start, end, np.full_like(start, np.nan)], axis=1).ravel(),
        y=np.repeat(rows, 3),
        mode="lines",
        line={"color": OUTLINE, "width": 3},
        opacity=0.5,
        hoverinfo="skip",
        showlegend=False,
    )
    ring = {"symbol": "circle-open", "size": 13, "color": BEFORE, "line": {"color": BEFORE, "width": 2.5}}
    figure.add_scatter(x=start, y=rows, mode="markers", name=labels[0], marker=ring)
    disc = {"symbol": "circle", "size": 11, "color": AFTER, "line": {"width": 0}}
    figure.add_scatter(x=end, y=rows, mode="markers", name=labels[1], marker=disc)
    figure.update_yaxes(
        tickvals=rows, ticktext=[plain(name, 24) for name in names], range=(len(names) - 0.4, -0.6)
    )


def _signed(value: float) -> str:
    """Returns a value with its sign and three digits, a dash if there is none."""
    return f"{value:+.3g}".replace("-", "−") if np.isfinite(value) else "–"
