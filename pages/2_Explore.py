"""Explore: every training row on a map, coloured by its influence; lasso, mark, see the forecast."""

import numpy as np
import pandas as pd
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import Rows, colourings, forecast_now, gallery, hover_texts, leading
from puma_dash.ui.figures import map_figure, strength_figure
from puma_dash.ui.gesture import MODES, combine, is_empty_gesture, rows_inside
from puma_dash.ui.panels import chart, facts, job, ready, signed
from puma_dash.ui.patching import keep_plan, plan_name, plan_of_draft
from puma_dash.ui.state import Context
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
GALLERY_LIMIT = 60
HOVER_LIMIT = 5_000


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Explore"))
    rows = Rows.of(here)
    draft = here.draft()
    st.title("Explore")
    st.caption(text.PSI_SENTENCE)
    left, right = st.columns([2.1, 1], gap="medium")
    with left:
        the_map(here, rows, draft)
    with right:
        tray(here, rows, draft)
        st.divider()
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
        if job(here, "value", f"Computing {text.escape(colour)}"):
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
    read = text.READ_MAP_PSI if categories is None else text.READ_MAP_CATEGORIES
    chart(figure, alt, read, key=key, on_select=gestured, selection_mode=["lasso", "box"])
    if note := st.session_state.pop("note", None):
        st.toast(note, icon=":material/info:")


def tray(here: Context, rows: Rows, draft: Draft) -> None:
    """What is selected, how to select by number, and what to do with it."""
    counts = st.columns(3)
    counts[0].metric("All rows", f"{rows.n:,}")
    counts[1].metric("Selected", f"{len(draft.selection):,}")
    counts[2].metric("Marked", f"{draft.marked:,}")
    top_at, button_at = st.columns([1, 2], vertical_alignment="bottom")
    k = top_at.number_input(
        "How many of the most harmful", 1, rows.n, min(50, rows.n), key="top_k", label_visibility="collapsed"
    )
    label, psi = leading(rows)
    if button_at.button(
        f"{k:,} most harmful",
        icon=":material/trending_down:",
        width="stretch",
        help=f"For {text.escape(label)}.",
    ):
        worst = np.argsort(psi, kind="stable")[: int(k)]
        here.edit(lambda draft: draft.selecting(worst, f"select the {k} most harmful"))
        st.rerun()

    history = here.history()
    undo, redo, deselect = st.columns([1, 1, 2])
    if undo.button(
        "",
        icon=":material/undo:",
        key="undo",
        width="stretch",
        disabled=history.undoes is None,
        help=f"Undo: {history.undoes}" if history.undoes else "Nothing to undo",
    ):
        here.update(lambda history: history.undone())
        st.rerun()
    if redo.button(
        "",
        icon=":material/redo:",
        key="redo",
        width="stretch",
        disabled=history.redoes is None,
        help=f"Redo: {history.redoes}" if history.redoes else "Nothing to redo",
    ):
        here.update(lambda history: history.redone())
        st.rerun()
    if deselect.button(
        "Deselect", icon=":material/deselect:", disabled=not len(draft.selection), width="stretch"
    ):
        here.edit(lambda draft: draft.selecting(np.empty(0, int), "deselect"))
        st.rerun()

    if not len(draft.selection):
        st.info("Draw around rows on the map, or select the most harmful ones.")
    else:
        chosen = draft.selection
        psi = rows.psi[chosen]
        labels, sizes = np.unique(rows.target[chosen], return_counts=True)
        order = np.argsort(-sizes)[:5]
        mix = ", ".join(f"{text.escape(rows.classes[labels[i]])}: {sizes[i]:,}" for i in order)
        facts(
            [
                ("Mean psi (cross-entropy)", signed(psi.mean(), 3) + f", {np.mean(psi < 0):.0%} harmful"),
                ("Labels", mix + (" and others" if len(labels) > 5 else "")),
            ]
        )
    nothing = not len(draft.selection)
    if st.button("Mark remove", type="primary", icon=":material/delete:", disabled=nothing, width="stretch"):
        here.edit(Draft.marking_remove)
        st.rerun()
    factor_at, up_at = st.columns([1, 1.4], vertical_alignment="bottom")
    e = factor_at.number_input(
        "Extra weight", 0.1, 10.0, 1.0, 0.5, key="extra", help="1 counts each row twice."
    )
    if up_at.button("Mark up-weight", icon=":material/arrow_upward:", disabled=nothing, width="stretch"):
        here.edit(lambda draft: draft.marking_upweight(float(e)))
        st.rerun()
    both = np.isin(draft.marked_rows, draft.selection, assume_unique=True)
    if st.button("Unmark selected", disabled=not both.any(), width="stretch"):
        here.edit(lambda draft: draft.unmarking(draft.selection))
        st.rerun()


