"""The map of the training rows: points up to a limit, a picture above it, one visual language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from puma_dash.ui import raster
from puma_dash.ui.style import (
    CATEGORICAL,
    CLEAR,
    DIVERGING,
    LASSO,
    OTHERS,
    REMOVED,
    SEQUENTIAL,
    UPWEIGHTED,
    canvas,
    floats,
    legend_key,
    paragraph,
    plain,
    psi_limits,
    rgb,
)

DRAW_LIMIT = 20_000
PICTURE = (1200, 800)  # pixels; the browser stretches it over the plot

BRIGHT, DIM = 0.9, 0.13  # opacity
STEPS = 62  # of psi on each side of 0, so that bright levels, dim levels and marks fit in one byte
LEVELS = 2 * STEPS + 1


def map_figure(
    xy: ArrayLike,
    *,
    color: ArrayLike,
    title: str,
    x_title: str,
    y_title: str,
    categories: Sequence[str] | None = None,
    selected: ArrayLike | None = None,
    removed: ArrayLike | None = None,
    upweighted: ArrayLike | None = None,
    hover: Sequence[str] | None = None,
    ranges: raster.Window | None = None,
    color_title: str = "psi",
    sequential: bool = False,
) -> go.Figure:
    """Returns the map of the training rows, made to be lassoed.

    Up to `DRAW_LIMIT` rows are drawn one by one and carry their row number as `customdata`; more become a
    picture without hover. Both look alike: selected rows bright and on top, the rest dimmed; extreme psi
    larger and above psi near 0; categories shuffled, the rarer the higher; marks above all.

    Args:
        xy: Coordinates (n, 2); rows that are not finite are not drawn.
        color: psi (n,), or codes (n,) into `categories`, negative for a missing value.
        title: What is read off the map.
        x_title: What grows to the right.
        y_title: What grows upwards.
        categories: Labels of the codes; None if `color` is psi.
        selected: Which rows are selected (n,); None dims nothing.
        removed: Which rows are marked for removal (n,).
        upweighted: Which rows are marked to count more (n,).
        hover: What to say of each row (n,).
        ranges: The window ((x0, x1), (y0, y1)) to show, ends in any order; None shows all rows.
        color_title: What the colour means.
        sequential: Whether `color` holds numbers (n,) from low to high rather than psi.
    """
    xy = floats(xy).reshape(-1, 2)
    window = _all_rows(xy) if ranges is None else (_ends(*ranges[0]), _ends(*ranges[1]))
    if categories is not None:
        look = _category_look(color, categories, xy)
    else:
        look = (_sequential_look if sequential else _psi_look)(color, color_title)
    bright = np.ones(len(xy), dtype=bool) if selected is None else np.asarray(selected, dtype=bool)
    marks = [
        _Mark("marked remove", REMOVED, "x-thin", raster.cross, removed),
        _Mark("marked upweight", UPWEIGHTED, "diamond-open", raster.diamond, upweighted),
    ]

    figure = canvas(title, height=560)
    if len(xy) <= DRAW_LIMIT:
        figure.add_traces(_points(xy, look, bright, marks, hover))
    else:
        figure.add_layout_image(_picture(xy, look, bright, marks, window))
        figure.add_trace(_handle(look, window))
    figure.add_traces(look.key + [mark.key for mark in marks if len(mark.rows)])
    figure.update_xaxes(title_text=plain(x_title, 80), range=window[0])
    figure.update_yaxes(title_text=plain(y_title, 60), range=window[1])
    figure.update_xaxes(showline=True, fixedrange=False).update_yaxes(showline=True, fixedrange=False)
    return figure.update_layout(
        dragmode="lasso",
        legend_title_text=None if categories is None else plain(color_title),
        newselection_line={"color": LASSO, "width": 2, "dash": "solid"},
        # This opacity is of fill and line together.
        activeselection={"fillcolor": CLEAR, "opacity": 1},
        modebar_remove=["zoom2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """How rows are coloured, as points and in a picture.

    Args:
        marker: Plotly's colour arguments: `color` (n,), its scale and its bar.
        weight: How much larger a row is drawn (n,), in 0 to 1.
        level: What lies on top of what (n,), in 1 to LEVELS.
        palette: RGB of each level (LEVELS, 3).
        hover: Hover template of a row that has no text.
        key: Empty traces that make the legend.
    """

    marker: dict[str, Any]
    weight: NDArray[np.float32]
    level: NDArray[np.uint8]
    palette: NDArray[np.uint8]
    hover: str
    key: list[go.Scatter]


class _Mark:
    """One kind of mark: how it looks, in what shape it is stamped in a picture, and its rows."""

    def __init__(
        self,
        label: str,
        color: str,
        symbol: str,
        shape: Callable[[int], raster.Shape],
        mask: ArrayLike | None,
    ) -> None:
        self.color = color
        self.shape = shape
        self.rows = np.flatnonzero(() if mask is None else np.asarray(mask, dtype=bool))
        self.marker = {"symbol": symbol, "color": color, "size": 11, "line": {"color": color, "width": 2}}
        self.key = legend_key(f"{label} ({len(self.rows):,})", self.marker)


def _psi_look(psi: ArrayLike, title: str) -> _Look:
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
    marker = {
        "color": values,
        "colorscale": DIVERGING,
        "cmin": -limit,
        "cmax": limit,
        "showscale": True,
        "colorbar": {
            "title": {"text": f"{plain(title, 24)}<br>&nbsp;"},
            "tickvals": floats([-limit, 0, limit]),
            "ticktext": [f"≤ −{limit:.2g}<br>harmful", "0", f"≥ {limit:.2g}<br>valuable"],
            "thickness": 12,
            "outlinewidth": 0,
            "len": 0.85,
        },
    }
    hover = f"row %{{customdata}}<br>{plain(title)} %{{marker.color:.3g}}"
    return _Look(marker, np.abs(share), level, palette.astype(np.uint8), hover, [])


def _sequential_look(values: ArrayLike, title: str) -> _Look:
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
    missing = int((~finite).sum())
    first = (high - low or 1.0) / LEVELS  # below the scale, where grey stands for a missing value
    marker = {
        "color": np.where(finite, np.maximum(values, low), low - first).astype(np.float32),
        "colorscale": [(0.0, OTHERS), (1 / (LEVELS + 1), OTHERS)]
        + [(max(at, 1.01 / (LEVELS + 1)), color) for at, color in SEQUENTIAL],
        "cmin": low - first,
        "cmax": high,
        "showscale": True,
        "colorbar": {
            "title": {"text": f"{plain(title, 24)}<br>&nbsp;"},
            "tickvals": floats([low, (low + high) / 2, high]),
            "ticktext": [f"≤ {low:.3g}", f"{(low + high) / 2:.3g}", f"≥ {high:.3g}"],
            "thickness": 12,
            "outlinewidth": 0,
            "len": 0.85,
        },
    }
    key = [legend_key(f"missing ({missing:,})", {"color": OTHERS, "size": 9})] if missing else []
    hover = f"row %{{customdata}}<br>{plain(title)} %{{marker.color:.3g}}"
    return _Look(marker, np.zeros(len(values), np.float32), level, palette, hover, key)


def _category_look(codes: ArrayLike, categories: Sequence[str], xy: NDArray[np.float32]) -> _Look:
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

    bands = [(edge / len(colors), color) for i, color in enumerate(colors) for edge in (i, i + 1)]
    marker = {"color": slot, "colorscale": bands, "cmin": -0.5, "cmax": len(colors) - 0.5}
    key = [
        legend_key(f"{label} ({total:,})", {"color": color, "size": 9})
        for label, color, total in zip(labels, colors, totals, strict=True)
        if total or color != OTHERS
    ]
    return _Look(marker, np.zeros(len(codes), np.float32), level, palette, "row %{customdata}", key)


def _lots(xy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns numbers in 0 to 1 (n,) as good as random, the same for the same coordinates in any order."""
    bits = xy.view(np.uint32)
    mixed = bits[:, 0] * np.uint32(2654435761) ^ bits[:, 1] * np.uint32(2246822519)
    return mixed / 2.0**32


