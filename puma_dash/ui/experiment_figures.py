"""The pictures of the source's experiments, drawn from what they found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from puma_dash.ui.change_figures import regions_figure
from puma_dash.ui.figures import reliability_figure
from puma_dash.ui.method_texts import VALUATIONS
from puma_dash.ui.methods_figures import flips_figure
from puma_dash.ui.style import (
    AFTER,
    BEFORE,
    CATEGORICAL,
    FAINT,
    HARMFUL,
    OTHERS,
    OUTLINE,
    REMOVED,
    UPWEIGHTED,
    canvas,
    floats,
)

if TYPE_CHECKING:
    from puma_dash.core.experiments import Result

COLORS = {"naive removal": REMOVED, "PUMA": UPWEIGHTED}
KINDS = {"mislabelled": REMOVED, "over-confident": HARMFUL, "under-confident": CATEGORICAL[0]}


def rails(found: Result) -> go.Figure:
    """Returns the changes of both criteria by both patches, with intervals over seeds."""
    (table,) = found.tables.values()
    figure = canvas(
        "Change on test, negative is better", height=330, subtitle="mean and 95 % interval over seeds"
    )
    test = table[table["split"] == "test"]
    for name, color in (("adversarial loss", BEFORE), ("parity gap", AFTER)):
        figure.add_scatter(
            x=test[name],
            y=test["patch"],
            error_x={"array": test[f"{name} ±"].fillna(0), "color": color},
            mode="markers",
            marker={"size": 11, "color": color},
            name=f"{name} ({'nats' if name == 'adversarial loss' else 'probability'})",
        )
    return figure.add_vline(0, line_color=OUTLINE).update_yaxes(automargin=True)


def directions(found: Result) -> go.Figure:
    """Returns the surfaces of J and C over the plane of both directions, with an arrow for each."""
    arrays = found.arrays
    base = canvas("Where each direction leads", height=430, subtitle="the plane through both, seed 0")
    titles = ("training objective J", "criterion C: validation loss")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.09)
    figure.update_layout(base.layout)
    for column, name in ((1, "J"), (2, "C")):
        figure.add_contour(
            x=arrays["x"],
            y=arrays["y"],
            z=arrays[name],
            ncontours=18,
            colorscale="Cividis",
            reversescale=True,
            showscale=False,
            contours={"coloring": "heatmap"},
            line={"width": 0.5, "color": FAINT},
            row=1,
            col=column,
        )
        for (way, color), (x, y) in zip(COLORS.items(), arrays["ends"], strict=True):
            figure.add_scatter(
                x=[0, float(x)],
                y=[0, float(y)],
                mode="lines+markers",
                line={"color": color, "width": 3},
                marker={"size": [0, 12], "symbol": "arrow", "angleref": "previous", "color": color},
                name=way,
                legendgroup=way,
                showlegend=column == 1,
                row=1,
                col=column,
            )
    margin = base.layout.margin.to_plotly_json()
    return figure.update_layout(margin={**margin, "t": margin["t"] + 24})


def mislabels(found: Result) -> go.Figure:
    """Returns the fraction of flips found against the fraction inspected, a curve for each method."""
    named = {VALUATIONS[key].label: curve for key, curve in found.arrays.items()}
    special = {VALUATIONS[role].label: role for role in ("psi", "random")}
    return flips_figure(named, special, subtitle="mean and 95 % interval; digits, 10 % flipped")


def radial(found: Result) -> go.Figure:
    """Returns the decision regions before and after the patch, with the training rows."""
    arrays = found.arrays
    marked = np.isin(np.arange(len(arrays["points"])), arrays["marked"])
    classes = ("class A", "class B")
    title = "What the model answers everywhere, seed 0"
    return regions_figure(arrays, arrays["points"], arrays["label"], marked, classes, title=title)


def kinds(found: Result) -> go.Figure:
    """Returns the training rows in the plane, the three kinds in colour."""
    arrays = found.arrays
    figure = canvas("Kinds of rows by psi of calibration, seed 0", height=470)
    for k, name in enumerate(("others", *KINDS)):
        of = arrays["kind"] == k - 1
        figure.add_scatter(
            x=floats(arrays["points"][of, 0]),
            y=floats(arrays["points"][of, 1]),
            mode="markers",
            marker={
                "size": 5 if not k else 8,
                "color": KINDS.get(name, OTHERS),
                "opacity": 0.35 if not k else 0.9,
            },
            name=f"{name} ({of.sum():,})",
        )
    return figure.update_xaxes(title_text="first input").update_yaxes(
        title_text="second input", scaleanchor="x"
    )


def calibrated(found: Result) -> go.Figure:
    """Returns the reliability diagram on test before and after the whole patch."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in found.arrays))
    before, after = (
        {
            name: found.arrays[f"{way}.{name}"]
            for name in ("bin_low", "bin_high", "confidence", "accuracy", "count")
        }
        for way in (names[0], names[2])
    )
    n = int(before["count"].sum())
    return reliability_figure(before, after, title="Accuracy against confidence on test, seed 0", n=n)


def style(found: Result) -> go.Figure:
    """Returns test images of the marked style and of other 4s, with what is read before and after."""
    arrays, across = found.arrays, 6
    before, after = arrays["before"], arrays["patched"]
    titles = [f"{was}→{now}" for was, now in zip(before, after, strict=True)]
    figure = make_subplots(
        rows=4, cols=across, subplot_titles=titles, horizontal_spacing=0.01, vertical_spacing=0.05
    )
    for k, image in enumerate(arrays["images"]):
        ink = floats(image[::-1])
        figure.add_heatmap(
            z=ink, colorscale="Greys", showscale=False, row=k // across + 1, col=k % across + 1
        )
    title = "Test images, read as before→after: two rows of the marked style, two of other 4s; seed 0"
    figure.update_layout(canvas(title, height=640).layout)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False, scaleanchor="x", scaleratio=1)


FIGURES: dict[str, Callable[[Result], go.Figure]] = {
    "fig3": rails,
    "fig4": directions,
    "fig5": mislabels,
    "fig6": radial,
    "fig7": style,
    "fig8": kinds,
    "fig9": calibrated,
}
"""What draws the result of each experiment."""
