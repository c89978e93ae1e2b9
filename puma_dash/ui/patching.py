"""From a draft to a plan: what the Patch page asks for, as the worker will read it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

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
        "relabel": {str(row): int(label) for row, label in draft.relabel.items()},
    }
    plan = {**DEFAULTS, **marks, **settings}
    known = criteria or {}
    return {**plan, "hold": [known.get(name, {}).get("record", name) for name in plan["hold"]]}


def plan_name(plan: dict[str, Any]) -> str:
    """The cache key of ``plan``."""
    rows = np.array(plan["remove"], dtype=np.int64)  # hashed at once, not number by number
    return key("plan", {**plan, "remove": rows})


def keep_plan(plan: dict[str, Any]) -> str:
    """The key under which the worker finds ``plan``, so that job files stay small."""
    name = plan_name(plan)
    Store(home() / "cache").fetch(name, lambda: ({}, plan))
    return name


def emptied(rows: Rows, draft: Draft) -> list[str]:
    """The classes of which no row would remain."""
    total, gone = Counter(rows.target.tolist()), Counter(rows.target[draft.remove].tolist())
    return [rows.classes[label] for label in sorted(gone) if gone[label] == total[label]]


def warnings(rows: Rows, draft: Draft) -> list[str]:
    """What a careful colleague would say before this draft is patched."""
    found = []
    total, gone = Counter(rows.target.tolist()), Counter(rows.target[draft.remove].tolist())
    shares = {label: count / total[label] for label, count in gone.items()}
    empty = emptied(rows, draft)
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
    valuable = int((rows.psi[draft.remove] > 0).sum())
    if valuable:
        found.append(
            f"{valuable:,} of the rows to remove are valuable (psi > 0): alone they would change validation "
            f"cross-entropy by {rows.psi[draft.remove].clip(min=0).sum() / rows.n:+.4f} nats."
        )
    return found


def headline(draft: Draft, method: str) -> str:
    """What the button does."""
    parts = []
    if len(draft.remove):
        parts.append(f"remove {len(draft.remove):,}")
    if len(draft.upweight):
        parts.append(f"up-weight {len(draft.upweight):,}")
    if len(draft.relabel):
        parts.append(f"relabel {len(draft.relabel):,}")
    verb = "Retrain" if method == "retrain" else "Patch"
    return f"{verb}: {', '.join(parts)}"
