"""Criteria: differentiable scalars, lower is better, that a validator cares about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from puma_dash.core.criteria.base import Criterion
from puma_dash.core.criteria.brier import Brier
from puma_dash.core.criteria.calibration import Calibration
from puma_dash.core.criteria.cross_entropy import CrossEntropy
from puma_dash.core.criteria.fairness import (
    DemographicParity,
    EqualizedOdds,
    WorstGroup,
    WorstGroupError,
)
from puma_dash.core.criteria.margin import Margin
from puma_dash.core.criteria.robustness import Adversarial
from puma_dash.core.criteria.squared_error import MeanSquaredError
from puma_dash.core.registry import resolve, usable

if TYPE_CHECKING:
    from puma_dash.core.types import Project

__all__ = [
    "CRITERIA",
    "Adversarial",
    "Brier",
    "Calibration",
    "Criterion",
    "CrossEntropy",
    "DemographicParity",
    "EqualizedOdds",
    "Margin",
    "MeanSquaredError",
    "WorstGroup",
    "WorstGroupError",
    "resolve_criterion",
    "usable_criteria",
]

CRITERIA: dict[str, type[Criterion]] = {
    "cross_entropy": CrossEntropy,
    "brier": Brier,
    "calibration": Calibration,
    "margin": Margin,
    "worst_group": WorstGroup,
    "demographic_parity": DemographicParity,
    "equalized_odds": EqualizedOdds,
    "adversarial": Adversarial,
    "squared_error": MeanSquaredError,
    "worst_group_error": WorstGroupError,
}


def resolve_criterion(value: str | Criterion) -> Criterion:
    """The criterion named ``value``, or ``value`` itself."""
    return resolve(CRITERIA, value, "criterion")


def usable_criteria(project: Project) -> dict[str, str | None]:
    """Key of every criterion -> None where ``project`` can use it as it is, else the reason why not."""
    return usable(CRITERIA, project)
