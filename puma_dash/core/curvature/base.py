"""What every curvature shares: the inverse it returns, and what that says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from puma_dash.core.curvature.sampling import sample_rows
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

RESIDUAL_ROWS = 4_000
"""Training rows on which the residual of an approximate inverse is measured, at most."""


class Solution(NamedTuple):
    """x = B^-1 v for each right-hand side, and how well it was found."""

    x: Tensor
    """(k, p)"""
    residual: float
    """The largest |B x - v| / |v| of the k systems."""
    iterations: int
    """Products with B that the slowest system needed; 0 for a factorisation."""
    seconds: float
    facts: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    """What only this solve can say, such as the fidelity that it reached."""


@dataclass(frozen=True, eq=False)
class Inverse:
    """B^-1 as a function of right-hand sides (k, p), with the facts a reader needs to trust it."""

    solve: Callable[[Tensor], Solution]
    facts: dict[str, Any]

    def __call__(self, vectors: Tensor) -> Solution:
        """Solves B x = v for every row v of ``vectors`` (k, p)."""
        return self.solve(vectors)


@dataclass(frozen=True)
class Estimate:
    """What a computation will cost, to within a factor of about 3 on an idle machine."""

    seconds: float
    bytes: int
    """Most memory on the device at a time, beyond the data and the model."""
    note: str
    """What the time goes into."""

    def __add__(self, other: Estimate) -> Estimate:
        """One after the other: times add up, memory does not."""
        return Estimate(
            self.seconds + other.seconds, max(self.bytes, other.bytes), f"{self.note}; {other.note}"
        )


class Curvature(Protocol):
    """Called on an engine, gives the inverse of B at theta (default theta_org)."""

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse."""

    def estimate(self, engine: Engine) -> Estimate:
        """What the inverse and one right-hand side will cost; nothing is factored for it."""


class Residual:
    """|B x - v| / |v| with the Gauss-Newton B itself: the check of inverses that only approximate it.

    Args:
        engine: of the project.
        theta: (p,) where; default theta_org.
        shift: wd + damping.

    Attributes:
        rows: how many training rows make up its B: all, or a sample of ``RESIDUAL_ROWS``.
        product: v -> B v (k, p) on those rows.
    """

    def __init__(self, engine: Engine, theta: Tensor | None, shift: float) -> None:
        self.rows = min(engine.n, RESIDUAL_ROWS)
        gauss_newton = engine.gauss_newton_product(*sample_rows(engine, self.rows, seed=0), theta=theta)
        self.product = lambda vectors: gauss_newton(vectors) + shift * vectors

    def __call__(self, x: Tensor, vectors: Tensor) -> float:
        """The largest of the k systems (k, p)."""
        size = vectors.norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
        return float(((self.product(x) - vectors).norm(dim=1) / size).max())


def facts(engine: Engine, name: str, matrix: str, damping: float, rows: int) -> dict[str, Any]:
    """What every inverse says of itself."""
    return {
        "curvature": name,
        "matrix": {"ggn": "Gauss-Newton matrix", "hessian": "exact Hessian"}[matrix],
        "damping": damping,
        "weight_decay": engine.weight_decay,
        "rows": rows,
        "parameters": len(engine.theta),
        "device": describe_device(engine.device),
        "dtype": str(engine.dtype).removeprefix("torch."),
    }


def describe_device(device: torch.device) -> str:
    """The device as a person would name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def indefinite(where: str, damping: float) -> ProjectError:
    """The refusal of a B with negative curvature."""
    return ProjectError(
        f"expected positive curvature, but B has a direction of zero or negative curvature ({where}, "
        f"damping {damping:g}), so that its inverse would be meaningless; "
        'try matrix="ggn", which is never negative, or a larger damping.'
    )
