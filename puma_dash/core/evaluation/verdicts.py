"""Whether a rail holds: tests of a change against its tolerance, and of several of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.evaluation.estimates import holm
from puma_dash.core.evaluation.statistics import row_draws
from puma_dash.core.types import Patch, Project, ProjectError, Split

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.engine import Engine

RESAMPLES = 1_000
ALPHA = 0.05
"""Chance that any verdict of a table is wrong, where a change is just as large as its tolerance."""


class Evidence(NamedTuple):
    """A change against its tolerance."""

    low: float
    high: float
    """The interval of the change, of coverage 1 - ALPHA."""
    p: float
    """Two-sided, of a change as large as the tolerance."""
    within: bool
    """On which side of the tolerance the evidence is."""


def evidence(draws: ArrayLike, tolerance: float, rows: int) -> Evidence:
    """A bootstrapped change against ``tolerance``: which side it is on, how surely, and its interval.

    The percentile interval is widened for small samples by (rows / (rows - 1))^(1/2) and Student's t in
    place of the normal distribution, and p is that of the widest such interval that leaves the tolerance out.
    A single row says nothing.

    Args:
        draws: (b,) the change on resampled rows.
        tolerance: how much it may be.
        rows: how many were resampled: those of the smallest stratum.

    References:
        Hesterberg (2015), What teachers should know about the bootstrap.
    """
    from scipy.stats import norm, t

    values = np.asarray(draws, dtype=np.float64)
    over = int((values > tolerance).sum())
    within = 2 * over <= len(values)
    if rows < 2:
        return Evidence(float(values.min()), float(values.max()), 1.0, within)
    tail = (1 + min(over, len(values) - over)) / (len(values) + 1)
    shrink = np.sqrt((rows - 1) / rows)
    p = 2 * t.sf(max(shrink * norm.isf(tail), 0.0), rows - 1)
    widened = norm.sf(t.isf(ALPHA / 2, rows - 1) / shrink)
    low, high = np.quantile(values, [widened, 1 - widened])
    return Evidence(float(low), float(high), float(min(p, 1.0)), within)


def verdict(p: float, within: bool) -> str:
    """Pass, fail or inconclusive."""
    if p > ALPHA:
        return "inconclusive"
    return "pass" if within else "fail"


def rails(patch: Patch, split: str, before: Engine, after: Engine, seed: int) -> list[dict[str, Any]]:
    """What is known of each held criterion: predicted, measured, tolerance, interval of the change, p.

    Criteria on all rows of validation, where patches are tuned, are judged on ``split``, if they can be.
    """
    found = []
    for hold in patch.plan.hold:
        held = resolve_criterion(hold)
        criterion = _on(held, split, before.project)
        data = criterion.evaluation(before)  # adversarial examples stay those of the model before
        tolerance = patch.plan.tolerance.get(held.name, 0.0)
        strata = criterion.strata(data)
        smallest = np.bincount(strata[strata >= 0]).min()
        drawn = row_draws(_change(criterion, data, before, after), strata, seed=seed, resamples=RESAMPLES)
        found.append(
            {
                "criterion": criterion.name,
                "label": criterion.label + criterion.name.removeprefix(criterion.key),
                "unit": criterion.unit,
                "test": "paired bootstrap",
                "held": True,
                "predicted": patch.predicted.get(held.name, np.nan) if criterion == held else np.nan,
                "measured": after.criterion(criterion, data=data) - before.criterion(criterion, data=data),
                "tolerance": tolerance,
                **evidence(drawn, tolerance, smallest)._asdict(),
            }
        )
    return found


def judged(changes: list[dict[str, Any]]) -> pd.DataFrame:
    """The table of rails with p adjusted for their number, and the verdict on each."""
    import pandas as pd

    table = pd.DataFrame(changes)
    table["p"] = holm(table["p"])
    table["verdict"] = [verdict(*found) for found in zip(table["p"], table.pop("within"), strict=True)]
    return table


def _on(held: Criterion, split: str, project: Project) -> Criterion:
    """``held`` on ``split``; as it is where it names another split or rows, or ``split`` lacks its groups."""
    if held.rows is not None or held.split != "validation":
        return held
    moved = dataclasses.replace(held, split=split)
    try:
        moved.check(project)
    except ProjectError:
        return held
    return moved


def _change(
    criterion: Criterion, data: Split, before: Engine, after: Engine
) -> Callable[[np.ndarray], float]:
    """The criterion's change as a function of the numbers of its evaluation rows ``data``."""
    old, new = (
        criterion.per_row(engine.outputs(data), data, engine.loss).to("cpu", before.dtype)
        for engine in (before, after)
    )

    def change(rows: np.ndarray) -> float:
        times = torch.from_numpy(np.bincount(rows, minlength=len(data))).to(new) / len(data)
        return float(
            criterion.of_means(torch.tensordot(times, new, 1))
            - criterion.of_means(torch.tensordot(times, old, 1))
        )

    return change
