"""The map on the Explore page: its controls, what a gesture on it does, and what is kept between reruns."""

from __future__ import annotations

from typing import Any

import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.explore import Colouring, Rows, colourings, hover_texts
from puma_dash.ui.figures import backdrop, map_figure
from puma_dash.ui.gesture import MODES, combine, extent, is_empty_gesture, rows_inside
from puma_dash.ui.map import Backdrop
from puma_dash.ui.panels import chart, job, segments
from puma_dash.ui.raster import Window
from puma_dash.ui.state import Context, removed_before
from puma_dash.workspace.drafts import Draft

EMBEDDINGS = {
    "PCA of penultimate": {"embedding": "pca", "space": "penultimate"},
    "PCA of inputs": {"embedding": "pca", "space": "inputs"},
    "UMAP of penultimate": {"embedding": "umap", "space": "penultimate"},
    "UMAP of inputs": {"embedding": "umap", "space": "inputs"},
    "own columns": {"embedding": "columns"},
}
MODE_LABELS = {
    "replace": "replace",
    "add": "add",
    "subtract": "take out",
    "intersect": "keep only",
}


def the_map(here: Context, rows: Rows, draft: Draft) -> None:
    """The map with its controls."""
    colour_at, embedding_at = st.columns(2)
    colours = colourings(here, rows)
    colour = colour_at.selectbox("Colour by", list(colours), **here.choosing("colour", colours))
    labels = [label for label in EMBEDDINGS if label != "own columns" or rows.flat]
    computed_first = sorted(labels, key=lambda label: label not in here.index.embeddings)
    label = embedding_at.selectbox("Map", computed_first, **here.choosing("map", computed_first))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        segments("Draw around rows to", MODES, MODE_LABELS.__getitem__, **here.choosing("mode", MODES))
        if not colour.startswith("psi of "):
            st.button(
                "Colour by psi",
                icon=":material/palette:",
                on_click=lambda: here.keep("colour", next(iter(colours))),
            )
        zooming = zoom_buttons(here, label)
    xy, axes = rows.coordinates(label)
    if xy is None:
        running = here.job("embed")
        if running is None or (not running.live and running.params.get("label") != label):
            here.start("embed", {**EMBEDDINGS[label], "label": label})
        if job(here, "embed", f"Computing the map: {label}"):
            here.forget("embed")
            st.rerun()
        return
    chosen = colours[colour]
    values, categories = chosen.load()
    if values is None:
        running = here.job("value")
        if running is None or (not running.live and running.params.get("criterion") != chosen.criterion):
            here.start("value", {"method": "psi", "criterion": chosen.criterion})
        if job(here, "value", f"Computing {colour}"):
            here.forget("value")
            st.rerun()
        return

    drawn = _backdrop(here, rows, chosen, colour, label)
    figure = map_figure(
        drawn,
        x_title=axes[0],
        y_title=axes[1],
        selected=rows.known(draft.selection) if len(draft.selection) else None,
        removed=rows.known(draft.remove),
        upweighted=rows.known(draft.upweight.rows),
        relabelled=rows.known(draft.relabel.rows),
    )
    tool = here.view.get("tool") or "lasso"
    figure.update_layout(dragmode="select" if zooming else tool)
    key = f"map-{st.session_state.get('gesture', 0)}"

    def gestured() -> None:
        event = st.session_state[key]["selection"]
        st.session_state["gesture"] = st.session_state.get("gesture", 0) + 1
        if is_empty_gesture(event):
            return
        # As they are now: a click and an outline right after it may come in one rerun.
        mode = st.session_state["mode"]
        if st.session_state.get("zooming"):
            st.session_state["zooming"] = False
            window = extent(event)
            if window is not None:
                here.keep(f"zoom of {label}", window)
            return
        used = "select" if event.get("box") else "lasso"
        if used != tool:
            here.keep("tool", used)
        inside = rows_inside(event, drawn.x, drawn.y)
        if len(inside) == 0:
            st.session_state["note"] = "That outline holds no rows; the selection is as it was."
            return
        now = combine(here.draft().selection, inside, mode)
        here.edit(lambda draft: draft.selecting(now, f"{mode} {len(inside):,} rows drawn around"))

    alt = text.map_alt(
        rows.n,
        colour,
        selected=len(draft.selection) or None,
        removed=len(draft.remove),
        upweighted=len(draft.upweight),
        relabelled=len(draft.relabel),
        gone=drawn.gone,
    )
    read = text.READ_MAP_CATEGORIES if categories is not None else text.READ_MAP_PSI
    read = text.READ_MAP_SEQUENTIAL if chosen.sequential else read
    counts = f"{drawn.drawn:,} drawn, {len(draft.selection):,} selected of {rows.n:,} rows."
    answering = len(drawn.hover.x)
    if answering < drawn.drawn:
        counts += f" {answering:,} of them say what they are under the mouse; zoom in for more."
    st.markdown(f"**{rows.n:,} training rows by {text.escape(colour)}**")
    chart(figure, alt, f"{counts} {read}", key=key, on_select=gestured, selection_mode=["lasso", "box"])
    if note := st.session_state.pop("note", None):
        st.toast(note, icon=":material/info:")


def zoom_buttons(here: Context, label: str) -> bool:
    """The buttons that zoom in and out; whether the next outline is to be zoomed into."""
    zooming = bool(st.session_state.get("zooming"))

    def arm() -> None:
        st.session_state["zooming"] = not zooming

    st.button(
        "Draw a box" if zooming else "Zoom to box",
        key="zoom",
        type="primary" if zooming else "secondary",
        icon=":material/zoom_in:",
        help="Then draw a box on the map: it is drawn anew at full resolution.",
        on_click=arm,
    )
    if _zoom(here, label):
        st.button(
            "Reset zoom",
            key="reset-zoom",
            icon=":material/zoom_out_map:",
            on_click=lambda: here.keep(f"zoom of {label}", None),
        )
    return zooming


def _zoom(here: Context, label: str) -> Window | None:
    """The window that a map is zoomed to."""
    kept = here.view.get(f"zoom of {label}")
    return kept and (tuple(kept[0]), tuple(kept[1]))  # on disk they are lists


def _backdrop(here: Context, rows: Rows, chosen: Colouring, colour: str, label: str) -> Backdrop:
    """All rows drawn, from the cache where they have been."""
    index = here.index
    scores = chosen.key or index.values.get(f"psi/{chosen.criterion}", "")
    of = (rows.key, index.embeddings[label], scores or colour, here.version)
    return _drawn(of, _zoom(here, label), rows, chosen, label)


@st.cache_resource(show_spinner=False, max_entries=12)
def _drawn(
    of: tuple[Any, ...], window: Window | None, _rows: Rows, _chosen: Colouring, _label: str
) -> Backdrop:
    """All rows drawn; ``of`` names everything that this depends on besides the window."""
    xy, _ = _rows.coordinates(_label)
    values, categories = _chosen.load()
    assert xy is not None
    assert values is not None
    return backdrop(
        xy,
        color=values,
        categories=categories,
        sequential=_chosen.sequential,
        gone=_rows.known(removed_before(_rows.here)),
        hover=lambda some: hover_texts(_rows, some),
        window=window,
    )
