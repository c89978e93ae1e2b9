"""The forecast of the marked rows on the Explore page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from puma_dash.core.task import CLASSIFICATION
from puma_dash.ui import text
from puma_dash.ui.compare import label_of
from puma_dash.ui.explore import Rows, forecasts_now
from puma_dash.ui.figures import strength_figure
from puma_dash.ui.panels import chart, job, main_and_side, plain_number, signed
from puma_dash.ui.patching import keep_plan, plan_name, plan_of_draft
from puma_dash.ui.state import Context
from puma_dash.workspace.drafts import Draft

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

REFINED = {"classification": "accuracy, ECE and flips", "regression": "RMSE, MAE and R²"}


def forecast(here: Context, rows: Rows, draft: Draft) -> None:
    """The forecast of the marked rows: at once from psi, refined on request; then the way to the patch."""
    if not draft.marked:
        st.caption("Mark rows to see what patching them away is predicted to do.")
        return
    with st.container(gap="xsmall"):
        asked, refined = asked_for(here, draft)
        with st.container(horizontal=True, gap="xsmall"):
            if st.button(
                f"Patch {draft.marked:,} rows",
                type="primary",
                icon=":material/arrow_forward:",
                width="stretch",
                shortcut=text.KEYS["patch"],
            ):
                st.switch_page("pages/3_Patch.py", query_params=here.query)
            if not asked:
                st.button(
                    "Refine",
                    icon=":material/query_stats:",
                    help=f"Predicts {REFINED[here.task.name]} too, with compensation, at every strength.",
                    on_click=lambda: refine(here, draft),
                )
        st.markdown(f"**Forecast** for {draft.marked:,} marked rows")
        st.table(numbers(forecast_table(here, draft, refined)), border="horizontal")
        told = "Change: the sum of psi of the marked rows."
        if len(draft.relabel) and refined is None:
            told += f" It leaves out the {len(draft.relabel):,} new labels; Refine works out what they do."
        st.caption(told)
        if asked:
            job(here, "forecast", "Refining the forecast")


def asked_for(here: Context, draft: Draft) -> tuple[bool, dict[str, Any] | None]:
    """Whether the forecast of exactly these marks was to be refined, and what was found once it is done."""
    state = here.job("forecast")
    if state is None or state.params.get("plan") != plan_name(plan_of(here, draft)):
        return False, None
    return True, state.result if state.status == "done" else None


def plan_of(here: Context, draft: Draft) -> dict[str, Any]:
    """The plan that is forecast: the marks, with the plain loss held."""
    return plan_of_draft(draft, hold=[here.task.criterion])


def refine(here: Context, draft: Draft) -> None:
    """Asks for the refined forecast, of all criteria whose psi is computed."""
    records = [here.criteria[name].get("record", name) for name in forecasts_now(here, draft)]
    here.start("forecast", {"plan": keep_plan(plan_of(here, draft)), "criteria": records})


def forecast_table(here: Context, draft: Draft, refined: dict[str, Any] | None) -> pd.DataFrame:
    """Each computed criterion: its value now, its change by the sum of psi and, once known, refined."""
    found = forecasts_now(here, draft)
    index = pd.Index([f"{here.criteria[name]['label']} ({here.criteria[name]['unit']})" for name in found])
    table = {
        "now": [value for value, _ in found.values()],
        "change": [change for _, change in found.values()],
    }
    if refined is not None:
        table["refined"] = [refined["refined"].get(name, np.nan) for name in found]
    return pd.DataFrame(table, index=index)


def numbers(table: pd.DataFrame) -> Styler:
    """A table of values and changes as it is shown: four digits, and changes with their sign."""
    changes = [name for name in ("change", "refined") if name in table]
    return table.style.format(partial(plain_number, digits=4)).format(signed, subset=changes, na_rep="–")


def refined_forecast(here: Context, rows: Rows, draft: Draft) -> None:
    """What the refined forecast adds: how all of it goes with strength, metrics, flips."""
    found = asked_for(here, draft)[1] if draft.marked else None
    if found is None:
        return
    left, right = main_and_side()
    with left:
        plan = plan_of(here, draft)
        strength_chart(here, found["strengths"], list(plan["hold"]), plan, key="forecast-strength")
    with right:
        predicted_metrics(here, found)


def predicted_metrics(here: Context, found: dict[str, Any]) -> None:
    """Metrics and flips as the refined forecast has them."""
    st.markdown("**Predicted metrics**")
    metrics = pd.DataFrame(**found["metrics"]).rename(index=text.metric)
    st.table(numbers(metrics), border="horizontal")
    flips = f"; {found['flips']:,} of them change class" if here.task is CLASSIFICATION else ""
    st.caption(f"Predicted on {found['diagnostics']['n']:,} validation rows, with compensation{flips}.")


def strength_chart(
    here: Context,
    strengths: dict[str, Any],
    names: list[str],
    plan: dict[str, Any],
    *,
    key: str,
    told: Callable[..., str] | None = None,
) -> None:
    """The refined forecast of some criteria at every strength, with their rails; ``told`` words it."""
    table = pd.DataFrame(**strengths)
    labels = {name: label_of(here.criteria, name) for name in names}
    changes = {labels[name]: table[name] for name in names}
    rails = {labels[name]: plan["tolerance"].get(name, 0.0) for name in names}
    given = (table.index, changes, rails)
    if told is not None:
        st.markdown(text.escape(told(*given, plan["strength"])))
    figure = strength_figure(*given, at=plan["strength"], title="Predicted change")
    chart(figure, text.strength_alt(*given, at=plan["strength"]), text.READ_STRENGTH, key=key)
