"""The versions of a project: numbered as they were accepted, a tree by what each was made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple


class Version(NamedTuple):
    """A version that was accepted.

    Args:
        entry: in the ledger; URLs name the version by it.
        number: 1, 2, 3 in the order of acceptance; people name it by that.
        parent: entry of the version it was made from; None is the original.
        created: when it was accepted.
        who: by whom.
        why: in their words.
    """

    entry: int
    number: int
    parent: int | None
    created: datetime
    who: str
    why: str


@dataclass(frozen=True)
class Versions:
    """The accepted versions of a project, and which one is current.

    Args:
        accepted: in the order of acceptance.
        current: entry of the version last accepted or rolled back to; None is the original.
    """

    accepted: tuple[Version, ...]
    current: int | None

    @cached_property
    def numbers(self) -> dict[int | None, int]:
        """Entry -> number; the original is 0."""
        return {None: 0} | {version.entry: version.number for version in self.accepted}

    def name(self, entry: int | None) -> str:
        """What people call the version with that entry."""
        if entry not in self.numbers:
            return f"unknown version (entry {entry})"
        return f"version {self.numbers[entry]}" if entry is not None else "original"

    @cached_property
    def lanes(self) -> dict[int | None, int]:
        """Entry -> its line in a drawn tree, from 0: a first child stays on its parent's line."""
        lanes: dict[int | None, int] = {None: 0}
        continued: set[int | None] = set()
        for version in self.accepted:
            first = version.parent not in continued
            lanes[version.entry] = lanes.get(version.parent, 0) if first else max(lanes.values()) + 1
            continued.add(version.parent)
        return lanes
