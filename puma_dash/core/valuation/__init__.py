"""Valuation: one score per training row, lower means more suspicious for every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from puma_dash.core.registry import resolve
from puma_dash.core.valuation.baselines import NegativeLoss, Random
from puma_dash.core.valuation.gradient_dot import GradientDot
from puma_dash.core.valuation.psi import Psi
from puma_dash.core.valuation.self_influence import SelfInfluence
from puma_dash.core.valuation.tracin import TracIn

__all__ = [
    "VALUATIONS",
    "GradientDot",
    "NegativeLoss",
    "Psi",
    "Random",
    "SelfInfluence",
    "TracIn",
    "resolve_valuation",
]

VALUATIONS: dict[str, Any] = {
    "psi": Psi,
    "self_influence": SelfInfluence,
    "tracin": TracIn,
    "gradient_dot": GradientDot,
    "loss": NegativeLoss,
    "random": Random,
}


def resolve_valuation(value: str | Callable[..., Any]) -> Any:
    """The valuation method named ``value``, or ``value`` itself."""
    return resolve(VALUATIONS, value, "valuation method")
