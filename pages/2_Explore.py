"""Explore: every training row on a map, coloured by its influence; lasso, mark, see the forecast."""

import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import Rows, colourings, hover_texts
from puma_dash.ui.figures import map_figure
from puma_dash.ui.forecast import forecast
from puma_dash.ui.gallery import details
from puma_dash.ui.gesture import MODES, combine, is_empty_gesture, rows_inside
from puma_dash.ui.panels import chart, job, ready
from puma_dash.ui.state import Context
from puma_dash.ui.tray import tray
from puma_dash.workspace.drafts import Draft

EMBEDDINGS = {
    "PCA of penultimate": {"embedding": "pca", "space": "penultimate"},
    "PCA of inputs": {"embedding": "pca", "space": "inputs"},
    "UMAP of penultimate": {"embedding": "umap", "space": "penultimate"},
    "UMAP of inputs": {"embedding": "umap", "space": "inputs"},
    "own columns": {"embedding": "columns"},
}
MODE_LABELS = {
    "replace": "replace the selection",
    "add": "be added",
    "subtract": "be taken out",
    "intersect": "be kept only",
}
HOVER_LIMIT = 5_000


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Explore"))
    rows = Rows.of(here)
    draft = here.draft()
    st.title("Explore")
    st.caption(text.PSI_SENTENCE)
    left, right = st.columns([1.7, 1], gap="medium")
    with left:
        the_map(here, rows, draft)
    with right:
        tray(here, rows, draft)
        forecast(here, rows, draft)
    st.divider()
    details(here, rows, draft)


def the_map(here: Context, rows: Rows, draft: Draft) -> None:
    """The map with its controls."""
    colour_at, embedding_at = st.columns(2)
    colours = colourings(here, rows)
    colour = colour_at.selectbox("Colour by", list(colours), key="colour")
    labels = [label for label in EMBEDDINGS if label != "own columns" or rows.flat]
    computed_first = sorted(labels, key=lambda label: label not in here.index.embeddings)
    label = embedding_at.selectbox("Map", computed_first, key="map")
    mode = st.segmented_control(
        "What you draw around will",
        MODES,
        default="replace",
        format_func=MODE_LABELS.get,
        required=True,
        key="mode",
    )
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
    values, categories, title = chosen.load()
    if values is None:
        running = here.job("value")
        if running is None or (not running.live and running.params.get("criterion") != chosen.criterion):
            here.start("value", {"method": "psi", "criterion": chosen.criterion})
        if job(here, "value", f"Computing {colour}"):
            here.forget("value")
            st.rerun()
        return

    selected = rows.mask(draft.selection) if len(draft.selection) else None
    removed, upweighted = rows.mask(draft.remove), rows.mask(draft.upweight.rows)
    figure = map_figure(
        xy,
        color=values,
        categories=categories,
        color_title=title,
        sequential=chosen.sequential,
        title=f"{rows.n:,} training rows by {colour}",
        x_title=axes[0],
        y_title=axes[1],
        selected=selected,
        removed=removed,
        upweighted=upweighted,
        hover=hover_texts(rows) if rows.n <= HOVER_LIMIT else None,
    )
    figure.update_layout(dragmode=st.session_state.get("tool", "lasso"))
    key = f"map-{st.session_state.get('gesture', 0)}"

    def gestured() -> None:
        event = st.session_state[key]["selection"]
        st.session_state["gesture"] = st.session_state.get("gesture", 0) + 1
        if is_empty_gesture(event):
            return
        st.session_state["tool"] = "select" if event.get("box") else "lasso"
        inside = rows_inside(event, xy[:, 0], xy[:, 1])
        if len(inside) == 0:
            st.session_state["note"] = "That outline holds no rows; the selection is as it was."
            return
        now = combine(here.draft().selection, inside, mode)
        here.edit(lambda draft: draft.selecting(now, f"{mode} {len(inside):,} rows drawn around"))

    alt = text.map_alt(
        rows.n,
        colour,
        selected=None if selected is None else int(selected.sum()),
        removed=int(removed.sum()),
        upweighted=int(upweighted.sum()),
    )
    read = text.READ_MAP_CATEGORIES if categories is not None else text.READ_MAP_PSI
    read = text.READ_MAP_SEQUENTIAL if chosen.sequential else read
    chart(figure, alt, read, key=key, on_select=gestured, selection_mode=["lasso", "box"])
    if note := st.session_state.pop("note", None):
        st.toast(note, icon=":material/info:")


main()
