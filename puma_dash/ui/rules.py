"""Ways to select rows without the mouse: rules about what is known of them, pasted numbers, the worst k."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUMBER = ("<", "≤", ">", "≥", "=")
CATEGORY = ("is", "is not")
TEXT = ("contains", "does not contain")
MISSING = "(missing)"

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "≤": np.less_equal,
    ">": np.greater,
    "≥": np.greater_equal,
    "=": np.equal,
}


class Text(NamedTuple):
    """Texts of all rows in one: UTF-8, a line each, and where each begins."""

    lines: NDArray[np.uint8]
    starts: NDArray[np.int64]
    """(n + 1,)"""

    def of(self, rows: ArrayLike) -> list[str]:
        """The texts of ``rows``."""
        ends = ((self.starts[row], self.starts[row + 1] - 1) for row in np.asarray(rows).tolist())
        return [self.lines[start:end].tobytes().decode() for start, end in ends]

    def containing(self, part: str) -> NDArray[np.bool_]:
        """Bool (n,): the rows whose text has ``part`` in it; the case of a to z does not count."""
        pattern = re.compile(re.escape(" ".join(part.split()).encode()), re.IGNORECASE)
        at = np.fromiter((found.start() for found in pattern.finditer(self.lines.data)), np.int64)
        mask = np.zeros(len(self.starts) - 1, dtype=bool)
        mask[np.searchsorted(self.starts, at, "right") - 1] = True
        return mask


@dataclass(frozen=True, eq=False)
class Field:
    """One thing that is known of every row.

    Args:
        values: numbers (n,), codes (n,) into ``categories`` (negative where missing), or a text each.
        categories: names of the codes; None for numbers and texts.
    """

    values: NDArray | Text
    categories: Sequence[str] | None = None

    @property
    def operators(self) -> tuple[str, ...]:
        """What can be asked of it."""
        return TEXT if isinstance(self.values, Text) else NUMBER if self.categories is None else CATEGORY


@dataclass(frozen=True)
class Condition:
    """One condition of a rule.

    Args:
        field: name of what it is about.
        operator: one of the field's.
        value: a number, names of categories, or a part of a text; one that says nothing holds for all rows.
    """

    field: str
    operator: str
    value: Any

    @property
    def says_nothing(self) -> bool:
        """Whether its value is still to be given."""
        return self.value is None or self.value in ("", (), [])

    def __str__(self) -> str:
        """The condition in words."""
        value = f"{self.value:g}" if isinstance(self.value, int | float) else self.value
        return f"{self.field} {self.operator} {value if isinstance(value, str) else ' or '.join(value)}"

    def holds(self, field: Field) -> NDArray[np.bool_]:
        """Bool (n,): for which rows it holds."""
        if isinstance(field.values, Text):
            found = field.values.containing(self.value)
        elif field.categories is None:
            return _COMPARE[self.operator](field.values, self.value)
        else:
            known = [*field.categories, MISSING]
            wanted = np.isin(known, self.value)  # the last one answers for code -1
            found = wanted[np.maximum(field.values, -1)]
        return ~found if self.operator in (CATEGORY[1], TEXT[1]) else found


def matching(
    fields: Mapping[str, Field], conditions: Sequence[Condition], any_of: bool = False
) -> NDArray[np.int64]:
    """Rows for which all conditions hold, or at least one; none where no condition says anything."""
    masks = [c.holds(fields[c.field]) for c in conditions if not c.says_nothing]
    if not masks:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.logical_or.reduce(masks) if any_of else np.logical_and.reduce(masks))


def lowest(scores: NDArray, k: int) -> NDArray[np.int64]:
    """The rows with the ``k`` lowest scores, ascending by row; of equal scores the first rows."""
    if k >= len(scores):
        return np.arange(len(scores))
    limit = np.partition(scores, k - 1)[k - 1]
    below = np.flatnonzero(scores < limit)
    return np.sort(np.concatenate([below, np.flatnonzero(scores == limit)[: k - len(below)]]))


class Pasted(NamedTuple):
    """What was found of pasted row numbers or ids."""

    rows: NDArray[np.int64]
    """ascending"""
    unknown: list[str]
    """What names no row, as it was pasted."""


def pasted(text: str, n: int, ids: Mapping[str, int] | None = None) -> Pasted:
    """The rows named in ``text``: numbers or ids between commas, semicolons, spaces or lines.

    Args:
        text: as it was pasted; without ``ids`` a range 5-9 stands for all from 5 to 9.
        n: number of rows.
        ids: id -> row; None where row numbers are expected.
    """
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    unknown = []
    for part in re.sub(r"(?<=\d)\s*[-–]\s*(?=\d)", "-", text).replace(",", " ").replace(";", " ").split():
        if ids is not None:
            if part in ids:
                rows.append(np.array([ids[part]]))
            else:
                unknown.append(part)
            continue
        ends = re.fullmatch(r"(\d{1,15})(?:-(\d{1,15}))?", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        if first > last or first >= n:
            unknown.append(part)
            continue
        if last >= n:
            unknown.append(f"{n}-{last}")
        rows.append(np.arange(first, min(last + 1, n)))
    return Pasted(np.unique(np.concatenate(rows)), unknown)
