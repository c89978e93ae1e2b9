"""What to do to a model: which rows change, what must hold, and how. Checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion

INTENTS = ("unseen", "forget")
Label = int | float | tuple[float, ...]
"""A class number, or the value of a regression, one for each of its outputs."""


@dataclass(frozen=True, kw_only=True)
class PatchPlan:
    """What to do: which rows change, what must hold, and how. Checked on construction.

    Args:
        remove: training rows whose influence goes (e = -1).
        upweight: row -> e > 0: the row counts 1 + e times.
        relabel: row -> new class number, or new value (values, where a regression has several outputs): the
            row as it was goes, the row with the new label comes.
        hold: criteria (registry keys or instances) that must not get worse.
        method: a key of ``UNLEARNERS`` or an instance.
        intent: "unseen" (as if never trained on) or "forget"; they differ only with more than one step.
        strength: tau, dimensionless; 1 is the whole removal.
        steps: relinearised steps; 1 is the PUMA patch.
        tolerance: criterion name -> how much it may get worse, in its own unit (default 0).

    Raises:
        ProjectError: the plan contradicts itself; the message says where.
    """

    remove: tuple[int, ...] = ()
    upweight: Mapping[int, float] = field(default_factory=dict)
    relabel: Mapping[int, Label] = field(default_factory=dict)
    hold: tuple[str | Criterion, ...] = ()
    method: Any = "puma"
    intent: str = "unseen"
    strength: float = 1.0
    steps: int = 1
    tolerance: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Brings the fields into one form and refuses contradictions."""
        remove = _row_numbers(self.remove, "remove")
        object.__setattr__(self, "remove", tuple(sorted(remove)))
        for name in ("upweight", "relabel"):
            mapping = dict(getattr(self, name))
            rows = _row_numbers(mapping, name)
            values = map(_plain, mapping.values())
            object.__setattr__(self, name, dict(sorted(zip(rows, values, strict=True))))
        hold = (self.hold,) if isinstance(self.hold, str) or callable(self.hold) else tuple(self.hold)
        object.__setattr__(self, "hold", hold)
        object.__setattr__(self, "tolerance", dict(self.tolerance))
        _check_plan(self)

    @property
    def rows(self) -> tuple[int, ...]:
        """Every row the user touched, ascending."""
        return tuple(sorted({*self.remove, *self.upweight, *self.relabel}))


def _plain(value: Any) -> Any:
    """``value`` without numpy or torch: several values as a tuple."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, list) else value


def _row_numbers(rows: Iterable[Any], name: str) -> list[int]:
    numbers = []
    for row in np.asarray(list(rows)).ravel().tolist():
        if isinstance(row, bool) or not isinstance(row, int):
            raise ProjectError(f"expected whole row numbers in {name}, but got {row!r}.")
        numbers.append(row)
    negative = [row for row in numbers if row < 0]
    if negative:
        raise ProjectError(f"expected row numbers from 0 in {name}, but got {listing(negative)}.")
    seen: set[int] = set()
    repeated = {row for row in numbers if row in seen or seen.add(row)}  # type: ignore[func-returns-value]
    if repeated:
        raise ProjectError(
            f"expected each row once in {name}, but got {listing(repeated)} more than once; "
            f"try puma.Selection(rows).rows, which drops repetitions."
        )
    return numbers


def _check_plan(plan: PatchPlan) -> None:
    if not plan.rows:
        raise ProjectError(
            "expected at least one row to remove, up-weight or relabel, but the plan is empty; "
            "try remove=valuation.harmful(50)."
        )
    names = ("remove", "upweight", "relabel")
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = set(getattr(plan, first)) & set(getattr(plan, second))
            if both:
                raise ProjectError(
                    f"expected {first} and {second} to name different rows, but both name {listing(both)}; "
                    "try leaving those rows in one of the two."
                )
    bad = [row for row, e in plan.upweight.items() if not _positive(e)]
    if bad:
        raise ProjectError(
            f"expected upweight values e > 0 (1.0 counts the row twice), but rows {listing(bad)} have others."
        )
    if plan.intent not in INTENTS:
        raise ProjectError(f"expected intent to be one of {', '.join(INTENTS)}, but got {plan.intent!r}.")
    if not _positive(plan.strength):
        raise ProjectError(
            f"expected a finite strength > 0, but got {plan.strength!r}; 1.0 is the whole patch."
        )
    if not isinstance(plan.steps, int) or plan.steps < 1:
        raise ProjectError(f"expected a whole number of steps from 1, but got {plan.steps!r}.")
    held = [hold if isinstance(hold, str) else hold.name for hold in plan.hold]
    if len(set(held)) < len(held):
        raise ProjectError(f"expected each held criterion once, but got {', '.join(held)}.")
    unknown = set(plan.tolerance) - set(held)
    if unknown:
        raise ProjectError(
            f"expected tolerances for held criteria only ({', '.join(held) or 'none is held'}), "
            f"but got {', '.join(sorted(unknown))}."
        )
    bad_tolerance = [name for name, value in plan.tolerance.items() if value != 0 and not _positive(value)]
    if bad_tolerance:
        raise ProjectError(f"expected tolerances >= 0, but {', '.join(bad_tolerance)} has another.")


def _positive(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(math.isfinite(value) and value > 0)