def _points(
    xy: NDArray[np.float32],
    look: _Look,
    bright: NDArray[np.bool_],
    marks: list[_Mark],
    hover: Sequence[str] | None,
) -> list[go.Scattergl]:
    """Returns one trace with all rows, what is drawn last on top, and one for each kind of mark."""
    order = np.lexsort((look.level, bright))
    order = order[np.isfinite(xy[order]).all(axis=1)]
    size = np.interp(np.log10(max(len(xy), 1)), [2, 4.3], [9, 4])
    marker = {**look.marker, "color": look.marker["color"][order], "size": size, "opacity": BRIGHT}
    if look.weight.any():
        marker["size"] = floats(size * (0.85 + 0.65 * look.weight[order]))
    if not bright.all():
        marker["opacity"] = floats(np.where(bright[order], BRIGHT, DIM))
    style = {"mode": "markers", "showlegend": False}
    rows = go.Scattergl(
        x=xy[order, 0],
        y=xy[order, 1],
        marker={**marker, "line": {"width": 0}},
        customdata=order.astype(np.int32),
        hovertemplate=f"{look.hover}<extra></extra>",
        **style,
    )
    if hover is not None:
        rows.hovertext = [paragraph(str(hover[row]), 60) for row in order]
        rows.hovertemplate = "%{hovertext}<extra></extra>"
    traces = [rows]
    for mark in marks:
        if len(mark.rows):
            size = np.interp(np.log10(len(mark.rows)), [2.3, 4], [11, 5])
            x, y = xy[mark.rows].T
            marker = {**mark.marker, "size": size}
            traces.append(go.Scattergl(x=floats(x), y=floats(y), marker=marker, hoverinfo="skip", **style))
    return traces


