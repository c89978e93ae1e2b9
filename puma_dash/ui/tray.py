"""The selection tray of the Explore page: what is selected, other ways to select, and what to do with it."""

import numpy as np
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.explore import Rows
from puma_dash.ui.panels import facts, signed
from puma_dash.ui.state import Context
from puma_dash.workspace.drafts import Draft


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
    if button_at.button(f"{k:,} most harmful", icon=":material/trending_down:", width="stretch"):
        worst = np.argsort(rows.psi, kind="stable")[: int(k)]
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
