"""Workspace, the first page: from nothing to a prepared project."""

import streamlit as st

from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.opening import check_rows, choose, to_read
from puma_dash.ui.panels import plain_number, preparing
from puma_dash.ui.state import Context, ledger
from puma_dash.ui.text import METRICS, PSI_SENTENCE, escape, percent


def main() -> None:
    """Draws the page."""
    here = bootstrap("Workspace")
    st.title("PUMA Dash")
    st.markdown(
        "Find the training rows that make a model fail, patch their influence away without retraining, "
        "and compare before and after."
    )
    if here is not None and here.overview is None:
        preparing(here)
        if here.job("prepare") is not None and not here.job("prepare").live:
            choose()
        return
    if here is not None and st.session_state.pop("opening", False) and not to_read(here):
        st.switch_page("pages/2_Explore.py", query_params=here.query)
    if here is not None:
        opened(here)
        versions(here)
    choose()


def opened(here: Context) -> None:
    """What is known of the open project, and the way on."""
    info = here.overview.info
    st.subheader(escape(info["name"]))
    rows = info["rows"]
    with st.container(border=True):
        with st.container(horizontal=True, gap="large"):
            st.metric("Training rows", f"{rows['train']:,}", width="content")
            for name in here.task.headline:
                value, shown = info["metrics"][name], percent if name == "accuracy" else plain_number
                st.metric(METRICS[name], shown(value), width="content")
        st.caption(f"Metrics on validation, n = {rows['validation']:,}.")
        check_rows(here)
        with st.container(horizontal=True):
            if st.button("Explore the training rows", type="primary", icon=":material/scatter_plot:"):
                st.switch_page("pages/2_Explore.py", query_params=here.query)
            if st.button("See what is wrong", icon=":material/monitor_heart:"):
                st.switch_page("pages/1_Health.py", query_params=here.query)
        st.caption(PSI_SENTENCE)


def versions(here: Context) -> None:
    """The accepted versions of the project, each with a way back to it."""
    known = ledger().versions(here.source)
    if not known.accepted:
        return
    st.subheader("Versions")
    query = {"project": here.source}
    names = {None: "original"}
    for version in known.accepted:
        when = f"{version.created:%Y-%m-%d %H:%M}"
        names[version.entry] = f"{known.name(version.entry)}, accepted {when} by {version.who}"
    names[known.current] += ", current"
    for number, name in names.items():
        if number == here.version:
            st.markdown(f":material/arrow_right: **{escape(name)}** (open)")
        else:
            asked = query if number is None else {**query, "version": str(number)}
            st.page_link("app.py", label=escape(name), icon=":material/history:", query_params=asked)


main()
