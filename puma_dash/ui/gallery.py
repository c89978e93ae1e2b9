"""The gallery of the Explore page: the selected rows, one by one; ticking them feeds the selection."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import streamlit as st

from puma_dash.core.task import CLASSIFICATION
from puma_dash.ui.answers import Classes
from puma_dash.ui.explore import Rows, gallery, ranking
from puma_dash.ui.state import Context
from puma_dash.ui.story import open_story
from puma_dash.workspace.drafts import Draft

PAGE = 60
ORDERS = ("most harmful", "most valuable", "least confident", "largest loss", "row number")
"""The third is only for classes."""


def gallery_page(here: Context, rows: Rows, draft: Draft) -> None:
    """One page of the selected rows, or of all where none is, and what to do with those ticked."""
    chosen = draft.selection if len(draft.selection) else np.arange(rows.n)
    pages = -(-len(chosen) // PAGE)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Selected rows" if len(draft.selection) else "All rows", width="content")
        orders = [order for order in ORDERS if order != "least confident" or here.task is CLASSIFICATION]
        choice = here.choosing("order", orders)
        order = st.selectbox("Sort by", orders, label_visibility="collapsed", width=170, **choice)
        page = 1
        if pages > 1:
            name = f"page of {pages}, {order}"
            page = st.pagination(
                pages,
                default=here.view.get(name, 1),
                max_visible_pages=5,
                width=260,
                key=name,
                on_change=lambda: here.keep(name, st.session_state[name]),
            )
    shown = page_of(_keys(here, rows, order)[chosen], chosen, page)
    first = (page - 1) * PAGE + 1
    whole = f"{len(chosen):,} selected of {rows.n:,}" if len(draft.selection) else f"all {rows.n:,} rows"
    st.caption(
        f"{first:,} to {first + len(shown) - 1:,} shown of {whole}, by {order}. "
        "Click a row for its story, tick rows to choose them."
    )
    frame, columns = gallery(rows, shown, draft)
    key = f"gallery-{st.session_state.get('ticking', 0)}-{zlib.crc32(shown.tobytes())}"

    def clicked() -> None:
        cells = st.session_state[key]["selection"]["cells"]
        if cells and cells[0][0] < len(shown):
            open_story(here, int(shown[cells[0][0]]))

    event = st.dataframe(
        frame,
        hide_index=True,
        column_config=columns,
        row_height=52 if rows.images is not None else None,
        height=440 if len(shown) > 10 else "auto",
        key=key,
        on_select=clicked,
        selection_mode=["multi-row", "single-cell"],
    )
    ticked = np.sort(shown[[row for row in event["selection"]["rows"] if row < len(shown)]])
    _act_on(here, draft, ticked)


def _act_on(here: Context, draft: Draft, ticked: np.ndarray) -> None:
    """What can be done with the ticked rows; once it is done, the ticks are gone."""
    count = f"{len(ticked):,} ticked"

    def button(label: str, change: Callable[[Draft], Draft], icon: str, disabled: bool = False) -> None:
        def done() -> None:
            st.session_state["ticking"] = st.session_state.get("ticking", 0) + 1
            here.edit(change)

        st.button(label, icon=f":material/{icon}:", disabled=disabled or not len(ticked), on_click=done)

    nothing = not len(draft.selection)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        st.markdown(f"**{count}**")
        button("Keep only these", lambda d: d.selecting(ticked, f"keep only {count}"), "filter_alt")
        button(
            "Take these out",
            lambda d: d.selecting(np.setdiff1d(d.selection, ticked), f"take out {count}"),
            "remove_done",
            nothing,
        )
        button("Mark to remove", lambda d: d.marking_remove(ticked), "delete")
        st.button(
            "Story",
            icon=":material/menu_book:",
            disabled=len(ticked) != 1,
            help="Of one ticked row",
            on_click=lambda: open_story(here, int(ticked[0])),
        )


def page_of(keys: np.ndarray, chosen: np.ndarray, page: int, size: int = PAGE) -> np.ndarray:
    """The rows of one page when ``chosen`` are sorted by ``keys``, lowest first; ties by row.

    Only what comes before the end of the page is sorted.

    Args:
        keys: of each of the rows (m,).
        chosen: row numbers (m,), ascending.
        page: from 1.
        size: rows on a page.
    """
    end = page * size
    if end < len(keys):
        limit = np.partition(keys, end - 1)[end - 1]
        near = np.flatnonzero(keys <= limit)
    else:
        near = np.arange(len(keys))
    order = near[np.argsort(keys[near], kind="stable")]
    return chosen[order[end - size : end]]


def _keys(here: Context, rows: Rows, order: str) -> np.ndarray:
    """What rows are sorted by (n,), lowest first."""
    if order == "most harmful":
        return ranking(here, rows)[0]
    if order == "most valuable":
        return -ranking(here, rows)[0]
    if order == "least confident" and isinstance(rows.answers, Classes):
        return rows.answers.confidence
    return -rows.loss if order == "largest loss" else np.arange(rows.n)
