"""What a patch will cost: asked of the worker once for all plans of one shape, said before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from puma_dash.ui.panels import POLL_SECONDS, duration, size
from puma_dash.ui.patching import keep_plan
from puma_dash.ui.state import Context, entry, jobs
from puma_dash.ui.text import escape
from puma_dash.workspace.evidence import REFERENCES
from puma_dash.workspace.store import key

SHAPE = ("hold", "method", "steps")
"""What of a plan its cost depends on; how many rows it names hardly counts."""


def cost(here: Context, plan: dict[str, Any], device: str) -> dict[str, Any] | None:
    """Seconds, bytes and device of ``plan``, and the held criteria now; None until the worker has said so."""
    name = key("estimate", here.index.overview, {part: plan[part] for part in SHAPE}, device)
    slot = f"estimate {plan['method']}"
    return _asked(here, slot, "estimate", name, lambda: {"plan": keep_plan(plan), "device": device})


def evidence_cost(here: Context, device: str) -> dict[str, Any] | None:
    """Seconds, bytes and device of removal evidence on a patch; None until the worker has said so."""
    name = key("estimate of evidence", here.index.overview, REFERENCES, device)
    return _asked(here, "estimate evidence", "evidence_estimate", name, lambda: {"device": device})


def _asked(
    here: Context, slot: str, task: str, name: str, params: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """What ``task`` has put into the cache under ``name``; None until then, while the page says so."""
    found = entry(name)
    if found is not None:
        return found.info
    state = here.job(slot)
    if state is None or state.params.get("name") != name:
        here.start(task, {**params(), "name": name}, slot)
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
    about = _about(info["seconds"])
    return f"{about.capitalize()}, {size(info['bytes'])} on {info['device']}, with the comparison."


def evidence_cost_sentence(info: dict[str, Any]) -> str:
    """How many models will be trained, how long that will take, and where."""
    models = f"Trains {2 * REFERENCES} models, {REFERENCES} with the rows and {REFERENCES} without"
    shared = "Those trained before are not trained again; all methods on the same plan share them."
    where = info["device"]
    if "refused" in info:
        return f"{models}, by the project's own trainer: how long it takes on {where} is not known. {shared}"
    return f"{models}: {_about(info['seconds'])} one by one, {size(info['bytes'])} on {where}. {shared}"


def _about(seconds: float) -> str:
    if seconds < 1:
        return "under 1 s"
    return f"about {duration(seconds) if seconds >= 10 else f'{seconds:.0f} s'}"
