"""The selection tray of the Explore page: what is selected, other ways to select, and what to do with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.answers import Classes
from puma_dash.ui.explore import Rows, fields, ids, is_ranking, marks_of, ranking
from puma_dash.ui.gesture import MODES, combine
from puma_dash.ui.panels import segments, signed
from puma_dash.ui.rules import Condition, Field, Text, lowest, matching, pasted
from puma_dash.ui.scores import scores
from puma_dash.ui.state import Context
from puma_dash.ui.strip import Bins, psi_strip
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.places import title

MODE_WORDS = {"replace": "select", "add": "add", "subtract": "take out", "intersect": "keep only"}
PREDICTION = "the model's prediction"


def tray(here: Context, rows: Rows, draft: Draft) -> None:
    """What is selected, how to select by other means than drawing, and what to do with it."""
    with st.container(gap="xsmall"):
        with st.container(horizontal=True):
            st.metric("All rows", f"{rows.n:,}", width="content")
            st.metric("Selected", f"{len(draft.selection):,}", width="content")
            st.metric("Marked", f"{draft.marked:,}", width="content")
        most_harmful(here, rows)
        with st.container(horizontal=True, gap="xsmall"):
            with st.popover("Rule", width="stretch"):
                rule(here, rows, draft)
            with st.popover("Paste", width="stretch"):
                paste(here, rows)
            with st.popover("Sets", width="stretch"):
                sets(here, rows, draft)
            with st.popover("Scores", width="stretch"):
                scores(here, rows)
        tools(here, rows, draft)
        summary(here, rows, draft)
        marking(here, rows, draft)


def most_harmful(here: Context, rows: Rows) -> None:
    """The k rows with the lowest psi, one click."""
    psi, what = ranking(here, rows)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="bottom"):
        k = st.number_input(
            "How many of the most harmful",
            1,
            rows.n,
            label_visibility="collapsed",
            width=84,
            **here.choosing("top_k", range(1, rows.n + 1), min(50, rows.n)),
        )
        st.button(
            f"{k:,} most harmful",
            icon=":material/trending_down:",
            shortcut=text.KEYS["harmful"],
            width="stretch",
            help=f"The rows with the lowest {what}. Colour the map by another psi or score to rank by it.",
            on_click=lambda: _select(here, lowest(psi, int(k)), "replace", f"the {k:,} most harmful"),
        )


def tools(here: Context, rows: Rows, draft: Draft) -> None:
    """Undo, redo, invert, deselect, export: one small button each."""
    history, nothing = here.history(), not len(draft.selection)
    back, forth = history.undoes, history.redoes

    def inverted(draft: Draft) -> Draft:
        return draft.selecting(np.flatnonzero(~rows.mask(draft.selection)), "invert the selection")

    def deselected(draft: Draft) -> Draft:
        return draft.selecting(np.empty(0, int), "deselect")

    with st.container(horizontal=True, gap="xxsmall"):
        _icon(
            "undo",
            f"Undo: {back}" if back else "Nothing to undo",
            not back,
            here.update,
            lambda h: h.undone(),
        )
        _icon(
            "redo",
            f"Redo: {forth}" if forth else "Nothing to redo",
            not forth,
            here.update,
            lambda h: h.redone(),
        )
        _icon("invert_colors", "Invert: select all others", False, here.edit, inverted)
        _icon("deselect", "Deselect", nothing, here.edit, deselected)
        st.download_button(
            "",
            lambda: export(here, rows, draft),
            f"{text.file_name(title(here.source))}-selected.csv",
            "text/csv",
            icon=":material/download:",
            key="export",
            help=f"Export the {len(draft.selection):,} selected rows as CSV",
            disabled=nothing,
            on_click="ignore",
        )


def _icon(name: str, told: str, disabled: bool, does: Callable[..., None], what: Any) -> None:
    st.button(
        "",
        icon=f":material/{name}:",
        key=name,
        help=told,
        disabled=disabled,
        on_click=partial(does, what),
        shortcut=text.KEYS.get(name),
    )


def summary(here: Context, rows: Rows, draft: Draft) -> None:
    """Mean psi, class mix and the distribution of psi of the selection against all rows.

    It is the psi that the map is coloured by, or that of the plain loss where it shows something else.
    """
    if not len(draft.selection):
        st.caption("Nothing is selected. Draw around rows on the map, or take the most harmful ones.")
        return
    psi, name = ranking(here, rows)
    if not name.startswith("psi of "):
        psi, name = rows.psi, f"psi of {here.main['label']}"
    chosen = psi[draft.selection]
    st.markdown(
        f"**Mean {text.escape(name)}** {signed(chosen.mean(), 3)}, {text.percent(np.mean(chosen < 0), 0)} "
        f"harmful  \n{rows.answers.summary(draft.selection)}"
    )
    every = bins(f"{rows.key} {name}", psi)
    strip = psi_strip(every, Bins.of(chosen, every.limit))
    st.image(strip, width="stretch", alt=text.histogram_alt(psi, rows.mask(draft.selection)))


@st.cache_resource(show_spinner=False, max_entries=8)
def bins(key: str, _psi: np.ndarray) -> Bins:
    """The distribution of psi over all rows, kept under ``key``."""
    return Bins.of(_psi)


def marking(here: Context, rows: Rows, draft: Draft) -> None:
    """What is to become of the selected rows."""
    chosen = draft.selection
    nothing = not len(chosen)
    st.button(
        "Mark remove",
        type="secondary" if np.isin(chosen, draft.remove).all() else "primary",  # then the patch is next
        icon=":material/delete:",
        shortcut=text.KEYS["remove"],
        disabled=nothing,
        width="stretch",
        on_click=partial(here.edit, Draft.marking_remove),
    )
    with st.container(horizontal=True, gap="xsmall"):
        with st.popover("Up-weight", disabled=nothing, width="stretch"):
            e = st.number_input(
                "Extra weight", 0.1, 10.0, 1.0, 0.5, key="extra", help="1 counts each row twice."
            )
            st.button(
                "Mark up-weight",
                icon=":material/arrow_upward:",
                width="stretch",
                disabled=nothing,
                on_click=lambda: here.edit(lambda draft: draft.marking_upweight(float(e))),
            )
        with st.popover("Relabel", disabled=nothing, width="stretch"):
            relabel(here, rows, draft)
        both = np.isin(draft.marked_rows, chosen, assume_unique=True).any()
        st.button(
            "Unmark",
            disabled=not both,
            help="Takes the marks off the selected rows",
            width="stretch",
            on_click=lambda: here.edit(lambda draft: draft.unmarking(draft.selection)),
        )


def relabel(here: Context, rows: Rows, draft: Draft) -> None:
    """Chooses the new label of the selected rows; those that have it already are left as they are."""
    chosen, answers = draft.selection, rows.answers
    if isinstance(answers, Classes):
        options = [PREDICTION, *answers.names]
        picked = st.selectbox(
            "New label", range(len(options)), format_func=options.__getitem__, key="new_label"
        )
        target = answers.target[chosen]
        labels = answers.predicted[chosen] if picked == 0 else np.full(len(chosen), picked - 1)
    elif len(answers.names) > 1:
        st.caption("Rows of several targets get new ones in Python: puma.PatchPlan(relabel=...).")
        return
    else:
        target = answers.target[chosen, 0]
        own = (
            segments("New target", ["a number", PREDICTION], default="a number", key="new_target")
            != PREDICTION
        )
        value = float(np.median(answers.target))
        value = st.number_input("Target", value=value, key="new_value", format="%g") if own else value
        labels = np.full(len(chosen), value) if own else answers.predicted[chosen, 0]
    changed = labels != target
    left = len(chosen) - int(changed.sum())
    if left:
        st.caption(f"{left:,} of {len(chosen):,} already have that {here.task.target} and stay as they are.")
    st.button(
        f"Mark {int(changed.sum()):,} to relabel",
        icon=":material/label:",
        width="stretch",
        disabled=not changed.any(),
        on_click=lambda: here.edit(lambda draft: draft.marking_relabel(labels[changed], chosen[changed])),
    )


def rule(here: Context, rows: Rows, draft: Draft) -> None:
    """Builds a rule of several conditions and says how many rows match before it is applied."""
    known = fields(here, rows, draft)
    lines = st.session_state.setdefault("rule", [0])
    conditions = [_condition(known, line, len(lines) > 1) for line in lines]
    any_of = len(lines) > 1 and (
        segments("A row must meet", ["all of these", "any of these"], default="all of these", key="any")
        == "any of these"
    )
    st.button("Add a condition", icon=":material/add:", type="tertiary", on_click=_add_line)
    found = matching(known, conditions, any_of)
    told = [str(condition) for condition in conditions if not condition.says_nothing]
    st.markdown(f"**{len(found):,}** of {rows.n:,} rows match" + ("" if told else ": say what to look for"))
    _apply(here, rows, found, (" or " if any_of else " and ").join(told), "rule")


def _add_line() -> None:
    lines = st.session_state["rule"]
    st.session_state["rule"] = [*lines, max(lines) + 1]


def _condition(known: dict[str, Field], line: int, removable: bool) -> Condition:
    """One line of the rule."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        name = st.selectbox("Rows whose", list(known), key=f"field-{line}", width=190)
        field = known[name]
        key = f"{line}-{name}"
        operator = st.selectbox("is", field.operators, key=f"operator-{key}", width=120)
        value: Any
        if isinstance(field.values, Text):
            value = st.text_input("Part of the text", key=f"value-{key}", width=190)
        elif field.categories is None:
            value = st.number_input("Number", value=None, key=f"value-{key}", format="%g", width=190)
        else:
            value = st.multiselect("One of", field.categories, key=f"value-{key}", width=190)
        if removable:
            _icon_line(line)
    return Condition(name, operator, value)


