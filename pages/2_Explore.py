"""Explore: every training row on a map, coloured by its influence; lasso, mark, see the forecast."""

import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import Rows
from puma_dash.ui.explore_map import the_map
from puma_dash.ui.forecast import forecast, refined_forecast
from puma_dash.ui.gallery import gallery_page
from puma_dash.ui.panels import main_and_side, ready
from puma_dash.ui.state import Context
from puma_dash.ui.story import story
from puma_dash.ui.tray import tray


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Explore"))
    st.title("Explore")
    st.caption(text.PSI_SENTENCE)
    st.session_state["arriving"] = True
    workbench(here, Rows.of(here), here.draft().marked)


@st.fragment
def workbench(here: Context, rows: Rows, marked: int) -> None:
    """Everything that a gesture changes; a gesture reruns nothing else.

    After a gesture the count comes first and the map, which takes the browser longest, follows; on arrival
    the map comes first, because the browser has to load what draws it.
    """
    draft = here.draft()
    if draft.marked != marked:
        st.rerun()  # the marks are told outside as well
    (left, right), between, (low, beside) = main_and_side(), st.container(), main_and_side()
    parts = [(right, tray), (right, forecast), (left, the_map)]
    if st.session_state.pop("arriving", False):
        parts = parts[-1:] + parts[:-1]
    for place, part in [*parts, (between, refined_forecast), (low, gallery_page), (beside, story)]:
        with place:
            part(here, rows, draft)


main()
