"""Workspace, the first page: from nothing to a prepared project."""

import streamlit as st

from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.panels import plain_number, preparing
from puma_dash.ui.state import Context, ledger, open_context, sources
from puma_dash.ui.text import DEMOS, METRICS, PSI_SENTENCE, escape, percent


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
    if here is not None and st.session_state.pop("opening", False):
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
        st.markdown(
            f":material/check_circle: **Data** {rows['train']:,} training, {rows['validation']:,} "
            f"validation, {rows['test']:,} test rows  \n"
            f":material/check_circle: **Model** {escape(info['summary'])}, {info['parameters']:,} "
            f"parameters, trained on {escape(info['loss'])} with weight decay "
            f"{weight_decay(info['weight_decay'])}  \n"
            f":material/check_circle: **Criterion** {here.main['label']} on validation  \n"
            ":material/check_circle: **Prepared** predictions, psi of every training row, a map"
        )
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


def weight_decay(value: float | None) -> str:
    """The weight decay as text."""
    return "unknown (taken as 0)" if value is None else f"{value:g}"


def choose() -> None:
    """The projects this server can open."""
    st.subheader("Open a project")
    names = sources()
    for column, source in zip(st.columns(max(3, len(names))), names, strict=False):
        demo = DEMOS.get(source)
        with column, st.container(border=True, height="stretch"):
            with st.container(height="stretch"):
                st.markdown(f"**{demo.title if demo else 'Your project'}**")
                st.markdown(demo.text if demo else "The one this server was started with.")
                st.caption(demo.cost if demo else escape(source))
            label = demo.button if demo else "Open it"
            if st.button(label, key=f"open-{source}", type="primary" if source == names[0] else "secondary"):
                st.session_state["opening"] = True
                open_context(source, None)
                st.rerun()
    st.markdown(
        "Your own model: write a function that returns `puma.Project(...)` and start with "
        "`puma-dash serve module:function`."
    )


main()