def _icon_line(line: int) -> None:
    def dropped() -> None:
        st.session_state["rule"] = [other for other in st.session_state["rule"] if other != line]

    st.button("", icon=":material/close:", key=f"drop-{line}", help="Drop this condition", on_click=dropped)


def paste(here: Context, rows: Rows) -> None:
    """Selects rows by pasted numbers or ids."""
    by_id = rows.id is not None and (
        segments("These are", ["row numbers", rows.id], default="row numbers", key="by") == rows.id
    )
    given = st.text_area(
        f"Values of {rows.id}" if by_id else f"Row numbers from 0 to {rows.n - 1}",
        key="pasted",
        placeholder="between commas, spaces or lines" if by_id else "12, 57 100-120",
        height=100,
    )
    found = pasted(given, rows.n, ids(rows) if by_id and given else None)
    st.markdown(f"**{len(found.rows):,}** rows found")
    if found.unknown:
        listed = ", ".join(text.escape(name) for name in found.unknown[:5])
        more = f" and {len(found.unknown) - 5:,} more" if len(found.unknown) > 5 else ""
        st.warning(f"Not there: {listed}{more}", icon=":material/search_off:")
    _apply(here, rows, found.rows, f"{len(found.rows):,} pasted", "paste")


def sets(here: Context, rows: Rows, draft: Draft) -> None:
    """Keeps the selection under a name, and combines it with what was kept."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        name = st.text_input("Keep the selection as", key="set_name", placeholder="a name", width=230).strip()
        st.button(
            "Keep",
            icon=":material/bookmark_add:",
            disabled=not (name and len(draft.selection)),
            help="Replaces the set of that name" if name in draft.sets else None,
            on_click=lambda: here.edit(lambda draft: draft.keeping(name)),
        )
    if not draft.sets:
        st.caption("No set is kept yet.")
        return
    picked = st.selectbox(
        "A set",
        list(draft.sets),
        format_func=lambda name: f"{name} ({len(draft.sets[name]):,})",
        key="set",
    )
    common = np.count_nonzero(rows.mask(draft.selection)[draft.sets[picked]])
    st.caption(f"{common:,} of its {len(draft.sets[picked]):,} rows are selected now.")
    _apply(here, rows, draft.sets[picked], picked, "set")
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        new = st.text_input("Rename it", key=f"rename-{picked}", placeholder=picked, width=230).strip()
        st.button(
            "Rename",
            disabled=not new or new in draft.sets,
            on_click=lambda: here.edit(lambda draft: draft.renaming(picked, new)),
        )
        st.button(
            "",
            icon=":material/delete:",
            key="drop_set",
            help=f"Drop {picked}; undo brings it back",
            on_click=lambda: here.edit(lambda draft: draft.dropping(picked)),
        )


def _apply(here: Context, rows: Rows, found: np.ndarray, what: str, key: str) -> None:
    """How the rows found meet the selection, and the button that does it."""
    mode = segments(
        "With the selection so far",
        MODES,
        lambda mode: MODE_WORDS[mode].capitalize(),
        default="replace",
        key=f"mode-{key}",
    )
    st.button(
        f"{MODE_WORDS[mode].capitalize()} {len(found):,} rows",
        key=f"apply-{key}",
        type="primary",
        width="stretch",
        disabled=not len(found),
        on_click=lambda: _select(here, found, mode, what),
    )


def _select(here: Context, found: np.ndarray, mode: str, what: str) -> None:
    action = f"{MODE_WORDS[mode]} {what}"
    here.edit(lambda draft: draft.selecting(combine(draft.selection, found, mode), action))


def export(here: Context, rows: Rows, draft: Draft) -> bytes:
    """The selected rows as CSV: row number, id where there is one, psi of each criterion, label and mark."""
    chosen = draft.selection
    table: dict[str, Any] = {"row": chosen}
    if rows.id is not None:
        table[rows.id] = rows.shown(rows.id, chosen)
    for name, field in fields(here, rows, draft).items():
        if is_ranking(name):
            table[name] = np.asarray(field.values)[chosen]
    table |= rows.answers.columns(chosen)
    table |= {
        "loss": rows.loss[chosen],
        "mark": marks_of(rows, chosen, draft),
    }
    return pd.DataFrame(table).to_csv(index=False).encode()
