"""Patch: review the marks, say what must hold, compute the patch in the background."""

from dataclasses import replace

import numpy as np
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import Rows, forecast_now, gallery
from puma_dash.ui.figures import histogram_figure
from puma_dash.ui.panels import chart, job, ready
from puma_dash.ui.patching import headline, plan_key, plan_of_draft, warnings
from puma_dash.ui.state import Context, jobs
from puma_dash.workspace.drafts import Draft

REVIEW_LIMIT = 200


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Patch"))
    st.title("Patch")
    rows, draft = Rows.of(here), here.draft()
    if not draft.marked:
        st.info("No rows are marked yet. Select rows on the map and mark them to be removed or up-weighted.")
        st.page_link(
            "pages/2_Explore.py",
            label="Go to the map",
            icon=":material/scatter_plot:",
            query_params=here.query,
        )
        return
    state = here.job("patch")
    if state is not None:
        if job(here, "patch", f"Patching {draft.marked:,} rows"):
            here.update(lambda history: replace(history, patch=state.result["patch"]))
            here.forget("patch")
            st.switch_page("pages/4_Compare.py", query_params=here.query)
        if state.live:
            return
    left, right = st.columns([1.4, 1], gap="large")
    with left:
        review(here, rows, draft)
    with right:
        settings(here, rows, draft)


def review(here: Context, rows: Rows, draft: Draft) -> None:
    """The marked rows, each set discardable, with warnings."""
    st.subheader("What changes")
    for warning in warnings(rows, draft):
        st.warning(text.escape(warning), icon=":material/warning:")
    for name, marked in (("to remove", draft.remove), ("to up-weight", tuple(draft.upweight))):
        if not marked:
            continue
        title_at, button_at = st.columns([3, 1], vertical_alignment="center")
        title_at.markdown(f"**{len(marked):,} rows {name}**")
        if button_at.button("Discard", key=f"discard-{name}", icon=":material/close:", width="stretch"):
            here.edit(lambda draft, marked=marked: draft.unmarking(marked))
            st.rerun()
        chosen = sorted(marked, key=lambda row: rows.psi[row])[:REVIEW_LIMIT]
        if len(chosen) < len(marked):
            st.caption(f"{len(chosen):,} shown of {len(marked):,}, most harmful first.")
        frame, columns = gallery(rows, np.array(chosen), draft)
        st.dataframe(frame, hide_index=True, column_config=columns, height=320)


def settings(here: Context, rows: Rows, draft: Draft) -> None:
    """What must hold, how, and where; then the button that says what it does."""
    st.subheader("How")
    method = st.selectbox("Method", list(text.METHODS), format_func=text.METHODS.get, key="method")
    plain = method == "retrain"
    hold = st.multiselect(
        "Must not get worse",
        list(text.CRITERIA),
        default=["cross_entropy"],
        format_func=text.CRITERIA.get,
        key="hold",
        help="Measured on validation after the patch; PUMA lowers the strength until it holds.",
    )
    tolerance = {
        name: st.number_input(
            f"{text.CRITERIA[name]}: may get worse by",
            0.0,
            10.0,
            0.0,
            0.005,
            format="%.4f",
            key=f"tolerance-{name}",
        )
        for name in hold
    }
    strength = st.slider(
        "Strength",
        0.1,
        3.0,
        1.0,
        0.1,
        key="strength",
        disabled=plain,
        help="1 is the whole removal; guard rails may lower it.",
    )
    options, steps, intent = {}, 1, "unseen"
    if method == "puma":
        steps = st.slider("Steps", 1, 10, 3, key="steps", help=text.STEPS_HELP)
        if steps > 1:
            intent = st.radio(
                "Intent", list(text.INTENTS), format_func=text.INTENTS.get, key="intent", horizontal=True
            )
        with st.expander("Compensation"):
            options["sparsity"] = st.slider(
                "Sparsity",
                0.0,
                0.95,
                0.05,
                0.05,
                key="sparsity",
                help="0: many rows a little; 0.95: few rows.",
            )
            options["two_sided"] = st.toggle(
                "Two-sided, as in the paper",
                key="two_sided",
                help="Also cancels improvements: the criterion stays where it is.",
            )
    device = device_choice()
    change = forecast_now(rows, draft) * (1 if plain else strength)
    st.caption(
        f"Predicted without compensation: {change:+.4f} nats of validation cross-entropy, negative is better."
    )
    if st.button(headline(draft, method), type="primary", icon=":material/healing:", width="stretch"):
        plan = plan_of_draft(
            draft,
            hold=hold,
            tolerance={name: value for name, value in tolerance.items() if value > 0},
            method=method,
            strength=1.0 if plain else strength,
            steps=steps,
            intent=intent,
            options=options,
        )
        here.start("patch", {"plan": plan_key(plan), "device": device, "seed": 0})
        st.rerun()
    st.caption("Nothing becomes the current version until you accept it.")
    if draft.remove:
        figure = histogram_figure(
            rows.psi, rows.mask(draft.remove), title="psi of all rows and of those to remove"
        )
        chart(
            figure,
            text.histogram_alt(rows.psi, rows.mask(draft.remove)),
            text.READ_HISTOGRAM,
            key="psi-histogram",
        )


def device_choice() -> str:
    """The device to compute on: automatic, each CUDA device by name with its free memory, CPU."""
    found = cuda_devices()
    names = {"auto": f"automatic ({found[0]['name'] if found else 'CPU'})"}
    names |= {d["id"]: f"{d['name']} ({d['id']}, {d['free'] / 2**30:.1f} GiB free)" for d in found}
    names["cpu"] = "CPU"
    return st.selectbox("Device", list(names), format_func=names.get, key="device")


def cuda_devices() -> list[dict]:
    """The CUDA devices of the server, asked of the worker once per session; none until it has answered."""
    if "devices" not in st.session_state:
        st.session_state["devices"] = jobs().submit("devices", {})
    state = jobs().state(st.session_state["devices"])
    return state.result["devices"] if state is not None and state.status == "done" else []


main()
