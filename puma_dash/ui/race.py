"""The race: what other methods make of the same plan, each run in the background when asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from puma_dash.ui.compare import Record, race_table
from puma_dash.ui.cost import cost, cost_sentence
from puma_dash.ui.evidence import ask, evidence_of, refusal, removal_table
from puma_dash.ui.panels import job
from puma_dash.ui.patching import WHOLE, keep_plan, plan_name, unusable
from puma_dash.ui.state import Context
from puma_dash.ui.text import METHODS, READ_REMOVAL, escape

RUNNERS = ("puma", "retrain", "influence", "fine_tune", "unrolled_sgd", "amnesiac", "sisa", "gradient_ascent")
ACROSS = 4


def rival_plan(plan: dict[str, Any], method: str) -> dict[str, Any]:
    """``plan`` carried out by another method with its defaults, in one step; some know no strength."""
    strength = 1.0 if method in WHOLE else plan["strength"]
    return {**plan, "method": method, "options": {}, "steps": 1, "intent": "unseen", "strength": strength}


def race(here: Context, record: Record) -> None:
    """The methods that have run side by side, and a button for each that has not."""
    st.subheader("Race")
    mine, device = record.info["plan"]["method"], record.info["diagnostics"]["device"]
    runners, waiting = {f"{METHODS[mine]} (this one)": record}, []
    for method in RUNNERS:
        if method == mine:
            continue
        finished = Record.of(here.history().races.get(f"{record.key}/{method}", ""))
        if finished is None:
            waiting.append(method)
        else:
            runners[METHODS[method]] = finished
    st.dataframe(race_table(runners), hide_index=True)
    n, split = record.validation["n"], record.validation["split"]
    st.caption(
        f"After the patch, on {split}, n = {n:,}; in brackets the 95 % interval of the change. Seconds are "
        "those of this machine, without what preparing the project has already factored."
    )
    known = {name: found for name, runner in runners.items() if (found := evidence_of(runner.key))}
    if known:
        st.dataframe(removal_table(runners, known), hide_index=True)
        st.caption(READ_REMOVAL)
    unknown = [runner for name, runner in runners.items() if name not in known]
    if unknown and not refusal(here.task, record.info["plan"]):
        ask(here, unknown, "Evidence for all that have run", "race evidence", device)
    for first in range(0, len(waiting), ACROSS):
        for column, method in zip(st.columns(ACROSS), waiting[first : first + ACROSS], strict=False):
            with column:
                _start(here, record, method, device)


def _start(here: Context, record: Record, method: str, device: str) -> None:
    """The button that lets ``method`` run, with its cost; its progress once it does."""
    plan = rival_plan(record.info["plan"], method)
    slot = f"race {method}"
    state = here.job(slot)
    if state is not None and state.params.get("plan") == plan_name(plan):
        if job(here, slot, f"{METHODS[method]} on the same plan"):
            assert state.result is not None
            entry = {f"{record.key}/{method}": state.result["patch"]}
            here.update(lambda history: replace(history, races={**history.races, **entry}))
            here.forget(slot)
            st.rerun()
        return
    assert here.overview is not None
    refused = unusable(here.overview.info["methods"], record.info["plan"]["upweight"]).get(method)
    known = None if refused else cost(here, plan, device)
    if st.button(
        f"Run: {METHODS[method]}",
        key=slot,
        icon=":material/sprint:",
        width="stretch",
        disabled=refused is not None,
    ):
        expected = {"expected": known["seconds"]} if known and "seconds" in known else {}
        here.start("patch", {"plan": keep_plan(plan), "device": device, "seed": 0, **expected}, slot)
        st.rerun()
    if known is not None:
        st.caption(cost_sentence(known))
    if refused is not None:
        st.caption(f"Not here: {escape(refused)}")
