"""The look that all figures share: colours, text from data made safe, the empty canvas.

Backgrounds are transparent and fonts are left to the page's theme, so every colour here is chosen to be seen
on white and on near-black alike.
"""

import html
import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

# Okabe & Ito (2008): told apart with any colour vision. Their black, unseen on a dark page, makes room for
# three more that keep their distance from the rest; everything past ten is OTHERS.
CATEGORICAL = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#A03A2C",
    "#7C86F8",
    "#3C7186",
)
OTHERS = "#9A9EA6"

# Of similar lightness, so that neither end fades on either page; chroma and size carry the value.
HARMFUL, NEUTRAL, VALUABLE = "#E67E00", "#A0A4AC", "#1F7AE0"
DIVERGING = ((0.0, HARMFUL), (0.5, NEUTRAL), (1.0, VALUABLE))

# From low to high by lightness and hue both, away from orange and blue, which mean psi.
SEQUENTIAL = ((0.0, "#D0B63A"), (0.5, "#2E9C7F"), (1.0, "#4A5A9E"))

BEFORE, AFTER = "#6F87A0", "#E67E00"
REMOVED, UPWEIGHTED, RELABELLED = "#CF2A2A", "#00A07A", "#8E44CF"
# Pale and strong, of cells light enough on both pages for the same dark figures in them.
RIGHT, WRONG, INK = ("#DCEAFB", "#74ACF0"), ("#FDEBD6", "#F4A24B"), "#1C2430"
LASSO = "#B02FC4"  # no row is drawn in it
OUTLINE = "#7F8794"
PANEL = "#39424F"  # behind white text
FAINT = "rgba(127, 135, 148, 0.25)"
CLEAR = "rgba(0, 0, 0, 0)"


def psi_limits(psi: ArrayLike) -> float:
    """Returns where the colour scale ends on both sides of 0: the 1st or 99th percentile, the larger in size.

    The largest |psi| stands in where nearly all values are 0, and 1 where no value differs from 0.
    """
    values = np.asarray(psi, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 1.0
    limit = np.abs(np.percentile(values, [1, 99])).max() or np.abs(values).max()
    return float(limit) or 1.0


def rgb(color: str) -> tuple[int, int, int]:
    """Returns the channels of a #rrggbb colour."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def floats(values: ArrayLike) -> NDArray[np.float32]:
    """Returns contiguous float32 values, which travel to the browser as bytes and not as digits."""
    return np.ascontiguousarray(values, dtype=np.float32)


def short(value: float, digits: int = 2) -> str:
    """Returns a number in a few digits, and below a million without an exponent."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def plain(text: object, width: int = 40) -> str:
    """Returns text from data as one line of limited width that Plotly shows as it is, markup included.

    The number sign is spelled out because Streamlit takes a string like #000012 anywhere in a figure for one
    of its theme colours and replaces it.
    """
    line = " ".join(str(text).split())
    if len(line) > width:
        line = line[: width - 1] + "…"
    return html.escape(line, quote=False).replace("#", "&#35;")


def paragraph(text: str, width: int) -> str:
    """Returns text from data wrapped at a width, its line breaks kept, that Plotly shows as it is."""
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, width)]
    return "<br>".join(plain(line, width) for line in lines)


def legend_key(name: str, marker: dict[str, Any]) -> go.Scatter:
    """Returns a trace without points that puts one entry in the legend; the name is shown as it is given."""
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip")


def canvas(title: str, *, height: int, subtitle: str = "") -> go.Figure:
    """Returns an empty figure: title at the left, legend below, no zooming, no ink that carries no data.

    Args:
        title: What is read off the figure.
        height: Pixels.
        subtitle: How many rows it rests on.
    """
    title = paragraph(title, 60)
    lines = title.count("<br>") + bool(title)  # Plotly's own automargin cuts off all but the last
    above = 8 + 18 * bool(title) + 22 * lines + (20 if subtitle else 0)
    axis = {
        "showgrid": False,
        "gridcolor": FAINT,
        "zeroline": False,
        "linecolor": FAINT,
        "fixedrange": True,
        "exponentformat": "power",
        "title": {"standoff": 8},
    }
    layout = {
        "template": go.layout.Template(),  # else the figure depends on whether streamlit was imported
        "height": height,
        "title": {
            "text": title,
            "subtitle": {"text": paragraph(subtitle, 90)},
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 6 + 8 * lines},
        },
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 8, "r": 8, "t": above, "b": 8},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "title": {"side": "left"},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": CLEAR, "color": OUTLINE, "activecolor": VALUABLE},
        "dragmode": False,
        "xaxis": axis,
        "yaxis": {**axis, "title": {"standoff": 14}},
    }
    return go.Figure(layout=layout)  # a tenth of the time that updates of an empty figure take
