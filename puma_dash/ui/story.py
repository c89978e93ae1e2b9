"""The story of one row on the Explore page: why it is harmful, what is like it, what it is suspected of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.answers import Classes, Values, answers_in
from puma_dash.ui.explore import Rows, marks_of, psi_of
from puma_dash.ui.figures import thumbnails
from puma_dash.ui.panels import facts, job, plain_number, signed
from puma_dash.ui.state import Context, entry
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.store import Entry

SHOWN = 5
"""Rows of each kind that are shown."""


def open_story(here: Context, row: int) -> None:
    """Asks for the story of ``row``; the draft remembers it, so that a refresh opens it again."""
    here.start("story", {"row": row})


def story(here: Context, rows: Rows, draft: Draft) -> None:
    """The story last opened: what the pages know at once, and the rest when the worker has found it."""
    state = here.job("story")
    row = None if state is None else int(state.params["row"])
    line = st.container(horizontal=True, vertical_alignment="center", gap="xsmall")
    line.subheader("Story" if row is None else f"Row {row:,}", width="stretch")

    def asked() -> None:
        number = st.session_state["story_number"]
        if number is not None:
            open_story(here, int(number))

    line.number_input(
        "Story of row number",
        0,
        rows.n - 1,
        None,
        key="story_number",
        placeholder="row number",
        label_visibility="collapsed",
        width=118,
        on_change=asked,
    )
    if state is None or row is None or row >= rows.n:
        st.caption(
            "Click a row in the table, or give its number: whom it hurts and helps, what is like it, and "
            "what it is suspected of."
        )
        return
    line.button(
        "", icon=":material/close:", key="close_story", help="Close", on_click=lambda: here.forget("story")
    )
    with st.container(border=True):
        known(here, rows, draft, row)
        if job(here, "story", f"Finding the story of row {row:,}") and state.result is not None:
            found = entry(state.result["story"])
            if found is None:
                open_story(here, row)
                st.rerun()
            told(rows, found)


def known(here: Context, rows: Rows, draft: Draft, row: int) -> None:
    """What the pages know of the row without asking."""
    at = np.array([row])
    own, predicted = (
        rows.answers.words(values[at])[0] for values in (rows.answers.target, rows.answers.predicted)
    )
    sure = f" ({text.percent(rows.answers.confidence[row], 0)})" if isinstance(rows.answers, Classes) else ""
    pairs = [
        (here.task.target.capitalize(), text.escape(own)),
        ("Prediction", f"{text.escape(predicted)}{sure}"),
        ("Loss", plain_number(rows.loss[row])),
    ]
    if mark := marks_of(rows, at, draft)[0]:
        pairs.append(("Marked", text.escape(mark)))
    for name in (*rows.columns, *rows.texts):
        value = rows.shown(name, at)[0]
        pairs.append(
            (text.escape(name), text.escape(f"{value:.4g}" if isinstance(value, float) else str(value)))
        )
    if rows.images is None:
        facts(pairs)
    else:
        line = st.container(horizontal=True, gap="small")
        line.image(
            thumbnails(rows.images[at], 160)[0],
            width=110,
            alt=f"Row {row}, {here.task.target} {own}",
        )
        with line.container(width="content"):
            facts(pairs)
    scores = {
        f"psi of {facts_['label']}": psi[row]
        for name, facts_ in here.criteria.items()
        if (psi := psi_of(here, name)) is not None
    }
    influence = entry(here.index.values.get(f"self_influence/{here.task.criterion}", ""))
    if influence is not None:
        scores["self-influence"] = -influence.arrays["scores"][row]
    facts(
        [
            (text.escape(name), f"{signed(float(value), 3)}{_verdict(name, value)}")
            for name, value in scores.items()
        ]
    )


def _verdict(name: str, value: float) -> str:
    if not name.startswith("psi"):
        return ""
    return ": harmful" if value < 0 else ": valuable" if value > 0 else ""


def told(rows: Rows, found: Entry) -> None:
    """What the worker found out."""
    arrays, info = found.arrays, found.info
    classes = isinstance(rows.answers, Classes)
    if not info["weight"]:
        st.info("This row has weight 0: an earlier version removed it from training.")
    if info["suspicions"]:
        for kind, evidence in info["suspicions"]:
            st.warning(f"**Suspected {kind}**: {text.escape(evidence)}", icon=":material/help:")
    else:
        kinds = ["a wrong label, misplaced confidence" if classes else "a wrong target", "a duplicate"]
        st.caption(f"Nothing speaks for {', '.join(kinds)} or an outlier.")
    if rows.images is None:
        values = arrays["values"]
        st.caption(
            "Input: " + ", ".join(f"{value:.3g}" for value in values[:8]) + (", …" if len(values) > 8 else "")
        )
    influence = arrays["influence"]
    order = np.argsort(influence, kind="stable")
    hurt, helped = order[:SHOWN], order[::-1][:SHOWN]
    held_out = Shown.of(rows, "validation.")
    held_out.tiles("Hurts most", hurt[influence[hurt] < 0], influence)
    held_out.tiles("Helps most", helped[influence[helped] > 0], influence)
    st.caption(
        f"Of {len(influence):,} validation rows: the number over n = {rows.n:,} is how much removing this "
        "row changes the loss there."
    )
    training = Shown.of(rows, "")
    if classes:
        training.tiles("Nearest with its label", arrays["same"][:SHOWN])
        training.tiles("Nearest with another label", arrays["other"][:SHOWN])
    else:
        training.tiles("Nearest", arrays["neighbours"][:SHOWN])
    if len(arrays["copies"]):
        training.tiles("Identical input", arrays["copies"][:SHOWN])
    st.caption(f"Of {rows.n:,} training rows, compared by {info['space']}.")


class Shown(NamedTuple):
    """The rows of one split, to be shown a few at a time."""

    images: np.ndarray | None
    answers: Classes | Values

    @classmethod
    def of(cls, rows: Rows, split: str) -> Shown:
        """The rows whose arrays begin with ``split`` in the overview."""
        overview = rows.here.overview
        assert overview is not None
        images = overview.arrays.get(f"{split}images")
        return cls(images, answers_in(overview.info, overview.arrays, split))

    def tiles(self, title: str, chosen: np.ndarray, numbers: np.ndarray | None = None) -> None:
        """The rows ``chosen`` under a title, as pictures or a table: label, prediction, number."""
        st.markdown(f"**{title}**" + ("" if len(chosen) else ": none"))
        if not len(chosen):
            return
        number = [""] * len(chosen) if numbers is None else [signed(float(numbers[row]), 1) for row in chosen]
        if self.images is None:
            moved = {} if numbers is None else {"influence": number}
            answered = self.answers.columns(chosen)
            for name in ("confidence", "residual"):
                answered.pop(name, None)
            st.dataframe(pd.DataFrame({"row": chosen, **moved, **answered}), hide_index=True)
            return
        label, predicted = (
            self.answers.words(values[chosen]) for values in (self.answers.target, self.answers.predicted)
        )
        said = [
            own if own == other else f"{own}→{other}" for own, other in zip(label, predicted, strict=True)
        ]
        with st.container(horizontal=True, gap="xsmall"):
            tiles = zip(chosen.tolist(), thumbnails(self.images[chosen]), said, number, strict=True)
            for row, picture, word, value in tiles:
                caption = f"{text.escape(word)}  \n{value}"
                st.image(picture, caption, width=44, alt=f"row {row}, {word}")
