"""The figures of a regression: predictions against targets, and residuals; with what they say in words."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from puma_dash.ui.style import AFTER, BEFORE, CLEAR, LASSO, OUTLINE, canvas, floats, plain

READ_ANSWERS = (
    "Each dot is a row; on the dotted line the prediction is the target, above it too high, below it too low."
)
READ_MOVED = (
    "Each line is a row, from what was predicted before (ring) to after (disc); on the dotted line the "
    "prediction is the target."
)
READ_RESIDUALS = (
    "Bars count rows by prediction - target: left of zero too low, right of it too high; the outermost bars "
    "hold everything beyond them."
)
NO_BOX = "<extra></extra>"
STYLES = {
    "before": {"symbol": "circle-open", "size": 7, "color": BEFORE, "line": {"width": 1.5}},
    "after": {"symbol": "circle", "size": 6, "color": AFTER, "line": {"width": 0}},
}


def answers_figure(
    target: ArrayLike,
    before: ArrayLike,
    after: ArrayLike | None = None,
    *,
    title: str,
    subtitle: str,
    output: str,
    picked: ArrayLike | None = None,
) -> go.Figure:
    """Returns predictions against targets, a dot for each row, or a line from before to after.

    Args:
        target: Targets (n,).
        before: Predictions (n,).
        after: Those of the patched model.
        title: What is read off it.
        subtitle: How many rows it rests on, and how many are drawn.
        output: What is predicted.
        picked: Which rows are ringed (n,).
    """
    x, old = floats(target), floats(before)
    series = {"before": old} if after is None else {"before": old, "after": floats(after)}
    every = np.concatenate([x, *series.values()])
    low, high = float(every.min()), float(every.max())
    room = 0.04 * (high - low) or 1.0
    ends = floats([low - room, high + room])

    figure = canvas(title, height=430, subtitle=subtitle)
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": OUTLINE, "width": 1.5, "dash": "dot"},
        name="prediction = target",
        hoverinfo="skip",
    )
    if after is not None:
        figure.add_scatter(
            x=np.repeat(x, 3),
            y=np.stack([old, series["after"], np.full_like(old, np.nan)], axis=1).ravel(),
            mode="lines",
            line={"color": OUTLINE, "width": 1},
            opacity=0.6,
            hoverinfo="skip",
            showlegend=False,
        )
    for name, values in series.items():
        figure.add_scatter(
            x=x,
            y=values,
            mode="markers",
            name=name,
            showlegend=after is not None,
            marker=STYLES[name],
            hovertemplate=f"target %{{x:.4g}}, predicted %{{y:.4g}}{NO_BOX}",
        )
    if picked is not None:
        ring = np.asarray(picked, dtype=bool)
        marker = {"symbol": "circle-open", "size": 12, "color": LASSO, "line": {"width": 1.5}}
        figure.add_scatter(
            x=x[ring], y=old[ring], mode="markers", marker=marker, name="picked", hoverinfo="skip"
        )
    name = plain(output, 40)
    figure.update_xaxes(title_text=f"target: {name}", range=ends.tolist())
    return figure.update_yaxes(title_text="prediction", range=ends.tolist(), showgrid=True)


def answers_alt(target: ArrayLike, before: ArrayLike, after: ArrayLike | None = None) -> str:
    """Returns the alternative text of the predictions against the targets, with their correlation."""

    def told(values: ArrayLike) -> str:
        pair = np.stack([np.asarray(target, dtype=float), np.asarray(values, dtype=float)])
        varies = (pair.std(1) > 0).all()
        return f"correlation {np.corrcoef(pair)[0, 1]:.2f}" if varies else "no correlation"

    text = f"Predictions against targets of {len(np.asarray(target)):,} rows"
    if after is None:
        return f"{text}: {told(before)}."
    return f"{text}: {told(before)} before, {told(after)} after."


def residuals_figure(
    bins: Mapping[str, ArrayLike], *, title: str, subtitle: str, output: str, picked: int | None = None
) -> go.Figure:
    """Returns how many rows have which residual; bar b of each clickable trace is bin b.

    Args:
        bins: `low`, `high` and `before` (b,), of a patch `after`, too.
        title: What is read off it.
        subtitle: How many rows it rests on.
        output: What is predicted.
        picked: The bin to frame.
    """
    low, high = (np.asarray(bins[end], dtype=float) for end in ("low", "high"))
    both = "after" in bins
    figure = canvas(title, height=330, subtitle=subtitle)
    for name, color in (("after", AFTER), ("before", BEFORE)):  # an outline on a filled bar shows both
        if name not in bins:
            continue
        outlined = both and name == "before"
        figure.add_bar(
            x=floats((low + high) / 2),
            y=floats(bins[name]),
            width=floats(high - low),
            name=name,
            showlegend=both,
            marker={
                "color": CLEAR if outlined else color,
                "opacity": 1 if outlined else 0.55,
                "line": {"color": color, "width": 1.5},
            },
            hovertemplate=f"residual about %{{x:.3g}}<br>{name}: %{{y:,}} rows{NO_BOX}",
        )
    figure.add_vline(0, line={"color": OUTLINE, "width": 1.5, "dash": "dot"})
    if picked is not None:
        figure.add_shape(
            type="rect",
            x0=low[picked],
            x1=high[picked],
            y0=0,
            y1=1,
            xref="x",
            yref="paper",
            line={"color": LASSO, "width": 3},
        )
    figure.update_xaxes(
        title_text=f"prediction - target: {plain(output, 40)}", range=(float(low[0]), float(high[-1]))
    )
    figure.update_yaxes(title_text="rows", showgrid=True)
    return figure.update_layout(barmode="overlay", hovermode="closest")


def residuals_alt(bins: Mapping[str, ArrayLike]) -> str:
    """Returns the alternative text of the residuals: how many rows lie on which side."""
    middle = (np.asarray(bins["low"], dtype=float) + np.asarray(bins["high"], dtype=float)) / 2
    told = []
    for name in ("before", "after"):
        if name in bins:
            counts: NDArray = np.asarray(bins[name])
            sides = f"{counts[middle < 0].sum():,} rows too low, {counts[middle > 0].sum():,} too high"
            told.append(f"{sides} {name}" if "after" in bins else sides)
    return f"Histogram of residuals: {'; '.join(told)}."
