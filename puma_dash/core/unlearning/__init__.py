"""Unlearning: from a plan to a changed model, by PUMA and by the methods it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from puma_dash.core.registry import resolve
from puma_dash.core.unlearning.base import Update
from puma_dash.core.unlearning.influence import InfluenceRemoval
from puma_dash.core.unlearning.puma import Puma
from puma_dash.core.unlearning.retrain import Retrain

__all__ = ["UNLEARNERS", "InfluenceRemoval", "Puma", "Retrain", "Update", "resolve_unlearner"]

UNLEARNERS: dict[str, Any] = {"puma": Puma, "influence": InfluenceRemoval, "retrain": Retrain}


def resolve_unlearner(value: str | Callable[..., Any]) -> Any:
    """The unlearning method named ``value``, or ``value`` itself."""
    return resolve(UNLEARNERS, value, "unlearning method")
