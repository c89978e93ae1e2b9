"""Criteria: differentiable scalars, lower is better, that a validator cares about."""

from __future__ import annotations

from puma_dash.core.criteria.base import Criterion
from puma_dash.core.criteria.brier import Brier
from puma_dash.core.criteria.cross_entropy import CrossEntropy
from puma_dash.core.criteria.squared_error import MeanSquaredError
from puma_dash.core.registry import resolve

__all__ = ["CRITERIA", "Brier", "Criterion", "CrossEntropy", "MeanSquaredError", "resolve_criterion"]

CRITERIA: dict[str, type[Criterion]] = {
    "cross_entropy": CrossEntropy,
    "brier": Brier,
    "squared_error": MeanSquaredError,
}


def resolve_criterion(value: str | Criterion) -> Criterion:
    """The criterion named ``value``, or ``value`` itself."""
    return resolve(CRITERIA, value, "criterion")
