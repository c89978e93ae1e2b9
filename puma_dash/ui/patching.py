"""From a draft to a plan: what the Patch page asks for, as the worker will read it."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from puma_dash.ui.answers import Classes
from puma_dash.ui.explore import Rows
from puma_dash.ui.text import METHODS, percent
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.store import Store, home, key

LARGE_SHARE = 0.05
NAMED = 3
"""Classes that a warning names, at most."""
STRONGEST = 3.0
"""The largest strength that can be asked for, up to which the forecast goes."""
DEFAULTS: dict[str, Any] = {
    "hold": ["cross_entropy"],
    "tolerance": {},
    "method": "puma",
    "strength": 1.0,
    "steps": 1,
    "intent": "unseen",
    "options": {},
}


WHOLE = ("retrain", "fine_tune", "amnesiac", "sisa")
"""They remove rows whole, and know no strength."""
LINEAR = ("puma", "influence")
"""What they do is forecast by psi."""


def unusable(methods: Mapping[str, str | None], upweight: Sized) -> dict[str, str]:
    """Why methods cannot be used, for each that cannot.

    Args:
        methods: method -> the reason why the project cannot use it, or None.
        upweight: the rows that are to count more.
    """
    found = {method: reason for method, reason in methods.items() if reason is not None}
    if len(upweight):
        found.setdefault("amnesiac", "it can only take back batches, but rows are to be up-weighted.")
    return found


def plan_of_draft(
    draft: Draft, criteria: dict[str, dict[str, Any]] | None = None, **settings: Any
) -> dict[str, Any]:
    """The marks of ``draft`` and how to patch them, as the worker reads it.

    Args:
        draft: whose marks.
        criteria: what is known of the criteria that ``settings`` may hold, by name.
        settings: the other fields of a plan, in place of the defaults.
    """
    marks = {
        "remove": draft.remove.tolist(),
        "upweight": {str(row): e for row, e in draft.upweight.items()},
        "relabel": {str(row): _plain(label) for row, label in draft.relabel.items()},
    }
    plan = {**DEFAULTS, **marks, **settings}
    known = criteria or {}
    return {**plan, "hold": [known.get(name, {}).get("record", name) for name in plan["hold"]]}


def _plain(label: float) -> int | float:
    """A class number, or a value, as JSON has it."""
    return int(label) if label == int(label) else label


def plan_name(plan: dict[str, Any]) -> str:
    """The cache key of ``plan``."""
    rows = np.array(plan["remove"], dtype=np.int64)  # hashed at once, not number by number
    return key("plan", {**plan, "remove": rows})


def keep_plan(plan: dict[str, Any]) -> str:
    """The key under which the worker finds ``plan``, so that job files stay small."""
    name = plan_name(plan)
    Store(home() / "cache").fetch(name, lambda: ({}, plan))
    return name


def at_any_strength(plan: dict[str, Any]) -> dict[str, Any]:
    """What the forecast against strength depends on: ``plan`` without what only moves along its curve."""
    return {**plan, "strength": STRONGEST, "steps": 1, "intent": "unseen", "tolerance": {}}


# --- what a careful colleague would say ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Caution:
    """Something to look at before a draft is patched.

    Args:
        text: what it is.
        stops: whether the patch would be refused.
        rows: which rows it is about, where something can be done about them at once.
        action: what can be done about them.
        removes: the action removes them, too, in place of unmarking them.
    """

    text: str
    stops: bool = False
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    action: str = ""
    removes: bool = False

    def settled(self, draft: Draft) -> Draft:
        """The draft after the action."""
        clear = draft.unmarking(self.rows)
        if not self.removes:
            return clear
        action = f"mark {len(self.rows):,} copies to remove"
        return replace(clear, remove=np.union1d(clear.remove, self.rows), action=action)


def cautions(rows: Rows, draft: Draft) -> list[Caution]:
    """What a careful colleague would say before this draft is patched."""
    arrays = rows.here.overview.arrays if rows.here.overview is not None else {}
    weight = arrays.get("weight", np.ones(rows.n))
    same = arrays.get("same", np.arange(rows.n))
    found = [
        *_refused(rows, draft, weight),
        *_large(rows, draft, weight),
        *_copies(draft, same, weight),
        *_valuable(rows, draft),
    ]
    return sorted(found, key=lambda caution: not caution.stops)


def _refused(rows: Rows, draft: Draft, weight: np.ndarray) -> list[Caution]:
    """Why the plan could not be carried out."""
    found, answers = [], rows.answers
    stays = weight > 0
    stays[draft.remove] = False
    target = answers.target.reshape(rows.n, -1)[:, 0].copy()  # new targets are given to single outputs only
    unchanged = draft.relabel.rows[draft.relabel.values == target[draft.relabel.rows]]
    target[draft.relabel.rows] = draft.relabel.values
    if isinstance(answers, Classes):
        before, after = (
            np.bincount(labels, minlength=len(answers.names))
            for labels in (answers.target[weight > 0], target[stays])
        )
        gone = [answers.names[k] for k in np.flatnonzero((before > 0) & (after == 0))]
        if gone:
            told = f"No row of {', '.join(gone)} would be left: a whole class cannot be patched away."
            found.append(Caution(told, True))
    elif not stays.any():
        found.append(Caution("No row would be left.", True))
    if len(unchanged):
        what = "label" if isinstance(answers, Classes) else "target"
        told = f"{_rows(unchanged)} to relabel already {_have(unchanged)} the {what} given."
        found.append(Caution(told, True, unchanged, f"Unmark {_these(unchanged)}"))
    marked = draft.marked_rows
    absent = marked[weight[marked] == 0]
    if len(absent):
        told = f"{_rows(absent)} take no part in training: an earlier version removed {_them(absent)}."
        found.append(Caution(told, True, absent, f"Unmark {_these(absent)}"))
    return found


def _large(rows: Rows, draft: Draft, weight: np.ndarray) -> list[Caution]:
    taken, answers = np.concatenate([draft.remove, draft.relabel.rows]), rows.answers
    classes = isinstance(answers, Classes)
    names = answers.names if classes else ["the training rows"]
    kind = answers.target if classes else np.zeros(rows.n, dtype=np.int64)
    gone, total = (np.bincount(kind[which], minlength=len(names)) for which in (taken, weight > 0))
    share = gone / np.maximum(total, 1)
    large = np.flatnonzero(share > LARGE_SHARE)
    if not len(large):
        return []
    most = large[np.argsort(-share[large], kind="stable")][:NAMED]
    named = ", ".join(f"{names[k]} ({percent(share[k], 0)})" for k in most)
    which = named if len(large) <= NAMED else f"{len(large)} of {len(share)} classes, most of {named}"
    return [
        Caution(
            f"More than {percent(LARGE_SHARE, 0)} is taken out of {which}. For groups this large the "
            "straight-line forecast is rough: look at what is measured."
        )
    ]


def _copies(draft: Draft, same: np.ndarray, weight: np.ndarray) -> list[Caution]:
    """Rows with the inputs of a row to be removed, which stay."""
    alike = np.isin(same, same[draft.remove])
    alike[draft.marked_rows] = False
    left = np.flatnonzero(alike & (weight > 0))
    if not len(left):
        return []
    told = (
        f"{_rows(left)} not marked {_have(left)} exactly the inputs of rows to remove: "
        "what a copy teaches, the model still learns."
    )
    return [Caution(told, rows=left, action=f"Remove {_these(left)}, too", removes=True)]


def _valuable(rows: Rows, draft: Draft) -> list[Caution]:
    valuable = draft.remove[rows.psi[draft.remove] > 0]
    if not len(valuable):
        return []
    change, criterion = rows.psi[valuable].sum() / rows.n, rows.here.main
    told = (
        f"{len(valuable):,} of the rows to remove {'is' if len(valuable) == 1 else 'are'} valuable "
        f"(psi > 0): alone, taking {_them(valuable)} out would change validation {criterion['label']} by "
        f"{change:+.4f} {criterion['unit']}."
    )
    return [Caution(told, rows=valuable, action=f"Unmark {_these(valuable)}")]


def _rows(rows: np.ndarray) -> str:
    return f"{len(rows):,} row{'s' * (len(rows) != 1)}"


def _have(rows: np.ndarray) -> str:
    return "has" if len(rows) == 1 else "have"


def _them(rows: np.ndarray) -> str:
    return "it" if len(rows) == 1 else "them"


def _these(rows: np.ndarray) -> str:
    return "it" if len(rows) == 1 else f"these {len(rows):,}"


# --- in words ------------------------------------------------------------


def headline(draft: Draft, method: str) -> str:
    """What the button does."""
    parts = []
    if len(draft.remove):
        parts.append(f"remove {len(draft.remove):,}")
    if len(draft.upweight):
        parts.append(f"up-weight {len(draft.upweight):,}")
    if len(draft.relabel):
        parts.append(f"relabel {len(draft.relabel):,}")
    verb = {"puma": "Patch", "retrain": "Retrain"}.get(method, METHODS[method].partition(" (")[0])
    return f"{verb}: {', '.join(parts)}"


def rails_forecast(
    strengths: ArrayLike, changes: dict[str, ArrayLike], rails: dict[str, float], at: float
) -> str:
    """Up to which strength every rail is predicted to hold, and which one ends it.

    Args:
        strengths: (s,) ascending from 0.
        changes: predicted change of each criterion (s,); negative is better.
        rails: the most that each may get worse.
        at: the strength asked for.
    """
    x = np.asarray(strengths, dtype=float)
    passed = {name: x[np.asarray(change) > rails[name] + 1e-9] for name, change in changes.items()}
    first = {name: over[0] for name, over in passed.items() if len(over)}
    if not first:
        return f"Every rail is predicted to hold at any strength up to {x[-1]:g}."
    name = min(first, key=first.__getitem__)
    held = x[np.searchsorted(x, first[name]) - 1]
    if held < at:
        return (
            f"{name} is predicted to pass its rail at strength {at:g} and to hold up to about {held:g}; the "
            "patch is measured, and weakened until every rail holds."
        )
    return (
        f"Every rail is predicted to hold at strength {at:g}; the first to give way, beyond {held:g}: {name}."
    )
