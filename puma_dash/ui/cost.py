"""What a patch will cost: asked of the worker once for all plans of one shape, said before anything runs."""

from __future__ import annotations

from typing import Any

import streamlit as st

from puma_dash.ui.panels import POLL_SECONDS, duration, size
from puma_dash.ui.patching import keep_plan
from puma_dash.ui.state import Context, entry, jobs
from puma_dash.ui.text import escape
from puma_dash.workspace.store import key

SHAPE = ("hold", "method", "steps")
"""What of a plan its cost depends on; how many rows it names hardly counts."""


def cost(here: Context, plan: dict[str, Any], device: str) -> dict[str, Any] | None:
    """Seconds, bytes and device of ``plan``, and the held criteria now; None until the worker has said so."""
    name = key("estimate", here.index.overview, {part: plan[part] for part in SHAPE}, device)
    found = entry(name)
    if found is not None:
        return found.info
    slot = f"estimate {plan['method']}"
    state = here.job(slot)
    if state is None or state.params.get("name") != name:
        here.start("estimate", {"plan": keep_plan(plan), "device": device, "name": name}, slot)
        state = here.job(slot)
    if state is not None and state.live:
        _wait(state.id)
    elif state is not None and state.error:
        st.caption(f"What it will cost could not be estimated: {escape(state.error)}")
    return None


@st.fragment(run_every=POLL_SECONDS)
def _wait(job_id: str) -> None:
    state = jobs().state(job_id)
    if state is None or not state.live:
        st.rerun()
        return
    st.caption("Estimating time and memory …")


def cost_sentence(info: dict[str, Any]) -> str:
    """How long it will take, how much memory, and where."""
    if "refused" in info:
        return f"How long it takes on {info['device']} is not known: the project brings its own trainer."
    seconds = info["seconds"]
    about = (
        "Under 1 s" if seconds < 1 else f"About {duration(seconds) if seconds >= 10 else f'{seconds:.0f} s'}"
    )
    return f"{about}, {size(info['bytes'])} on {info['device']}, with the comparison."
