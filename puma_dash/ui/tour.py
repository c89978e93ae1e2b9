"""The tour: six sentences that lead a person who has never seen the app through its whole path.

Where the tour stands follows from the draft and the ledger alone, so that it survives a refresh and cannot
disagree with what is on the screen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from puma_dash.ui import PRESENT
from puma_dash.ui.state import ledger

if TYPE_CHECKING:
    from puma_dash.ui.state import Context


class Stop(NamedTuple):
    """One stop of the tour: where to be, what to see there, what to press next."""

    page: str
    see: str
    press: str


TOUR = (
    Stop(
        "pages/2_Explore.py",
        "Each dot is a handwritten digit that the model learned from, and 100 of the 1 000 carry a wrong "
        "label. Orange dots make it worse on digits it has never seen.",
        "Press **50 most harmful**, or draw around a patch of orange.",
    ),
    Stop(
        "pages/2_Explore.py",
        "These are the suspects. Below the map are their pictures: many are plainly not what their label "
        "says.",
        "Press **Mark remove**.",
    ),
    Stop(
        "pages/2_Explore.py",
        "The forecast says what taking them away is expected to do, before anything is changed.",
        "Press **Patch** with the number of rows.",
    ),
    Stop(
        "pages/3_Patch.py",
        "A patch takes their influence out of the model in about a second. Nothing is trained again, and "
        "what must not get worse is held.",
        "Press **Patch: remove** with their number.",
    ),
    Stop(
        "pages/4_Compare.py",
        "Here is what it fixed and what it broke, with intervals, and what had been predicted.",
        "Press **Accept**: only now is the test split opened, and it is counted.",
    ),
    Stop(
        "pages/4_Compare.py",
        "The test split, which nothing was chosen by, has the last word. The version is kept, with who, "
        "when and why; it can be brought back at any time.",
        "Press **Report** for the page that goes to those who decide.",
    ),
)


def wanted() -> bool:
    """Whether to show the tour: the server was started with it, and the visitor has not put it away."""
    return PRESENT in os.environ and not st.session_state.get("tour put away", False)


def stop_of(*, selected: bool, marked: bool, on_patch_page: bool, patched: bool, accepted: bool) -> int:
    """The number of the stop in ``TOUR`` that what has been done so far leads to."""
    if patched:
        return 5 if accepted else 4
    if marked:
        return 3 if on_patch_page else 2
    return 1 if selected else 0


def show(here: Context, page: str) -> None:
    """Draws the present stop, where the tour is on."""
    history = here.history()
    draft = history.now
    decision = ledger().decision(history.patch) if history.patch else None
    number = stop_of(
        selected=len(draft.selection) > 0,
        marked=draft.marked > 0,
        on_patch_page=page == "Patch",
        patched=bool(history.patch),
        accepted=decision is not None and decision.kind == "accepted",
    )
    stop = TOUR[number]
    with st.container(border=True):
        told, away = st.columns([12, 1])
        told.markdown(f"**{number + 1} of {len(TOUR)}**  {stop.see}  \n:material/arrow_forward: {stop.press}")
        if away.button(
            "", icon=":material/close:", key="tour-away", type="tertiary", help="Put the tour away"
        ):
            st.session_state["tour put away"] = True
            st.rerun()
        if page not in stop.page:
            told.page_link(stop.page, label="Take me there", query_params=here.query)
