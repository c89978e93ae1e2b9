"""Demos: small real or synthetic projects, each trained in seconds and the same for the same seed."""

from __future__ import annotations

from typing import Any

from puma_dash.core.demos.digits import Digits
from puma_dash.core.demos.mnist import Mnist
from puma_dash.core.demos.radial import Radial
from puma_dash.core.demos.two_moons import TwoMoons

__all__ = ["DEMOS", "Digits", "Mnist", "Radial", "TwoMoons"]

DEMOS: dict[str, Any] = {"digits": Digits, "two-moons": TwoMoons, "radial": Radial, "mnist": Mnist}
