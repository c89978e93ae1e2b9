"""The forecast of the marked rows on the Explore page."""

import pandas as pd
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.explore import Rows, forecast_now
from puma_dash.ui.figures import strength_figure
from puma_dash.ui.panels import chart, job
from puma_dash.ui.patching import keep_plan, plan_name, plan_of_draft
from puma_dash.ui.state import Context
from puma_dash.workspace.drafts import Draft


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
