"""The pictures of the Methods page: who finds wrong labels, who agrees with whom, whom to believe."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from puma_dash.ui.style import (
    AFTER,
    BEFORE,
    CATEGORICAL,
    HARMFUL,
    INK,
    NEUTRAL,
    OTHERS,
    OUTLINE,
    VALUABLE,
    canvas,
    floats,
    plain,
    rgb,
)

NEAR_PSI = ("#E69F00", "#D55E00", "#F0E442")
"""Too near the colour of psi, or too pale for a line."""
NO_BOX = "<extra></extra>"

READ_FLIPS = (
    "How to read this: rows are inspected in each method's order, most suspicious first. The sooner a curve "
    "rises, the fewer rows have to be looked at; the dotted line of random order is what looking anywhere "
    "brings. Bands: 95 % intervals."
)
READ_AGREEMENT = {
    "rank correlation": (
        "How to read this: 1 means that two methods put the rows in the same order, 0 that the orders have "
        "nothing to do with each other, below 0 that one is rather the other's reverse. Methods that answer "
        "different questions need not agree."
    ),
    "overlap of the first 5 %": (
        "How to read this: the share of rows that both methods have among their most suspicious 5 %. By "
        "chance it would be about .05."
    ),
}
READ_DATAMODELING = (
    "How to read this: 1 means that a method put the retrainings in the order that came out, 0 that it knew "
    "nothing. Bars: 95 % intervals over the subsets. The dotted line is about what a perfect forecast would "
    "reach: the rest is noise of training, estimated from how far trainings on the same rows part."
)
READ_TRUST = (
    "How to read this: from what retraining from scratch did to what influence says, one assumption at a "
    "time; each bar is what one assumption changes of the criterion. Where a bar is long, the two part."
)


def flips_figure(
    curves: Mapping[str, ArrayLike],
    marked: Mapping[str, str],
    *,
    subtitle: str,
) -> go.Figure:
    """Returns the share of wrong labels found against the share of rows inspected, a curve per method.

    Args:
        curves: Method's name -> mean, low and high (3, k) at even shares from 0 to 1.
        marked: Name of the method that is ours -> "psi", and of the floor -> "random".
        subtitle: What it rests on.
    """
    figure = canvas("Wrong labels found", height=470, subtitle=subtitle)
    free = cycle(color for color in CATEGORICAL if color not in NEAR_PSI)
    dashes = cycle(["solid"] * (len(CATEGORICAL) - len(NEAR_PSI)) + ["dash"] * 7)
    for name, curve in sorted(curves.items(), key=lambda item: -np.mean(np.asarray(item[1])[0])):
        mean, low, high = (floats(part) for part in np.asarray(curve))
        role, x = marked.get(name), floats(np.linspace(0, 1, len(mean)))
        known = {"psi": (AFTER, "solid"), "random": (OTHERS, "dot")}
        color, dash = known[role] if role in known else (next(free), next(dashes))
        if np.isfinite(low).all():
            figure.add_scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor=f"rgba{(*rgb(color), 0.13)}",
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=x,
            y=mean,
            mode="lines",
            line={"color": color, "width": 4 if role == "psi" else 2, "dash": dash},
            name=plain(name),
            hovertemplate=f"{plain(name)}<br>%{{y:.0%}} found in %{{x:.0%}}{NO_BOX}",
        )
    figure.update_xaxes(title_text="share of rows inspected", tickformat=".0%", range=(0, 1.01))
    return figure.update_yaxes(
        title_text="share of wrong labels found", tickformat=".0%", showgrid=True, range=(0, 1.02)
    )


def agreement_figure(table: pd.DataFrame, *, title: str, subtitle: str) -> go.Figure:
    """Returns a matrix of numbers from -1 to 1, a cell per pair of methods."""
    names = [plain(name, 30) for name in table.columns]
    values = table.to_numpy()
    figure = canvas(title, height=110 + 44 * len(names) + 120, subtitle=subtitle)
    figure.add_heatmap(
        x=names,
        y=names,
        z=floats(values),
        zmin=-1,
        zmax=1,
        colorscale=[[0, HARMFUL], [0.5, "#F4F5F7"], [1, VALUABLE]],
        showscale=False,
        xgap=2,
        ygap=2,
        text=[[f"{value:.2f}".replace("-", "−") for value in line] for line in values],
        texttemplate="%{text}",
        textfont={"color": INK, "size": 12},
        hovertemplate=f"%{{y}}<br>%{{x}}<br>%{{text}}{NO_BOX}",
    )
    figure.update_xaxes(tickangle=-40, automargin=True)
    return figure.update_yaxes(autorange="reversed", automargin=True)


def datamodeling_figure(table: pd.DataFrame, ceiling: float, *, subtitle: str) -> go.Figure:
    """Returns the score of each method with its interval, the best at the top.

    Args:
        table: `label`, `score`, `low`, `high`, best first.
        ceiling: What a perfect forecast would reach; nan draws none.
        subtitle: What it rests on.
    """
    figure = canvas(
        "How well each method foresees retraining", height=150 + 34 * len(table), subtitle=subtitle
    )
    score = floats(table["score"])
    figure.add_scatter(
        x=score,
        y=[plain(name) for name in table["label"]],
        mode="markers",
        marker={"color": [AFTER if own else BEFORE for own in table["method"] == "psi"], "size": 11},
        error_x={
            "array": floats(table["high"]) - score,
            "arrayminus": score - floats(table["low"]),
            "color": OUTLINE,
            "thickness": 1.5,
        },
        customdata=table[["low", "high"]],
        hovertemplate=f"%{{y}}<br>%{{x:.2f}} (%{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}){NO_BOX}",
        showlegend=False,
    )
    figure.add_vline(0, line_color=OUTLINE, line_width=1)
    if np.isfinite(ceiling):
        figure.add_vline(
            ceiling,
            line_dash="dot",
            line_color=OUTLINE,
            annotation_text="limit set by noise",
            annotation_position="top left",
        )
    figure.update_xaxes(title_text="rank correlation with retraining", range=(-1.02, 1.02), showgrid=True)
    return figure.update_yaxes(autorange="reversed", automargin=True)


def trust_figure(
    terms: pd.DataFrame, retrained: float, influence: float, *, unit: str, subtitle: str
) -> go.Figure:
    """Returns the way from what retraining did to what influence says, a bar per assumption.

    Args:
        terms: `change` by term, in order.
        retrained: The change of the criterion that retraining brought.
        influence: The one that influence says.
        unit: Of the criterion.
        subtitle: What it rests on.
    """
    figure = canvas("Where influence and retraining part", height=420, subtitle=subtitle)
    figure.add_waterfall(
        y=["retrained", *terms.index, "influence"],
        x=[retrained, *terms["change"], influence],
        measure=["absolute", *["relative"] * len(terms), "total"],
        orientation="h",
        connector={"line": {"color": OUTLINE, "width": 1}},
        increasing={"marker": {"color": HARMFUL}},
        decreasing={"marker": {"color": VALUABLE}},
        totals={"marker": {"color": NEUTRAL}},
        hovertemplate=f"%{{y}}<br>%{{delta:+.4g}} {plain(unit)}{NO_BOX}",
        showlegend=False,
    )
    figure.add_vline(0, line_color=OUTLINE, line_width=1)
    figure.update_xaxes(title_text=f"change of the criterion ({plain(unit)})", showgrid=True)
    return figure.update_yaxes(autorange="reversed", automargin=True)
