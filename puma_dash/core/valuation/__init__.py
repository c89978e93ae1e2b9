"""Valuation: one score per training row, lower means more suspicious for every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from puma_dash.core.registry import resolve
from puma_dash.core.valuation.baselines import NegativeLoss, Random
from puma_dash.core.valuation.confident_learning import ConfidentLearning
from puma_dash.core.valuation.data_shapley import DataShapleyTMC
from puma_dash.core.valuation.dvrl import DVRL
from puma_dash.core.valuation.gradient_dot import GradientDot
from puma_dash.core.valuation.gradient_shapley import DataShapleyG
from puma_dash.core.valuation.influence import Influence
from puma_dash.core.valuation.knn_shapley import KnnShapley
from puma_dash.core.valuation.leave_one_out import LeaveOneOut
from puma_dash.core.valuation.psi import Psi
from puma_dash.core.valuation.representer import Representer
from puma_dash.core.valuation.self_influence import SelfInfluence
from puma_dash.core.valuation.tracin import TracIn

__all__ = [
    "DVRL",
    "VALUATIONS",
    "ConfidentLearning",
    "DataShapleyG",
    "DataShapleyTMC",
    "GradientDot",
    "Influence",
    "KnnShapley",
    "LeaveOneOut",
    "NegativeLoss",
    "Psi",
    "Random",
    "Representer",
    "SelfInfluence",
    "TracIn",
    "resolve_valuation",
]

VALUATIONS: dict[str, Any] = {
    "psi": Psi,
    "influence": Influence,
    "self_influence": SelfInfluence,
    "tracin": TracIn,
    "gradient_dot": GradientDot,
    "representer": Representer,
    "knn_shapley": KnnShapley,
    "data_shapley_tmc": DataShapleyTMC,
    "data_shapley_g": DataShapleyG,
    "dvrl": DVRL,
    "leave_one_out": LeaveOneOut,
    "confident_learning": ConfidentLearning,
    "loss": NegativeLoss,
    "random": Random,
}


def resolve_valuation(value: str | Callable[..., Any]) -> Any:
    """The valuation method named ``value``, or ``value`` itself."""
    return resolve(VALUATIONS, value, "valuation method")