def _picture(
    xy: NDArray[np.float32],
    look: _Look,
    bright: NDArray[np.bool_],
    marks: list[_Mark],
    window: raster.Window,
) -> go.layout.Image:
    """Returns the picture of the rows in a window, to lie below the axes it fits."""
    (left, right), (bottom, top) = window
    x, y = np.ascontiguousarray(xy.T)
    seen = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    radius = _radius(seen.sum(), cover=0.6, largest=5)
    level = look.level + np.where(bright, LEVELS, 0).astype(np.uint8)
    heavy = np.flatnonzero(look.weight > 0.5)
    picture = raster.draw(x, y, level, window, PICTURE, raster.disc(radius))
    larger = raster.draw(x[heavy], y[heavy], level[heavy], window, PICTURE, raster.disc(radius + 1))
    np.maximum(picture, larger, out=picture)

    palette = np.zeros((256, 4), dtype=np.uint8)
    palette[1 : LEVELS + 1] = np.insert(look.palette, 3, round(255 * 2 * DIM), axis=1)
    palette[LEVELS + 1 : 2 * LEVELS + 1] = np.insert(look.palette, 3, round(255 * BRIGHT), axis=1)
    for mark_level, mark in enumerate(marks, 2 * LEVELS + 1):
        palette[mark_level] = *rgb(mark.color), 255
        rows = mark.rows[seen[mark.rows]]
        at = x[rows], y[rows], np.full(len(rows), mark_level, dtype=np.uint8)
        reach = _radius(len(rows), cover=0.1, largest=radius + 5)
        if reach > 4:  # room for a clear rim, which sets the mark off from rows of any colour, on any page
            picture[raster.draw(*at, window, PICTURE, raster.grown(mark.shape(reach))) > 0] = 0
        np.maximum(picture, raster.draw(*at, window, PICTURE, mark.shape(reach)), out=picture)
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


def _handle(look: _Look, window: raster.Window) -> go.Scattergl:
    """Returns the one invisible point that gives a picture its lasso and its colour bar."""
    (left, _), (bottom, _) = window
    return go.Scattergl(
        x=floats([left]),
        y=floats([bottom]),
        mode="markers",
        marker={**look.marker, "color": floats([0]), "size": 1, "opacity": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def _radius(count: int, *, cover: float, largest: int) -> int:
    """Returns the radius in pixels at which so many discs would cover a share of the picture, at least 1."""
    width, height = PICTURE
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


def _ends(one: float, other: float) -> tuple[float, float]:
    """Returns the ends of an axis in order, moved apart where they coincide."""
    low, high = sorted((float(one), float(other)))
    return (low, high) if low < high else (low - 1.0, high + 1.0)
