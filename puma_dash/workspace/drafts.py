"""Drafts: what a user has selected and marked so far, on disk so that a refresh loses nothing."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

_ID = re.compile(r"[0-9a-f]{16}")
UNDO_LIMIT = 50
REMEMBERED = 64
"""Drafts that a process keeps in memory as they are on disk."""


def row_set(rows: ArrayLike) -> np.ndarray:
    """``rows`` as row numbers (m,), ascending, each once; not to be written to."""
    found = np.asarray(rows)
    found = found.astype(np.int64) if np.all(found[1:] > found[:-1]) else np.unique(found).astype(np.int64)
    found.setflags(write=False)
    return found


@dataclass(frozen=True, eq=False)
class Marks:
    """Rows marked with a value each.

    Args:
        rows: (m,) ascending.
        values: (m,) how much more each counts, or its new label.
    """

    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    values: np.ndarray = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, marks: Marks | Mapping[int, float]) -> Marks:
        """The marks that map row -> value."""
        if isinstance(marks, Marks):
            return marks
        rows = sorted(marks)
        return cls(row_set(rows), np.array([marks[row] for row in rows], dtype=np.float64))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def having(self, rows: np.ndarray, value: ArrayLike) -> Marks:
        """The marks with ``value``, one for all or one for each, on ``rows``."""
        others = self.without(rows)
        together = np.concatenate([others.rows, rows])
        values = np.concatenate([others.values, np.broadcast_to(np.asarray(value, np.float64), rows.shape)])
        order = np.argsort(together)
        return Marks(together[order], values[order])

    def without(self, rows: np.ndarray) -> Marks:
        """The marks of other rows."""
        keep = ~np.isin(self.rows, rows, assume_unique=True)
        return self if keep.all() else Marks(self.rows[keep], self.values[keep])

    def items(self) -> Iterator[tuple[int, float]]:
        """Row and value of each."""
        return zip(self.rows.tolist(), self.values.tolist(), strict=True)


@dataclass(frozen=True, eq=False)
class Draft:
    """One state of a draft; every edit is a new one.

    Args:
        selection: rows selected (s,), ascending.
        remove: rows marked to be removed (r,), ascending.
        upweight: rows marked to count 1 + e times, e > 0; a mapping row -> e is taken too.
        relabel: rows marked to get a new label; a mapping row -> class number is taken too.
        sets: selections kept under a name.
        action: what led here, for the undo button.
    """

    selection: np.ndarray = ()  # type: ignore[assignment]
    remove: np.ndarray = ()  # type: ignore[assignment]
    upweight: Marks = field(default_factory=Marks)
    relabel: Marks = field(default_factory=Marks)
    sets: Mapping[str, np.ndarray] = field(default_factory=dict)
    action: str = ""

    def __post_init__(self) -> None:
        """Brings rows and marks into one form."""
        for name in ("selection", "remove"):
            object.__setattr__(self, name, row_set(getattr(self, name)))
        for name in ("upweight", "relabel"):
            object.__setattr__(self, name, Marks.of(getattr(self, name)))
        object.__setattr__(self, "sets", {name: row_set(rows) for name, rows in self.sets.items()})

    def selecting(self, rows: ArrayLike, action: str) -> Draft:
        """The draft with ``rows`` selected."""
        return replace(self, selection=row_set(rows), action=action)

    def marking_remove(self, rows: ArrayLike | None = None) -> Draft:
        """The draft with ``rows``, by default those selected, marked to be removed."""
        marked = self.selection if rows is None else row_set(rows)
        clear = self.unmarking(marked)
        remove = np.union1d(clear.remove, marked)
        return replace(clear, remove=remove, action=f"mark {len(marked):,} to remove")

    def marking_upweight(self, e: float) -> Draft:
        """The draft with the selected rows marked to count 1 + ``e`` times."""
        clear = self.unmarking(self.selection)
        upweight = clear.upweight.having(self.selection, e)
        return replace(clear, upweight=upweight, action=f"mark {len(self.selection):,} to up-weight")

    def marking_relabel(self, labels: ArrayLike, rows: ArrayLike | None = None) -> Draft:
        """The draft with rows marked to get another label.

        Args:
            labels: class number, one for all rows or one for each.
            rows: (m,) ascending, each once; by default those selected.
        """
        marked = self.selection if rows is None else row_set(rows)
        clear = self.unmarking(marked)
        relabel = clear.relabel.having(marked, labels)
        return replace(clear, relabel=relabel, action=f"mark {len(marked):,} to relabel")

    def unmarking(self, rows: ArrayLike | None = None) -> Draft:
        """The draft without marks on ``rows``, by default on any row."""
        if rows is None:
            return replace(
                self, remove=row_set(()), upweight=Marks(), relabel=Marks(), action="clear all marks"
            )
        rows = row_set(rows)
        return replace(
            self,
            remove=np.setdiff1d(self.remove, rows, assume_unique=True),
            upweight=self.upweight.without(rows),
            relabel=self.relabel.without(rows),
            action=f"unmark {len(rows):,}",
        )

    def keeping(self, name: str, rows: ArrayLike | None = None) -> Draft:
        """The draft with ``rows``, by default those selected, kept as the set of that name."""
        kept = self.selection if rows is None else row_set(rows)
        return replace(self, sets={**self.sets, name: kept}, action=f"keep {name}")

    def renaming(self, name: str, new: str) -> Draft:
        """The draft with the set of that name under a new one, in its place."""
        sets = {new if other == name else other: rows for other, rows in self.sets.items()}
        return replace(self, sets=sets, action=f"rename {name} to {new}")

    def dropping(self, name: str) -> Draft:
        """The draft without the set of that name."""
        sets = {other: rows for other, rows in self.sets.items() if other != name}
        return replace(self, sets=sets, action=f"drop {name}")

    @property
    def marked_rows(self) -> np.ndarray:
        """The rows marked for anything (m,), ascending."""
        return np.sort(np.concatenate([self.remove, self.upweight.rows, self.relabel.rows]))

    @property
    def marked(self) -> int:
        """Number of rows marked for anything."""
        return len(self.remove) + len(self.upweight) + len(self.relabel)

    def same(self, other: Draft) -> bool:
        """Whether the two differ in nothing but what led to them."""

        def rows(draft: Draft) -> list[np.ndarray]:
            marks = (draft.upweight.rows, draft.upweight.values, draft.relabel.rows, draft.relabel.values)
            return [draft.selection, draft.remove, *marks, *(draft.sets[name] for name in self.sets)]

        return self.sets.keys() == other.sets.keys() and all(map(np.array_equal, rows(self), rows(other)))


@dataclass(frozen=True, eq=False)
class History:
    """A draft with what came before it and what was undone; the present is ``states[at]``."""

    states: tuple[Draft, ...] = field(default_factory=lambda: (Draft(),))
    at: int = 0
    jobs: dict[str, str] = field(default_factory=dict)
    """Task -> id of the last job started from this draft, so that a refresh or a second user finds it."""
    patch: str = ""
    """Cache key of the patch last computed from this draft."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How a patch is asked for, so that adjusting starts from there."""
    races: dict[str, str] = field(default_factory=dict)
    """"PATCH/METHOD" -> cache key of what that method made of the plan of that patch."""
    view: dict[str, Any] = field(default_factory=dict)
    """What the pages show, by name: colour, map, zoom, the cell that is picked ..."""

    @property
    def now(self) -> Draft:
        """The present draft."""
        return self.states[self.at]

    @property
    def undoes(self) -> str | None:
        """What one step back undoes, or None where there is none."""
        return self.now.action if self.at else None

    @property
    def redoes(self) -> str | None:
        """What one step forward does again, or None where there is none."""
        return self.states[self.at + 1].action if self.at + 1 < len(self.states) else None

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


