"""Parts of the Health page: the way to training rows, a figure's card, and what is computed on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import streamlit as st

from puma_dash.core.evaluation import estimates
from puma_dash.core.evaluation.estimates import Estimate
from puma_dash.ui import health, health_figures
from puma_dash.ui.explore import Rows, main_psi
from puma_dash.ui.findings import FEW, interval
from puma_dash.ui.health import Held, Slice
from puma_dash.ui.panels import SIDE, chart, duration, job, plain_number, tall
from puma_dash.ui.state import Context, entry
from puma_dash.ui.text import escape, percent

if TYPE_CHECKING:
    import pandas as pd

ICONS = {"ok": ":material/check_circle:", "note": ":material/info:", "warning": ":material/warning:"}
TICKS = 40
"""Pixels of the column with the circles."""
STATUSES = {"warning": "warnings", "note": "notes", "ok": "fine"}


def explore_these(
    here: Context,
    found: Slice,
    key: str,
    label: str = "",
    kind: Literal["primary", "secondary"] = "secondary",
) -> None:
    """The way from validation rows to the training rows behind them: psi of the loss on exactly these."""
    n = len(found.rows)
    if st.button(
        label or f"Explore these {n:,} row{'s' * (n != 1)}",
        key=f"explore-{key}",
        type=kind,
        icon=":material/travel_explore:",
        help="Computes the influence of every training row on the loss of exactly these validation rows.",
    ):
        record = {"criterion": here.task.criterion, "split": "validation", "rows": found.rows.tolist()}
        here.start("value", {"method": "psi", "criterion": record, "label": found.name})
        here.keep("colour", f"psi of {found.name}")
        st.switch_page("pages/2_Explore.py", query_params=here.query)


def card(label: str, found: Estimate, as_percent: bool, told: str, width: int = 148) -> None:
    """One figure with its interval; ``told`` goes behind the question mark."""
    value = percent(found.value) if as_percent or np.isnan(found.value) else plain_number(found.value)
    under = interval(found, as_percent)
    told = f"n = {found.n:,}. {escape(told)}"
    st.metric(label, value, under, delta_color="off", delta_arrow="off", help=told, border=True, width=width)


def slices_caption(how: str, ranked: int) -> None:
    """Says how slices are sorted, and how far to believe the first of them."""
    st.caption(
        f"Sorted by evidence: {how}. Of {ranked:,} slices, about {max(1, round(0.05 * ranked)):,} would fall "
        "below p = .05 by chance alone, so p is corrected for that (Holm). Slices of fewer than "
        f"{FEW} rows are not ranked. Columns of numbers are cut into quarters. Click a line's circle "
        "to pick it."
    )


def pick_slice(here: Context, shown: pd.DataFrame, config: dict[str, Any]) -> int:
    """The number of the line that is picked of a list of slices, kept beyond a refresh."""
    names = shown["name"].tolist()
    kept = here.view.get("slice")
    line = names.index(kept) if kept in names else 0
    longest = int(shown["name"].str.len().max()) if len(shown) else 0
    columns = {
        "n": st.column_config.NumberColumn("n", format="localized", width=48),
        "interval": st.column_config.TextColumn("95 % interval", width=92),
        "p": st.column_config.TextColumn("Evidence", width=78, help="p-value, corrected (Holm)."),
        **config,
    }
    room = SIDE - TICKS - sum(column["width"] for column in columns.values())
    name = st.column_config.TextColumn("Slice", width=min(max(104, 7 * longest), room))

    def pick() -> None:
        lines = st.session_state["slices"]["selection"]["rows"]
        if lines and lines[0] < len(names):
            here.keep("slice", names[lines[0]])

    st.dataframe(
        shown,
        key="slices",
        hide_index=True,
        height=tall(len(shown)),
        on_select=pick,
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [line]}},
        column_config={"name": name, **columns},
    )
    return line


def influence(here: Context) -> None:
    """How psi is spread over the training rows; this chart's rows are training rows."""
    st.subheader("Influence")
    psi = Rows.of(here).psi
    harmful, valuable, limits = health.tails(psi)
    top = health.top_share(psi)
    figure = health_figures.psi_figure(psi, limits, title=f"1 % of rows carry {100 * top:.0f} % of |psi|")
    alt = health_figures.psi_alt(psi, len(harmful), len(valuable))
    chart(figure, alt, health_figures.READ_PSI, key="psi")
    st.markdown(
        f"**Below −{health.FAR:g} robust deviations**: {len(harmful):,} of {len(psi):,} training rows "
        f"({percent(len(harmful) / len(psi))}); above +{health.FAR:g}: {len(valuable):,}"
    )
    if len(harmful) and st.button(
        f"Explore these {len(harmful):,} training rows", key="explore-tail", icon=":material/travel_explore:"
    ):
        here.edit(lambda draft: draft.selecting(harmful, "select the harmful tail"))
        here.keep("colour", f"psi of {here.main['label']}")
        st.switch_page("pages/2_Explore.py", query_params=here.query)