def forecast(here: Context, rows: Rows, draft: Draft) -> None:
    """The forecast of the marked rows: at once from psi, refined on request; then the way to the patch."""
    st.subheader("Forecast")
    if not draft.marked:
        st.caption("Mark rows to see what patching them away is predicted to do.")
        return
    plan = plan_of_draft(draft)
    refined = here.job("forecast")
    if refined is not None and refined.params.get("plan") == plan_name(plan):
        if job(here, "forecast", "Refining the forecast"):
            st.dataframe(text.forecast_table(refined.result["metrics"]), hide_index=True)
            st.caption(
                f"Predicted on {refined.result['diagnostics']['n']:,} validation rows, with compensation; "
                f"{refined.result['flips']:,} of them change class."
            )
            strength_chart(here, refined.result["strengths"], plan)
    else:
        change = forecast_now(rows, draft)
        st.metric(
            "Validation cross-entropy, by the sum of psi",
            f"{rows.value + change:.4f} nats",
            f"{change:+.4f} nats",
            delta_color="inverse",
            help=f"From {rows.value:.4f}: psi of {draft.marked:,} marked rows, summed, over n = {rows.n:,}.",
        )
        if st.button("Refine", icon=":material/query_stats:", width="stretch"):
            here.start("forecast", {"plan": keep_plan(plan)})
            st.rerun()
    if st.button(
        f"Patch {draft.marked:,} rows", type="primary", icon=":material/arrow_forward:", width="stretch"
    ):
        st.switch_page("pages/3_Patch.py", query_params=here.query)


def strength_chart(here: Context, strengths: dict, plan: dict) -> None:
    """The refined forecast of what must hold, at every strength, with its rails."""
    table = pd.DataFrame(**strengths)
    label = {name: here.criteria[name]["label"] for name in plan["hold"]}
    changes = {label[name]: table[name] for name in plan["hold"]}
    rails = {label[name]: plan["tolerance"].get(name, 0.0) for name in plan["hold"]}
    given = (table.index, changes, rails)
    figure = strength_figure(*given, at=plan["strength"], title="Predicted change against strength")
    alt = text.strength_alt(*given, at=plan["strength"])
    chart(figure, alt, text.READ_STRENGTH, key="forecast-strength")


def details(here: Context, rows: Rows, draft: Draft) -> None:
    """The selected rows, most harmful first."""
    st.subheader("Selected rows")
    if not len(draft.selection):
        st.caption("Nothing is selected.")
        return
    chosen = draft.selection
    chosen = chosen[np.argsort(rows.psi[chosen], kind="stable")]
    st.caption(
        f"{min(len(chosen), GALLERY_LIMIT):,} shown of {len(chosen):,} selected of {rows.n:,}, "
        "most harmful first."
    )
    frame, columns = gallery(rows, chosen[:GALLERY_LIMIT], draft)
    st.dataframe(
        frame, hide_index=True, column_config=columns, row_height=52 if rows.images is not None else None
    )
    st.download_button(
        f"Export {len(chosen):,} row numbers",
        "\n".join(["row", *map(str, draft.selection.tolist())]),
        f"{here.source.replace(':', '-')}-selected.csv",
        "text/csv",
        icon=":material/download:",
    )


main()
