"""Unlearning: from a plan to a changed model, by PUMA and by the methods it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from puma_dash.core.registry import resolve
from puma_dash.core.unlearning.amnesiac import Amnesiac
from puma_dash.core.unlearning.base import Update
from puma_dash.core.unlearning.fine_tune import FineTune
from puma_dash.core.unlearning.gradient_ascent import GradientAscent
from puma_dash.core.unlearning.influence import InfluenceRemoval
from puma_dash.core.unlearning.puma import Puma
from puma_dash.core.unlearning.retrain import Retrain
from puma_dash.core.unlearning.sisa import Sisa
from puma_dash.core.unlearning.unrolled_sgd import UnrolledSGD

__all__ = [
    "UNLEARNERS",
    "Amnesiac",
    "FineTune",
    "GradientAscent",
    "InfluenceRemoval",
    "Puma",
    "Retrain",
    "Sisa",
    "UnrolledSGD",
    "Update",
    "resolve_unlearner",
]

UNLEARNERS: dict[str, Any] = {
    "puma": Puma,
    "influence": InfluenceRemoval,
    "retrain": Retrain,
    "fine_tune": FineTune,
    "sisa": Sisa,
    "amnesiac": Amnesiac,
    "unrolled_sgd": UnrolledSGD,
    "gradient_ascent": GradientAscent,
}


def resolve_unlearner(value: str | Callable[..., Any]) -> Any:
    """The unlearning method named ``value``, or ``value`` itself."""
    return resolve(UNLEARNERS, value, "unlearning method")
