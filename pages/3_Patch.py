"""Patch: review the marks, say what must hold, compute the patch in the background."""

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from puma_dash.core.task import REGRESSION
from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.compare import Record, binding_sentence
from puma_dash.ui.cost import cost, cost_sentence
from puma_dash.ui.explore import Rows, forecast_now, gallery, ranking
from puma_dash.ui.forecast import strength_chart
from puma_dash.ui.method_texts import UNLEARNERS
from puma_dash.ui.panels import job, plain_number, ready, signed
from puma_dash.ui.patching import (
    DEFAULTS,
    LINEAR,
    STRONGEST,
    WHOLE,
    at_any_strength,
    cautions,
    headline,
    keep_plan,
    plan_name,
    plan_of_draft,
    rails_forecast,
    unusable,
)
from puma_dash.ui.state import Context, jobs
from puma_dash.workspace.drafts import Draft

REVIEW_LIMIT = 500
FEW = 10
"""Rows that are shown without scrolling."""
SMALL = 20_000
"""Parameters up to which several steps take no time to speak of."""


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Patch"))
    st.title("Patch")
    rows, draft = Rows.of(here), here.draft()
    if not draft.marked:
        st.info("No rows are marked yet. Select rows on the map and mark what is to happen to them.")
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
    left, right = st.columns([1.35, 1], gap="medium")
    with left:
        impossible = warned(here, rows, draft)
        review(here, rows, draft)
    with right:
        plan = settings(here, rows, draft, impossible)
    if plan["method"] in LINEAR and not impossible:
        with left:
            predicted(here, plan)


def warned(here: Context, rows: Rows, draft: Draft) -> bool:
    """What to look at first, each with what can be done about it; whether the patch would be refused."""
    found = cautions(rows, draft)
    for number, caution in enumerate(found):
        kind, icon = (st.error, ":material/block:") if caution.stops else (st.warning, ":material/warning:")
        if not caution.action:
            kind(text.escape(caution.text), icon=icon)
            continue
        told, button = st.columns([3, 1], vertical_alignment="center")
        with told:
            kind(text.escape(caution.text), icon=icon)
        if button.button(caution.action, key=f"caution-{number}", width="stretch"):
            here.edit(caution.settled)
            st.rerun()
    return any(caution.stops for caution in found)


def review(here: Context, rows: Rows, draft: Draft) -> None:
    """The marked rows; each set and each row can be taken out of it."""
    st.subheader("What changes")
    sets = {
        "Remove": draft.remove,
        "Up-weight": draft.upweight.rows,
        "Relabel": draft.relabel.rows,
    }
    sets = {name: marked for name, marked in sets.items() if len(marked)}
    scores, ranked_by = ranking(here, rows)
    for tab, (name, marked) in zip(
        st.tabs([f"{n} {len(m):,}" for n, m in sets.items()]), sets.items(), strict=True
    ):
        with tab:
            chosen = marked[np.argsort(scores[marked], kind="stable")][:REVIEW_LIMIT]
            frame, columns = gallery(rows, chosen, draft)
            if name == "Relabel":
                after = dict(draft.relabel.items())
                what = here.task.target
                new = rows.answers.words(np.array([after[row] for row in chosen.tolist()]))
                frame.insert(frame.columns.get_loc(what) + 1, f"{what} after", new)
                frame = frame.rename(columns={what: f"{what} before"})
            frame = frame.drop(columns="mark") if name != "Up-weight" else frame
            event = st.dataframe(
                frame,
                hide_index=True,
                column_config=columns,
                height=430 if len(chosen) > FEW else "content",
                on_select="rerun",
                selection_mode="multi-row",
                key=f"review-{name}-{here.draft_id}-{here.history().at}",
            )
            picked = chosen[[row for row in event["selection"]["rows"] if row < len(chosen)]]
            shown = f"{len(chosen):,} of {len(marked):,} rows, "
            by = text.escape(ranked_by)
            st.caption(f"{shown}most harmful first, by {by}. Tick rows to take them out.")
            buttons = st.container(horizontal=True)
            if buttons.button(
                f"Unmark {len(picked):,} ticked",
                key=f"unmark-{name}",
                icon=":material/close:",
                disabled=not len(picked),
            ):
                here.edit(lambda draft, picked=picked: draft.unmarking(picked))
                st.rerun()
            if buttons.button(
                f"Unmark all {len(marked):,}",
                key=f"discard-{name}",
                icon=":material/clear_all:",
            ):
                here.edit(lambda draft, marked=marked: draft.unmarking(marked))
                st.rerun()