# --- on disk --------------------------------------------------------------------------


def load(root: Path, draft_id: str, project: str) -> History | None:
    """The draft of that id; None where it is malformed, unknown, unreadable or of another project."""
    if not is_id(draft_id):
        return None
    path = root / f"{draft_id}.json"
    try:
        signature = _signature(path)
        known = _remembered.get(path)
        if known is None or known[0] != signature:
            known = _remember(path, signature, *_parsed(json.loads(path.read_text("utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None
    return known[2] if known[1] == project else None


def save(root: Path, draft_id: str, project: str, history: History) -> None:
    """Writes the draft of ``project``, replacing the old one as a whole."""
    root.mkdir(parents=True, exist_ok=True)
    path, temporary = root / f"{draft_id}.json", root / f".{draft_id}.{secrets.token_hex(4)}.tmp"
    facts = {name: value for name, value in vars(history).items() if name != "states"} | {"project": project}
    states = ", ".join(map(_record, history.states))
    temporary.write_text(f'{{"states": [{states}], {json.dumps(facts)[1:]}', "utf-8")
    signature = _signature(temporary)  # before another writer can replace it
    os.replace(temporary, path)
    _remember(path, signature, project, history)


@contextlib.contextmanager
def locked(root: Path, draft_id: str) -> Iterator[None]:
    """Keeps other sessions from changing the draft between a read and the write that follows."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f".{draft_id}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_remembered: OrderedDict[Path, tuple[tuple[int, int, int], str, History]] = OrderedDict()
_records: WeakKeyDictionary[Draft, str] = WeakKeyDictionary()


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _remember(
    path: Path, signature: tuple[int, int, int], project: str, history: History
) -> tuple[tuple[int, int, int], str, History]:
    _remembered[path] = known = signature, project, history
    while len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    return known


def _record(draft: Draft) -> str:
    """A state as JSON; written once, since it never changes."""
    if draft not in _records:
        content = {
            "selection": _packed(draft.selection),
            "remove": _packed(draft.remove),
            "upweight": [_packed(draft.upweight.rows), _zipped(draft.upweight.values)],
            "relabel": [_packed(draft.relabel.rows), _zipped(draft.relabel.values)],
            "sets": {name: _packed(rows) for name, rows in draft.sets.items()},
            "action": draft.action,
        }
        _records[draft] = json.dumps(content)
    return _records[draft]


def _parsed(data: dict[str, Any]) -> tuple[str, History]:
    """The project and the draft in a file; raises where they are no draft."""

    def draft(state: dict[str, Any]) -> Draft:
        upweight, relabel = (
            Marks(_unpacked(rows), _unzipped(values))
            for rows, values in (state["upweight"], state["relabel"])
        )
        sets = {name: _unpacked(rows) for name, rows in state["sets"].items()}
        selection, remove = _unpacked(state["selection"]), _unpacked(state["remove"])
        return Draft(selection, remove, upweight, relabel, sets, str(state["action"]))

    states = tuple(map(draft, data["states"]))
    jobs, settings, races = (dict(data[name]) for name in ("jobs", "settings", "races"))
    view = dict(data.get("view", {}))  # the first drafts had none
    history = History(states, int(data["at"]), jobs, str(data["patch"]), settings, races, view)
    if not 0 <= history.at < len(states):
        raise ValueError("the present is not among the states")
    return data["project"], history


def _packed(rows: np.ndarray) -> str:
    """Row numbers as text: one bit for each row up to the last, compressed."""
    if not len(rows):
        return ""
    bits = np.zeros(int(rows[-1]) + 1, dtype=bool)
    bits[rows] = True
    return base64.b64encode(zlib.compress(np.packbits(bits).tobytes(), 1)).decode()


def _unpacked(text: str) -> np.ndarray:
    if not text:
        return np.empty(0, np.int64)
    packed = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.flatnonzero(np.unpackbits(packed))


def _zipped(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype("<f8").tobytes(), 1)).decode()


def _unzipped(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f8")
