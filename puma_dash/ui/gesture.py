"""From an outline drawn on the map to row numbers.

The browser sends only the outline; which rows lie inside is decided here, against all rows, whether or not
the browser drew them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_COMBINE: dict[str, Callable[[Mask, Mask], Mask]] = {
    "replace": lambda current, gesture: gesture,
    "add": lambda current, gesture: current | gesture,
    "subtract": lambda current, gesture: current & ~gesture,
    "intersect": lambda current, gesture: current & gesture,
}
MODES = tuple(_COMBINE)


def rows_inside(selection: Mapping[str, Any], x: ArrayLike, y: ArrayLike) -> Rows:
    """Returns the sorted row numbers inside any outline of a chart selection.

    A lasso follows the even-odd rule, as the browser draws it: where it crosses itself, what is enclosed
    twice is outside. Several outlines add up. A malformed outline is ignored.

    Args:
        selection: The `selection` of a Plotly chart event: lists `lasso` and `box` of outlines
            `{"x": [...], "y": [...]}` in data coordinates.
        x: Horizontal coordinates of all rows (n,); NaN lies outside everything.
        y: Vertical coordinates of all rows (n,).

    Returns:
        Row numbers, sorted and unique.
    """
    x, y = np.asarray(x), np.asarray(y)
    inside = np.zeros(len(x), dtype=bool)
    for xs, ys in _outlines(selection, "box", 2):
        inside[_rows_in_box(x, y, xs, ys)] = True
    for xs, ys in _outlines(selection, "lasso", 3):
        near = _rows_in_box(x, y, xs, ys)
        inside[near[_even_odd(x[near].astype(float), y[near].astype(float), xs, ys)]] = True
    return np.flatnonzero(inside)


def is_empty_gesture(selection: Mapping[str, Any]) -> bool:
    """Returns whether nothing was outlined at all, as after a double click."""
    return not (selection.get("lasso") or selection.get("box"))


def extent(selection: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Returns the window ((left, right), (bottom, top)) around all outlines, None if it has no area."""
    outlines = [*_outlines(selection, "box", 2), *_outlines(selection, "lasso", 3)]
    if not outlines:
        return None
    xs, ys = (np.concatenate(values) for values in zip(*outlines, strict=True))
    window = (float(xs.min()), float(xs.max())), (float(ys.min()), float(ys.max()))
    return window if all(low < high for low, high in window) else None


def combine(current: ArrayLike, gesture: ArrayLike, mode: str) -> Rows:
    """Returns the sorted unique rows selected once a gesture is applied to the current selection.

    Args:
        current: Rows selected so far.
        gesture: Rows of the gesture.
        mode: One of `MODES`: replace, add, subtract, intersect.

    Raises:
        ValueError: If the mode is none of these.
    """
    if mode not in _COMBINE:
        raise ValueError(f"expected a mode out of {', '.join(MODES)} but got {mode!r}")
    given = [np.asarray(rows, dtype=np.int64) for rows in (current, gesture)]
    masks = np.zeros((2, max(int(rows.max(initial=-1)) for rows in given) + 1), dtype=bool)
    for mask, rows in zip(
        masks, given, strict=True
    ):  # of a million rows it takes a tenth of what sorting does
        mask[rows] = True
    return np.flatnonzero(_COMBINE[mode](*masks))


def _outlines(selection: Mapping[str, Any], kind: str, least: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Returns the well-formed outlines of one kind, as vertex coordinates (v,) with v >= least."""
    outlines = selection.get(kind)
    for outline in outlines if isinstance(outlines, list | tuple) else ():
        try:
            xs, ys = (np.asarray(outline[axis], dtype=float) for axis in "xy")
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if xs.ndim == 1 and xs.shape == ys.shape and len(xs) >= least and np.isfinite([xs, ys]).all():
            yield xs, ys


def _rows_in_box(x: NDArray, y: NDArray, xs: NDArray, ys: NDArray) -> Rows:
    """Returns the rows within the bounding box of some vertices, its border included."""
    # Limits stay float64 scalars: as Python floats, NumPy would round them to the float32 of the coordinates.
    return np.flatnonzero((x >= xs.min()) & (x <= xs.max()) & (y >= ys.min()) & (y <= ys.max()))


def _even_odd(x: NDArray, y: NDArray, xs: NDArray, ys: NDArray) -> NDArray[np.bool_]:
    """Returns which points have an odd number of polygon edges to their right."""
    inside = np.zeros(len(x), dtype=bool)
    x0, y0 = xs[-1], ys[-1]
    above0 = y0 > y
    for x1, y1 in zip(xs, ys, strict=True):
        above1 = y1 > y
        crossed = np.flatnonzero(above0 != above1)  # few: only these need the costly part
        inside[crossed] ^= x[crossed] < x0 + (x1 - x0) * ((y[crossed] - y0) / (y1 - y0))
        x0, y0, above0 = x1, y1, above1
    return inside