def settings(here: Context, rows: Rows, draft: Draft, impossible: bool) -> dict[str, Any]:
    """The plan: what must hold, how, where; above them the button that says what it does, and its cost."""
    box = st.container(border=True)
    last = {
        **DEFAULTS,
        "hold": [here.task.criterion],
        "steps": 3 if here.overview.info["parameters"] <= SMALL else 1,
        **here.history().settings,
    }
    tried = Record.of(here.history().patch)
    if tried is not None and (told := binding_sentence(tried.info, here.criteria)):
        st.info(f"The last patch: {text.escape(told)}", icon=":material/history:")
    refused = unusable(here.overview.info["methods"], draft.upweight)
    method = method_choice(last["method"], refused)
    impossible = impossible or method in refused
    chosen: dict[str, Any] = {"method": method, **held(here, rows, last)}
    below = st.container()
    if method == "puma":
        chosen |= puma_settings(last)
    else:
        st.caption(f"{text.KNOWS['whole' if method in WHOLE else 'strength']} {text.NOT_HELD}")
        if method not in WHOLE:
            chosen["strength"] = strength_slider(last)
    device = device_choice()
    if any(here.history().settings.get(name) != value for name, value in chosen.items()):
        here.update(lambda history: replace(history, settings={**history.settings, **chosen}))
    plan = plan_of_draft(draft, here.criteria, **chosen)
    with box:
        known = None if impossible else cost(here, plan, device)
        if method in LINEAR and not impossible:
            change, main = forecast_now(rows, draft) * chosen["strength"], here.main
            relabelled = ", relabels not counted" if len(draft.relabel) else ""
            st.markdown(
                f"Sum of psi: **{signed(change)} {main['unit']}** of validation {main['label']} (now "
                f"{plain_number(rows.value, 4)}), before compensation{relabelled}."
            )
        if known is not None:
            st.markdown(cost_sentence(known))
        if st.button(
            headline(draft, method),
            type="primary",
            icon=":material/healing:",
            width="stretch",
            shortcut=text.KEYS["patch"],
            disabled=impossible,
        ):
            expected = {"expected": known["seconds"]} if known and "seconds" in known else {}
            here.start("patch", {"plan": keep_plan(plan), "device": device, "seed": 0, **expected})
            st.rerun()
        st.caption("Nothing becomes the current version until you accept it.")
    with below:
        standing(here, known, chosen)
    return plan


def method_choice(last: str, refused: dict[str, str]) -> str:
    """The method that carries the plan out; those that cannot are listed with the reason."""
    methods = list(text.METHODS)
    method = st.selectbox(
        "Method",
        methods,
        methods.index(last),
        format_func=lambda key: text.METHODS[key] + " (not here)" * (key in refused),
        key="method",
    )
    about = UNLEARNERS[method]
    st.caption(f"{about.idea} {about.misleads}")
    if method in refused:
        st.warning(f"Not here: {text.escape(refused[method])}", icon=":material/block:")
    if refused:
        with st.expander(f"{len(refused)} of {len(methods)} methods cannot be used here"):
            st.markdown(
                "\n".join(f"- **{text.METHODS[key]}**: {text.escape(why)}" for key, why in refused.items())
            )
    return method


def held(here: Context, rows: Rows, last: dict) -> dict:
    """Which criteria must not get worse, and by how much they may."""
    criteria, most, step = here.criteria, 10.0, 0.005
    if here.task is REGRESSION:  # in units of the data's own: a step is about a hundredth
        most, step = None, 10.0 ** np.floor(np.log10(max(rows.value, 1e-9) / 50))
    hold = st.multiselect(
        "Must not get worse",
        list(criteria),
        default=[name for name in last["hold"] if name in criteria],
        format_func=lambda name: criteria[name]["label"],
        key="hold",
        help="Measured on validation after the patch. Only PUMA holds it: it compensates more, then lowers "
        "the strength.",
    )
    tolerance = {}
    for name in hold:
        tolerance[name] = st.number_input(
            f"{criteria[name]['label']}: may get worse by ({criteria[name]['unit']})",
            0.0,
            most,
            last["tolerance"].get(name, 0.0),
            float(step),
            format="%.4f",
            key=f"tolerance-{name}",
        )
    return {"hold": hold, "tolerance": {name: value for name, value in tolerance.items() if value > 0}}


def standing(here: Context, known: dict | None, chosen: dict) -> None:
    """Where the held criteria stand now, and where each ends at its tolerance."""
    if known is None or not chosen["hold"]:
        return
    lines = []
    for name in chosen["hold"]:
        now = known["now"].get(name)
        if now is not None:
            facts = here.criteria[name]
            most = now + chosen["tolerance"].get(name, 0.0)
            now, most = plain_number(now, 4), plain_number(most, 4)
            lines.append(f"{text.escape(facts['label'])} **{now}**, at most {most} ({facts['unit']})")
    if lines:
        st.caption("On validation now: " + "; ".join(lines) + ".")


def puma_settings(last: dict) -> dict:
    """What only PUMA takes: strength, steps, compensation."""
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
        "strength": strength,
        "steps": steps,
        "intent": intent,
        "options": {"sparsity": sparsity, "two_sided": two_sided},
    }


def strength_slider(last: dict) -> float:
    """How much of the removal is asked for."""
    return st.slider(
        "Strength", 0.1, STRONGEST, last["strength"], 0.1, key="strength", help="1 is the whole removal."
    )


def predicted(here: Context, plan: dict) -> None:
    """The predicted change of what must hold against strength, with its rails; computed when asked for."""
    if not plan["hold"]:
        return
    st.subheader("What to expect")
    curve = at_any_strength(plan)
    state = here.job("strengths")
    if state is None or state.params.get("plan") != plan_name(curve):
        if st.button("Predict against strength", icon=":material/query_stats:"):
            here.start("forecast", {"plan": keep_plan(curve)}, "strengths")
            st.rerun()
        return
    if not job(here, "strengths", "Predicting the change at every strength"):
        return
    names = list(state.result["refined"])
    strength_chart(here, state.result["strengths"], names, plan, key="strengths", told=rails_forecast)


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
