"""Parts of a screen that several pages share: a running job, an empty page, a table of changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import ArrayLike

from puma_dash.ui.state import Context, jobs
from puma_dash.ui.text import escape
from puma_dash.workspace.jobs import JobState

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

POLL_SECONDS = 0.5
HEADER = 37
"""Pixels of the header of a table, with its border."""
SIDE = 580
"""Pixels of the right one of two containers: a table of seven columns has room."""


def no_project() -> None:
    """Says that nothing is open, and offers the demo; then stops the page."""
    st.info("No project is open yet. The demo shows the whole path on real handwritten digits.")
    if st.button("Try digits", type="primary", icon=":material/play_arrow:"):
        st.switch_page("app.py", query_params={"project": "digits"})
    st.page_link("app.py", label="Or choose another project")
    st.stop()


def ready(here: Context | None) -> Context:
    """The context, once its project is prepared; until then this draws the progress and stops the page."""
    if here is None:
        no_project()
    assert here is not None
    if here.overview is None:
        preparing(here)
        st.stop()
    return here


def preparing(here: Context) -> None:
    """The job that prepares a project: started where it was not, shown while it runs."""
    state = here.job("prepare")
    if state is None or (state.status == "done" and here.overview is None):
        here.start("prepare", {})
    job(here, "prepare", "Preparing the project: predictions, psi of every training row, a map")


def job(here: Context, task: str, title: str) -> bool:
    """Draws the last job of that kind while it runs or after it failed; True once it is done.

    While it runs only this block is drawn again, twice a second; the page follows when it ends.
    """
    state = here.job(task)
    if state is None:
        return False
    if state.live:
        running(state.id, title)
        return False
    if state.status == "done":
        return True
    _ended_badly(here, task, state)
    return False


@st.fragment(run_every=POLL_SECONDS)
def running(job_id: str, title: str) -> None:
    """Draws a live job, again and again, until it ends; then the page follows."""
    state = jobs().state(job_id)
    if state is None or not state.live:
        st.rerun()
        return
    with st.container(border=True):
        st.markdown(f"**{title}**")
        if state.status == "queued":
            waiting = jobs().position(job_id)
            st.progress(0.0, "Waiting for the worker" + (f", {waiting} before this" if waiting else ""))
        else:
            left = time_left(state)
            more = "" if left is None else f", about {duration(left)} left"
            st.progress(state.fraction, f"{state.message} ({duration(state.seconds)} so far{more})")
        if st.button("Cancel", key=f"cancel-{job_id}", icon=":material/stop_circle:"):
            jobs().cancel(job_id)


def time_left(state: JobState) -> float | None:
    """How many seconds a job still takes, where its pace and the estimate made before it agree.

    The estimate is the job's ``expected`` seconds; where the two differ more than twofold, nobody knows.
    """
    expected, pace = state.params.get("expected"), state.seconds_left
    planned = (expected or 0.0) - state.seconds
    if pace is None or planned <= 0 or not 0.5 <= pace / planned <= 2:
        return None
    return math.sqrt(pace * planned)


def mend(problems: Iterable[str]) -> None:
    """Says what is wrong, a sentence each with what to try; lines below a sentence are code to run."""
    for problem in problems:
        sentence, _, code = problem.partition("\n")
        st.error(escape(sentence), icon=":material/build:")
        if code:
            st.code(code, language="python", wrap_lines=True)


def _ended_badly(here: Context, task: str, state: JobState) -> None:
    if state.status == "cancelled":
        st.warning(
            "Cancelled. What was not finished is discarded and nothing was changed; "
            "your selection and marks are as they were."
        )
    else:
        mend((state.error or "It ended without saying why.").split("\n\n"))
        if here.draft().marked:
            st.caption("Nothing is lost: your selection and marks are as they were.")
    if here.version is not None and task == "prepare" and st.button("Open the original"):
        st.switch_page("app.py", query_params={"project": here.source})
    if st.button("Try again", key=f"again-{state.id}", icon=":material/refresh:"):
        here.start(state.task, {k: v for k, v in state.params.items() if k not in here.where}, task)
        st.rerun()


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 0.05:
        return "under 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def size(count: float) -> str:
    """Bytes as a person would say them."""
    mebibytes = count / 2**20
    if mebibytes < 1:
        return "under 1 MiB"
    return f"{mebibytes:,.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:,.1f} GiB"


def signed(value: float | None, digits: int = 4) -> str:
    """A change with its sign and a real minus; of thousands one digit behind the point is enough."""
    if value is None or math.isnan(value):
        return "–"
    return (f"{value:+,.1f}" if abs(value) >= 1000 else f"{value:+.{digits}f}").replace("-", "−")


def plain_number(value: float, digits: int = 3) -> str:
    """A figure; of thousands one digit behind the point is enough."""
    if math.isnan(value):
        return "not defined"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def decimals(values: ArrayLike) -> str:
    """How a column of figures is shown; of thousands one digit behind the point is enough."""
    return "%.1f" if np.nanmax(np.abs(values), initial=0) >= 1000 else "%.3f"


def tall(lines: int, line: int = 35, most: int = 442) -> int:
    """Pixels of a table of so many lines, which is scrolled where that would be more than ``most``."""
    return min(most, HEADER + lines * line)


def main_and_side() -> list[DeltaGenerator]:
    """A container and a narrower one beside it, whatever the page's width."""
    return st.columns([1.5, 1], gap="medium")


def side_by_side() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two containers beside each other; where the page is too narrow for both, below each other."""
    with st.container(horizontal=True, gap="medium"):
        return st.container(), st.container(width=SIDE)


def chart(figure: Any, alt: str, read: str, *, key: str, **options: Any) -> None:
    """A Plotly figure with its alternative text and, below it, the line that says how to read it."""
    st.plotly_chart(
        figure,
        key=key,
        alt=alt,
        config={
            "displaylogo": False,
            "displayModeBar": "lasso" in options.get("selection_mode", ()) or "hover",
        },
        **options,
    )
    st.caption(read)


def segments(
    label: str, options: Iterable[str], named: Callable[[str], str] = escape, **settings: Any
) -> str:
    """Returns the chosen one of a few options that stand side by side, each as Markdown by ``named``.

    "gray" is the colour of text in our theme: of itself the chosen one has the primary colour, which no eye
    reads well on a tint of the same.
    """
    return st.segmented_control(
        label, options, format_func=lambda option: f":gray[{named(option)}]", required=True, **settings
    )


def facts(pairs: list[tuple[str, str]]) -> None:
    """Name and value of each fact, one per line."""
    st.markdown("  \n".join(f"**{name}** {value}" for name, value in pairs))
