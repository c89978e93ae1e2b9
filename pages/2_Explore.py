"""Explore: every training row on a map, coloured by its influence; lasso, mark, see the forecast."""

import numpy as np
import pandas as pd
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import Rows, forecast_now, gallery
from puma_dash.ui.explore_map import the_map
from puma_dash.ui.figures import strength_figure
from puma_dash.ui.panels import chart, facts, job, ready, signed
from puma_dash.ui.patching import keep_plan, plan_name, plan_of_draft
from puma_dash.ui.state import Context
from puma_dash.workspace.drafts import Draft

GALLERY_LIMIT = 60


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Explore"))
    st.title("Explore")
    st.caption(text.PSI_SENTENCE)
    st.session_state["arriving"] = True
    workbench(here, Rows.of(here), here.draft().marked)


@st.fragment
def workbench(here: Context, rows: Rows, marked: int) -> None:
    """Everything that a gesture changes; a gesture reruns nothing else.

    After a gesture the count comes first and the map, which takes the browser longest, follows; on arrival
    the map comes first, because the browser has to load what draws it.
    """
    draft = here.draft()
    if draft.marked != marked:
        st.rerun()  # the marks are told outside as well
    left, right = st.columns([2.1, 1], gap="medium")
    parts = [(right, tray), (right, forecast), (left, the_map)]
    if st.session_state.pop("arriving", False):
        parts = parts[-1:] + parts[:-1]
    for place, part in parts:
        with place:
            part(here, rows, draft)
    st.divider()
    details(here, rows, draft)


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
    psi = rows.psi[chosen]
    if len(chosen) > GALLERY_LIMIT:
        chosen = chosen[psi <= np.partition(psi, GALLERY_LIMIT)[GALLERY_LIMIT]]
    shown = chosen[np.argsort(rows.psi[chosen], kind="stable")][:GALLERY_LIMIT]
    st.caption(
        f"{len(shown):,} shown of {len(draft.selection):,} selected of {rows.n:,}, most harmful first."
    )
    frame, columns = gallery(rows, shown, draft)
    st.dataframe(
        frame, hide_index=True, column_config=columns, row_height=52 if rows.images is not None else None
    )
    st.download_button(
        f"Export {len(draft.selection):,} row numbers",
        lambda: "\n".join(["row", *map(str, draft.selection.tolist())]),
        f"{here.source.replace(':', '-')}-selected.csv",
        "text/csv",
        icon=":material/download:",
    )


main()