def checks(here: Context) -> None:
    """How far to believe these numbers."""
    st.subheader("Checks")
    found = entry(here.index.findings.get("checks", ""))
    if found is None:
        valued = entry(here.index.values.get(main_psi(here), ""))
        cost = "" if valued is None else f" ({duration(2 * valued.info['seconds'])} as last measured)"
        st.markdown(
            "Is the model at a minimum of its objective, does it answer the same twice, do rows repeat or "
            f"leak into validation or test? Takes about as long as psi of two criteria{cost}. Of the test "
            "split only the inputs are compared with training; no prediction is looked at."
        )
        running = here.job("checks")
        if running is None or running.status == "done":
            if st.button("Run the checks", icon=":material/fact_check:"):
                here.start("checks", {})
                st.rerun()
        elif job(here, "checks", "Checking the project"):
            st.rerun()
        return
    findings = found.info["findings"]
    statuses = [finding["status"] for finding in findings]
    st.caption(", ".join(f"{statuses.count(status)} {called}" for status, called in STATUSES.items()) + ".")
    lines = [
        f"{ICONS[status]} **{escape(finding['check'].capitalize())}** ({status}) "
        + escape(f"{finding['sentence']} {finding['advice']}")
        for status in STATUSES
        for finding in findings
        if finding["status"] == status
    ]
    st.markdown("  \n".join(lines))


def robustness(here: Context, held: Held) -> None:
    """Accuracy on rows that were moved a little to where the model errs most; computed on request only."""
    st.subheader("Robust accuracy")
    assert here.overview is not None
    facts = here.overview.info["criteria"]["adversarial"]
    if facts["refused"] is not None:
        st.caption(escape(facts["refused"]))
        return
    found = entry(here.index.findings.get("robustness", ""))
    epsilon_at, button_at = st.columns([1, 1.4], vertical_alignment="bottom")
    epsilon = epsilon_at.number_input(
        "Moved by up to", 0.0, 1e6, 0.1, 0.05, key="epsilon", help="Of each input, in its own unit."
    )
    if button_at.button("Measure", icon=":material/security:", width="stretch"):
        here.start("robustness", {"epsilon": float(epsilon)})
        st.rerun()
    running = here.job("robustness")
    if running is not None and job(here, "robustness", "Moving validation rows to where the model errs"):
        here.forget("robustness")
        st.rerun()
    if found is None:
        st.caption(
            f"Costs 11 passes over {held.n:,} validation rows, 10 of them with gradients (PGD, 10 steps)."
        )
        return
    right = found.arrays["right"]
    card("Robust accuracy", estimates.share(right), True, "Under PGD. Interval: Wilson.", width=180)
    lost = np.flatnonzero(held.correct & ~right)
    moved = found.info["epsilon"]
    st.markdown(
        f"Moved by up to {moved:g}, {len(lost):,} of {held.correct.sum():,} right answers turn wrong."
    )
    if len(lost):
        explore_these(here, Slice(f"answers lost when moved by {moved:g}", lost), "lost")
