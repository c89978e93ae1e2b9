"""The map of the training rows: a picture of any number of rows, made to be lassoed.

The browser gets no points: it would send those inside a lasso back, a hundred bytes each, and redraw for
seconds. It gets a picture, and for hovering a line without ink through some rows, which no lasso selects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from puma_dash.ui import raster
from puma_dash.ui.look import LEVELS, Look, category_look, psi_look, sequential_look
from puma_dash.ui.style import (
    CLEAR,
    LASSO,
    OTHERS,
    PANEL,
    RELABELLED,
    REMOVED,
    UPWEIGHTED,
    canvas,
    floats,
    legend_key,
    paragraph,
    plain,
    rgb,
)

SHARP_LIMIT = 5_000
"""Up to so many rows in sight the picture is twice as fine, and each row answers the mouse."""
HOVER_SAMPLE = 2_000
"""So many of them answer where there are more."""
PICTURE, SHARP_PICTURE = (1000, 760), (2000, 1520)
"""Width and height in pixels, in one proportion, which the axes keep whatever room the browser has."""
SPARE = 1.5
"""So many times the window is drawn in each direction, for plots that are wider or higher than it."""

BRIGHT, DIM, GONE_BRIGHT, GONE_DIM = 0.9, 0.26, 0.45, 0.15  # opacity
GONE = 1  # the level of rows that an earlier version removed, below all others
DIMMED = 1 + LEVELS
"""Levels of dimmed rows; as many of bright ones follow, then the marks."""

Rows = NDArray[np.int64]
NO_ROWS: Rows = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Backdrop:
    """All rows of a map, drawn once: what stays as it is while rows are selected and marked.

    Args:
        x: Horizontal coordinates (n,).
        y: Vertical coordinates (n,).
        level: What lies on top of what (n,), in 1 to DIMMED.
        look: How rows are coloured.
        window: The data coordinates that are to be seen, at least.
        reach: Those of the picture's edges.
        ratio: Length of a unit upwards for each of one to the right, so that discs are round.
        size: Its width and height in pixels.
        radius: Of a row in pixels.
        picture: Levels of all rows (height, width).
        drawn: How many rows are in the window.
        gone: How many rows an earlier version removed.
        hover: The trace that answers the mouse.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    level: NDArray[np.uint8]
    look: Look
    window: raster.Window
    reach: raster.Window
    ratio: float
    size: tuple[int, int]
    radius: int
    picture: raster.Levels
    drawn: int
    gone: int
    hover: go.Scatter


