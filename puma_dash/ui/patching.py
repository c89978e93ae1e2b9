"""From a draft to a plan: what the Patch page asks for, as the worker will read it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from puma_dash.ui.explore import Rows
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.store import Store, home, key

LARGE_SHARE = 0.05
DEFAULTS: dict[str, Any] = {
    "hold": ["cross_entropy"],
    "tolerance": {},
    "method": "puma",
    "strength": 1.0,
    "steps": 1,
    "intent": "unseen",
    "options": {},
}


def plan_of_draft(draft: Draft, **settings: Any) -> dict[str, Any]:
    """The marks of ``draft`` and how to patch them, as JSON."""
    marks = {"remove": list(draft.remove), "upweight": {str(row): e for row, e in draft.upweight.items()}}
    return {**marks, **DEFAULTS, **settings}


def plan_key(plan: dict[str, Any]) -> str:
    """The key under which the worker finds ``plan``, so that job files stay small."""
    name = key("plan", plan)
    Store(home() / "cache").fetch(name, lambda: ({}, plan))
    return name


def warnings(rows: Rows, draft: Draft) -> list[str]:
    """What a careful colleague would say before this draft is patched."""
    found = []
    total, gone = Counter(rows.target.tolist()), Counter(rows.target[list(draft.remove)].tolist())
    shares = {label: count / total[label] for label, count in gone.items()}
    empty = [rows.classes[label] for label, share in sorted(shares.items()) if share == 1]
    if empty:
        found.append(
            f"Every row of {', '.join(empty)} is marked to go: a whole class cannot be patched away."
        )
    large = [
        f"{rows.classes[label]} ({share:.0%})"
        for label, share in sorted(shares.items())
        if share > LARGE_SHARE
    ]
    if large:
        found.append(
            f"More than {LARGE_SHARE:.0%} is removed of class {', '.join(large)}. For groups this large the "
            "straight-line forecast is rough: look at what is measured."
        )
    valuable = int((rows.psi[list(draft.remove)] > 0).sum())
    if valuable:
        found.append(
            f"{valuable:,} of the rows to remove are valuable (psi > 0): removing them is predicted to harm "
            "validation cross-entropy, and other rows will be up-weighted to compensate."
        )
    return found


def headline(draft: Draft, method: str) -> str:
    """What the button does."""
    parts = []
    if draft.remove:
        parts.append(f"remove {len(draft.remove):,}")
    if draft.upweight:
        parts.append(f"up-weight {len(draft.upweight):,}")
    verb = "Retrain" if method == "retrain" else "Patch"
    return f"{verb}: {', '.join(parts)}"
