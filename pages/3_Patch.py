"""Patch: review the marks, say what must hold, compute the patch in the background."""

from dataclasses import replace

import numpy as np
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import Rows, forecast_now, gallery
from puma_dash.ui.figures import histogram_figure
from puma_dash.ui.panels import chart, job, ready
from puma_dash.ui.patching import DEFAULTS, emptied, headline, keep_plan, plan_of_draft, warnings
from puma_dash.ui.state import Context, jobs
from puma_dash.workspace.drafts import Draft

REVIEW_LIMIT = 200
SMALL = 20_000
"""Parameters up to which several steps take no time to speak of."""


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
    for name, marked in (
        ("to remove", draft.remove),
        ("to up-weight", draft.upweight.rows),
        ("to relabel", draft.relabel.rows),
    ):
        if not len(marked):
            continue
        title_at, button_at = st.columns([3, 1], vertical_alignment="center")
        title_at.markdown(f"**{len(marked):,} rows {name}**")
        if button_at.button("Unmark all", key=f"discard-{name}", icon=":material/close:", width="stretch"):
            here.edit(lambda draft, marked=marked: draft.unmarking(marked))
            st.rerun()
        chosen = marked[np.argsort(rows.psi[marked], kind="stable")][:REVIEW_LIMIT]
        if len(chosen) < len(marked):
            st.caption(f"{len(chosen):,} shown of {len(marked):,}, most harmful first.")
        frame, columns = gallery(rows, chosen, draft)
        st.dataframe(frame, hide_index=True, column_config=columns, height=320)


def settings(here: Context, rows: Rows, draft: Draft) -> None:
    """What must hold, how, and where; then the button that says what it does."""
    st.subheader("How")
    last = {
        **DEFAULTS,
        "steps": 3 if here.overview.info["parameters"] <= SMALL else 1,
        **here.history().settings,
    }
    methods = list(text.METHODS)
    method = st.selectbox(
        "Method", methods, methods.index(last["method"]), format_func=text.METHODS.get, key="method"
    )
    st.caption(text.METHOD_NOTES[method])
    chosen = {"method": method}
    if method == "puma":
        chosen |= puma_settings(here.criteria, last)
    elif method == "influence":
        chosen["strength"] = strength_slider(last)
    device = device_choice()
    if method != "retrain":
        change = forecast_now(rows, draft) * chosen["strength"]
        st.caption(f"Sum of psi: {change:+.4f} nats of validation cross-entropy, before compensation.")
    impossible = bool(emptied(rows, draft))
    if st.button(
        headline(draft, method),
        type="primary",
        icon=":material/healing:",
        width="stretch",
        disabled=impossible,
    ):
        here.update(lambda history: replace(history, settings=chosen))
        plan = plan_of_draft(draft, here.criteria, **chosen)
        here.start("patch", {"plan": keep_plan(plan), "device": device, "seed": 0})
        st.rerun()
    st.caption("Nothing becomes the current version until you accept it.")
    if len(draft.remove):
        figure = histogram_figure(
            rows.psi, rows.mask(draft.remove), title="psi of all rows and of those to remove"
        )
        alt = text.histogram_alt(rows.psi, rows.mask(draft.remove))
        chart(figure, alt, text.READ_HISTOGRAM, key="psi-histogram")


def puma_settings(criteria: dict, last: dict) -> dict:
    """What only PUMA takes: what must hold, strength, steps, compensation."""
    hold = st.multiselect(
        "Must not get worse",
        list(criteria),
        default=[name for name in last["hold"] if name in criteria],
        format_func=lambda name: criteria[name]["label"],
        key="hold",
        help="Measured on validation after the patch; PUMA compensates more, then lowers the strength.",
    )
    tolerance = {}
    for name in hold:
        tolerance[name] = st.number_input(
            f"{criteria[name]['label']}: may get worse by ({criteria[name]['unit']})",
            0.0,
            10.0,
            last["tolerance"].get(name, 0.0),
            0.005,
            format="%.4f",
            key=f"tolerance-{name}",
        )
    strength = strength_slider(last)
    steps = st.slider("Steps", 1, 10, last["steps"], key="steps", help=text.STEPS_HELP)
    intents = list(text.INTENTS)
    intent = "unseen"
    if steps > 1:
        intent = st.radio(
            "Intent",
            intents,
            intents.index(last["intent"]),
            format_func=text.INTENTS.get,
            key="intent",
            horizontal=True,
        )
    with st.expander("Compensation"):
        sparsity = st.slider(
            "Sparsity",
            0.0,
            0.95,
            last["options"].get("sparsity", 0.05),
            0.05,
            key="sparsity",
            help="0: many rows a little; 0.95: few rows.",
        )
        two_sided = st.toggle(
            "Two-sided, as in the paper",
            last["options"].get("two_sided", False),
            key="two_sided",
            help="Aims to cancel improvements too, as far as other rows can.",
        )
    return {
        "hold": hold,
        "tolerance": {name: value for name, value in tolerance.items() if value > 0},
        "strength": strength,
        "steps": steps,
        "intent": intent,
        "options": {"sparsity": sparsity, "two_sided": two_sided},
    }


def strength_slider(last: dict) -> float:
    """How much of the removal is asked for."""
    return st.slider(
        "Strength", 0.1, 3.0, last["strength"], 0.1, key="strength", help="1 is the whole removal."
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