def backdrop(
    xy: ArrayLike,
    *,
    color: ArrayLike,
    categories: Sequence[str] | None = None,
    sequential: bool = False,
    gone: Rows = NO_ROWS,
    hover: Callable[[Rows], Sequence[str]] | None = None,
    window: raster.Window | None = None,
) -> Backdrop:
    """Returns all rows of a map, drawn once.

    Extreme psi is larger and above psi near 0; categories are shuffled, the rarer the higher.

    Args:
        xy: Coordinates (n, 2); rows that are not finite are not drawn.
        color: psi (n,), or codes (n,) into `categories`, negative for a missing value.
        categories: Labels of the codes; None if `color` is psi.
        sequential: Whether `color` holds numbers (n,) from low to high rather than psi.
        gone: Rows that an earlier version removed; they are drawn grey, below all others.
        hover: What to say of some rows (m,), a text each.
        window: The part ((x0, x1), (y0, y1)) to show, ends in any order; None shows all rows.
    """
    xy = floats(xy).reshape(-1, 2)
    if categories is not None:
        look = category_look(color, categories, xy)
    else:
        look = (sequential_look if sequential else psi_look)(color)
    level = look.level + np.uint8(GONE)
    level[gone] = GONE
    whole = _all_rows(xy)
    ratio = _width(whole) / _height(whole) * PICTURE[1] / PICTURE[0]
    edges = whole if window is None else (_ends(*window[0]), _ends(*window[1]))
    reach = whole if window is None else _around(edges, ratio)
    x, y = np.ascontiguousarray(xy.T)
    (left, right), (bottom, top) = reach
    seen = np.flatnonzero((x >= left) & (x <= right) & (y >= bottom) & (y <= top))
    sharp = len(seen) <= SHARP_LIMIT
    size = SHARP_PICTURE if sharp else PICTURE
    radius = (
        round(np.interp(np.log10(len(seen) + 1), [2, 4.3], [13, 6])) if sharp else _radius(size, len(seen))
    )
    picture = _stamped(x, y, level, look.large, reach, size, radius, seen)
    answering = seen if sharp else seen[:: -(-len(seen) // HOVER_SAMPLE)]
    trace = _hover(x, y, answering, hover)
    drawn = size, radius, picture, len(seen)
    return Backdrop(x, y, level, look, edges, reach, ratio, *drawn, len(gone), trace)


def map_figure(
    rows: Backdrop,
    *,
    x_title: str,
    y_title: str,
    selected: Rows | None = None,
    removed: Rows = NO_ROWS,
    upweighted: Rows = NO_ROWS,
    relabelled: Rows = NO_ROWS,
) -> go.Figure:
    """Returns the map: selected rows bright and on top, the rest dimmed; marks above all.

    Args:
        rows: All of them, drawn.
        x_title: What grows to the right.
        y_title: What grows upwards.
        selected: Rows that are selected; None dims nothing.
        removed: Rows marked for removal.
        upweighted: Rows marked to count more.
        relabelled: Rows marked to get another label.
    """
    marks = [
        _Mark("marked remove", REMOVED, "x-thin", raster.cross, removed),
        _Mark("marked up-weight", UPWEIGHTED, "diamond-open", raster.diamond, upweighted),
        _Mark("marked relabel", RELABELLED, "square-open", raster.square, relabelled),
    ]
    traces = [rows.hover, _handle(rows), *rows.look.key, *(mark.key for mark in marks if len(mark.rows))]
    if rows.gone:
        dot = {"color": OTHERS, "size": 9, "opacity": GONE_BRIGHT}
        traces.append(legend_key(f"removed before ({rows.gone:,})", dot))
    figure = canvas("", height=560).add_traces(traces)
    figure.add_layout_image(_picture(rows, selected, marks))
    axis = {"showline": True, "fixedrange": False}
    across, up = (_exactly(ends) for ends in rows.window)
    round_discs = {"scaleanchor": "x", "scaleratio": rows.ratio}
    return figure.update_layout(
        xaxis={**axis, "title": {"text": plain(x_title, 80)}, "autorangeoptions": across},
        yaxis={**axis, "title": {"text": plain(y_title, 60)}, "autorangeoptions": up, **round_discs},
        margin={"r": 34},  # room for the buttons, which stand beside the rows, not above them
        dragmode="lasso",
        newselection={"line": {"color": LASSO, "width": 2, "dash": "solid"}},
        # What was drawn stays lit until the picture follows. This opacity is of fill and line together.
        activeselection={"fillcolor": LASSO, "opacity": 0.25},
        modebar={
            "orientation": "v",
            "remove": ["zoom2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d"],
        },
    )


class _Mark:
    """One kind of mark: how it looks, in what shape it is stamped in a picture, and its rows."""

    def __init__(
        self, label: str, color: str, symbol: str, shape: Callable[[int], raster.Shape], rows: Rows
    ) -> None:
        self.color = color
        self.shape = shape
        self.rows = rows
        marker = {"symbol": symbol, "color": color, "size": 11, "line": {"color": color, "width": 2}}
        self.key = legend_key(f"{label} ({len(rows):,})", marker)


def _stamped(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    level: NDArray[np.uint8],
    large: NDArray[np.bool_],
    window: raster.Window,
    size: tuple[int, int],
    radius: int,
    rows: Rows,
) -> raster.Levels:
    """Returns the picture of some rows, a disc each."""
    heavy = rows[large[rows]]
    picture = raster.draw(x[rows], y[rows], level[rows], window, size, raster.disc(radius))
    larger = raster.draw(
        x[heavy], y[heavy], level[heavy], window, size, raster.disc(radius + 1 + radius // 4)
    )
    return np.maximum(picture, larger, out=picture)


def _picture(rows: Backdrop, selected: Rows | None, marks: list[_Mark]) -> go.layout.Image:
    """Returns the picture of the rows with what is selected and marked, to lie below the axes it fits."""
    if selected is None:
        picture = np.where(rows.picture > 0, rows.picture + np.uint8(DIMMED), np.uint8(0))
    else:
        given = rows.x, rows.y, rows.level, rows.look.large, rows.reach, rows.size, rows.radius
        bright = _stamped(*given, selected)
        picture = np.where(bright > 0, bright + np.uint8(DIMMED), rows.picture)

    (left, right), (bottom, top) = rows.reach
    palette = np.zeros((256, 4), dtype=np.uint8)
    for first, opacity, of_gone in ((0, DIM, GONE_DIM), (DIMMED, BRIGHT, GONE_BRIGHT)):
        palette[first + GONE] = *rgb(OTHERS), round(255 * of_gone)
        colors = np.insert(rows.look.palette, 3, round(255 * opacity), axis=1)
        palette[first + GONE + 1 : first + DIMMED + 1] = colors
    for mark_level, mark in enumerate(marks, 2 * DIMMED + 1):
        palette[mark_level] = *rgb(mark.color), 255
        x, y = rows.x[mark.rows], rows.y[mark.rows]
        seen = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
        at = x[seen], y[seen], np.full(seen.sum(), mark_level, dtype=np.uint8)
        reach = rows.size[0] // PICTURE[0] * _radius(PICTURE, len(at[0]), cover=0.1, largest=10)
        if reach > 4:  # room for a clear rim, which sets the mark off from rows of any colour, on any page
            rim = raster.draw(*at, rows.reach, rows.size, raster.grown(mark.shape(reach)))
            picture[rim > 0] = 0
        np.maximum(picture, raster.draw(*at, rows.reach, rows.size, mark.shape(reach)), out=picture)
    return go.layout.Image(
        source=raster.png_uri(picture, palette),
        xref="x",
        yref="y",
        x=left,
        y=top,
        sizex=right - left,
        sizey=top - bottom,
        sizing="stretch",
        layer="below",
    )


def _hover(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    rows: Rows,
    texts: Callable[[Rows], Sequence[str]] | None,
) -> go.Scatter:
    """Returns a line without ink through some rows, which says of each what it is."""
    trace = go.Scatter(
        x=x[rows],
        y=y[rows],
        customdata=rows.astype(np.int32),
        mode="lines",
        line={"color": CLEAR, "width": 0, "simplify": False},
        hovertemplate="row %{customdata:,}<extra></extra>",
        hoverlabel={"bgcolor": PANEL, "bordercolor": PANEL, "font": {"color": "white"}},
        showlegend=False,
    )
    if texts is not None:
        trace.hovertext = [paragraph(str(text), 60) for text in texts(rows)]
        trace.hovertemplate = "%{hovertext}<extra></extra>"
    return trace


def _handle(rows: Backdrop) -> go.Scatter:
    """Returns the one invisible point that gives a picture its lasso and its colour bar."""
    (left, _), (bottom, _) = rows.window
    scale: dict[str, Any] = {"color": floats([0]), **rows.look.scale} if rows.look.scale else {}
    return go.Scatter(
        x=floats([left]),
        y=floats([bottom]),
        mode="markers",
        marker={**scale, "size": 1, "opacity": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def _radius(size: tuple[int, int], count: int, *, cover: float = 0.6, largest: int = 5) -> int:
    """Returns the radius in pixels at which so many discs would cover a share of a picture, at least 1."""
    width, height = size
    radius = (cover * width * height / (np.pi * max(count, 1))) ** 0.5
    return min(max(round(radius), 1), largest)


def _all_rows(xy: NDArray[np.float32]) -> raster.Window:
    """Returns the window around all finite rows, with a margin."""
    ends = []
    for values in xy.T if np.isfinite(xy).all() else xy[np.isfinite(xy).all(axis=1)].T:
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        margin = 0.04 * (high - low)
        ends.append(_ends(low - margin, high + margin))
    return ends[0], ends[1]


def _around(window: raster.Window, ratio: float) -> raster.Window:
    """Returns a window about the middle of another that holds it with room to spare, as wide as a picture."""
    width = SPARE * max(_width(window), _height(window) * ratio * PICTURE[0] / PICTURE[1])
    height = width / ratio * PICTURE[1] / PICTURE[0]
    x, y = (sum(ends) / 2 for ends in window)
    return (x - width / 2, x + width / 2), (y - height / 2, y + height / 2)


def _exactly(ends: tuple[float, float]) -> dict[str, float]:
    """Returns the ends of an axis as those of its automatic range, which a resized plot begins from anew."""
    return {"minallowed": ends[0], "maxallowed": ends[1]}


def _width(window: raster.Window) -> float:
    """Returns how far a window reaches to the right."""
    return window[0][1] - window[0][0]


def _height(window: raster.Window) -> float:
    """Returns how far a window reaches upwards."""
    return window[1][1] - window[1][0]


def _ends(one: float, other: float) -> tuple[float, float]:
    """Returns the ends of an axis in order, moved apart where they coincide."""
    low, high = sorted((float(one), float(other)))
    return (low, high) if low < high else (low - 1.0, high + 1.0)
