"""Drafts: what a user has selected and marked so far, on disk so that a refresh loses nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

_ID = re.compile(r"[0-9a-f]{16}")
UNDO_LIMIT = 50


@dataclass(frozen=True)
class Draft:
    """One state of a draft; every edit is a new one.

    Args:
        selection: rows selected on the map, ascending.
        remove: rows marked to be removed, ascending.
        upweight: row -> e > 0 for rows marked to count more.
        action: what led here, for the undo button.
    """

    selection: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    upweight: dict[int, float] = field(default_factory=dict)
    action: str = ""

    def selecting(self, rows: np.ndarray, action: str) -> Draft:
        """The draft with ``rows`` selected."""
        return replace(self, selection=tuple(np.unique(rows).tolist()), action=action)

    def marking_remove(self) -> Draft:
        """The draft with the selected rows marked to be removed."""
        remove = tuple(sorted({*self.remove, *self.selection}))
        chosen = set(self.selection)
        kept = {row: e for row, e in self.upweight.items() if row not in chosen}
        return replace(self, remove=remove, upweight=kept, action=f"mark {len(self.selection)} to remove")

    def marking_upweight(self, e: float) -> Draft:
        """The draft with the selected rows marked to count 1 + ``e`` times."""
        chosen = set(self.selection)
        upweight = dict(sorted({**self.upweight, **dict.fromkeys(self.selection, e)}.items()))
        remove = tuple(row for row in self.remove if row not in chosen)
        return replace(self, remove=remove, upweight=upweight, action=f"mark {len(chosen)} to up-weight")

    def unmarking(self, rows: tuple[int, ...] | None = None) -> Draft:
        """The draft without marks on ``rows``, by default on any row."""
        if rows is None:
            return replace(self, remove=(), upweight={}, action="clear all marks")
        gone = set(rows)
        return replace(
            self,
            remove=tuple(row for row in self.remove if row not in gone),
            upweight={row: e for row, e in self.upweight.items() if row not in gone},
            action=f"unmark {len(gone)}",
        )

    @property
    def marked(self) -> int:
        """Number of rows marked for anything."""
        return len(self.remove) + len(self.upweight)


@dataclass(frozen=True)
class History:
    """A draft with what came before it and what was undone; the present is ``states[at]``."""

    states: tuple[Draft, ...] = (Draft(),)
    at: int = 0
    jobs: dict[str, str] = field(default_factory=dict)
    """Task -> id of the last job started from this draft, so that a refresh or a second user finds it."""
    patch: str = ""
    """Cache key of the patch last computed from this draft."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the last patch was asked for, so that adjusting starts from there."""

    @property
    def now(self) -> Draft:
        """The present draft."""
        return self.states[self.at]

    def then(self, draft: Draft) -> History:
        """The history after one more edit; what was undone is forgotten."""
        states = (*self.states[: self.at + 1], draft)[-UNDO_LIMIT:]
        return replace(self, states=states, at=len(states) - 1)

    def undone(self) -> History:
        """One step back, where there is one."""
        return replace(self, at=max(self.at - 1, 0))

    def redone(self) -> History:
        """One step forward, where there is one."""
        return replace(self, at=min(self.at + 1, len(self.states) - 1))


def new_id() -> str:
    """A fresh draft id, safe in a URL."""
    return secrets.token_hex(8)


def is_id(text: str) -> bool:
    """Whether ``text``, which may come from a URL, has the form of a draft id."""
    return _ID.fullmatch(text) is not None


def load(root: Path, draft_id: str, project: str) -> History | None:
    """The draft of that id; None where it is malformed, unknown, unreadable or of another project."""
    if not is_id(draft_id):
        return None
    try:
        data = json.loads((root / f"{draft_id}.json").read_text("utf-8"))
        states = tuple(_draft(state) for state in data["states"])
        history = History(
            states, int(data["at"]), dict(data["jobs"]), str(data["patch"]), dict(data["settings"])
        )
        same = data["project"] == project
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return history if same and 0 <= history.at < len(states) else None


def save(root: Path, draft_id: str, project: str, history: History) -> None:
    """Writes the draft of ``project``, replacing the old one as a whole."""
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{draft_id}.{secrets.token_hex(4)}.tmp"
    data = {**vars(history), "project": project, "states": [vars(state) for state in history.states]}
    temporary.write_text(json.dumps(data), "utf-8")
    os.replace(temporary, root / f"{draft_id}.json")


@contextlib.contextmanager
def locked(root: Path, draft_id: str) -> Iterator[None]:
    """Keeps other sessions from changing the draft between a read and the write that follows."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f".{draft_id}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _draft(data: dict[str, Any]) -> Draft:
    return Draft(
        selection=tuple(data["selection"]),
        remove=tuple(data["remove"]),
        upweight={int(row): float(e) for row, e in data["upweight"].items()},
        action=data["action"],
    )
