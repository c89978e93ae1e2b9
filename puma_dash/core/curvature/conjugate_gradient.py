"""Conjugate gradients on B without forming it: products only, any size of model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from puma_dash.core.curvature.base import (
    Inverse,
    Solution,
    facts,
    indefinite,
    settle_damping,
)
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class ConjugateGradient(Described):
    """B x = v by conjugate gradients; B = Gauss-Newton matrix (or exact Hessian) + (wd + damping) I.

    The relative residual reached is reported with every answer. Negative curvature, which only the exact
    Hessian can have, is refused.
    """

    label = "conjugate gradient"
    reference = "Martens (2010), Deep learning via Hessian-free optimization"

    damping: float | str = field(
        default="auto", metadata={"help": "Added to the diagonal of B, in units of curvature."}
    )
    rows: int | None = field(
        default=None, metadata={"help": "Random training rows that make up the curvature; empty for all."}
    )
    tolerance: float = field(
        default=1e-2, metadata={"help": "Stop at this relative residual.", "min": 1e-12, "max": 0.1}
    )
    max_iterations: int = field(default=500, metadata={"help": "Stop after this many products.", "min": 1})
    matrix: str = field(
        default="ggn", metadata={"help": "Gauss-Newton or exact Hessian.", "choices": "ggn hessian"}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the random curvature rows."})

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of B at ``theta``; all work happens when it is called.

        Raises:
            ProjectError: no such number of rows, or (when solving) negative curvature.
        """
        damping = settle_damping(engine, self.damping)
        shift = engine.weight_decay + damping
        product = self._product(engine, theta)

        def solve(vectors: Tensor) -> Solution:
            begin = time.perf_counter()
            solved = [
                conjugate_gradient(
                    lambda v: product(v[None])[0] + shift * v,
                    vector,
                    tolerance=self.tolerance,
                    max_iterations=self.max_iterations,
                    on_iteration=lambda i: engine.tick(i, self.max_iterations, "Inverse curvature"),
                    on_negative=lambda: indefinite("met by conjugate gradients", damping),
                )
                for vector in vectors
            ]
            x, residuals, iterations = zip(*solved, strict=True)
            return Solution(torch.stack(x), max(residuals), max(iterations), time.perf_counter() - begin)

        return Inverse(solve, facts(engine, self.label, self.matrix, damping, self.rows or engine.n))

    def _product(self, engine: Engine, theta: Tensor | None) -> Callable[[Tensor], Tensor]:
        if self.matrix == "hessian":
            if self.rows is not None:
                raise ProjectError(
                    f"expected rows=None with the exact Hessian, but got {self.rows}: a Hessian of a few "
                    'rows need not be positive; try matrix="ggn".'
                )
            return engine.hessian_product(theta)
        if self.rows is None or self.rows == engine.n:
            return engine.gauss_newton_product(theta=theta)
        if not 1 <= self.rows <= engine.n:
            raise ProjectError(f"expected 1 to {engine.n} curvature rows, but got {self.rows}.")
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(engine.n, generator=generator)[: self.rows].sort().values
        return engine.gauss_newton_product(chosen, theta)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    vector: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    on_iteration: Callable[[int], None],
    on_negative: Callable[[], Exception],
) -> tuple[Tensor, float, int]:
    """The solution of B x = v, its residual |B x - v| / |v|, the products used (Hestenes, Stiefel 1952)."""
    x = torch.zeros_like(vector)
    size = float(vector.norm())
    if size == 0:
        return x, 0.0, 0
    residual, direction = vector.clone(), vector.clone()
    squared = residual @ residual
    for iteration in range(1, max_iterations + 1):
        on_iteration(iteration)
        curved = product(direction)
        curvature = direction @ curved
        if not curvature > 0:
            raise on_negative()
        step = squared / curvature
        x += step * direction
        residual -= step * curved
        previous, squared = squared, residual @ residual
        if float(squared.sqrt()) <= tolerance * size:
            break
        direction = residual + (squared / previous) * direction
    # The recursion's residual drifts from the true one where rounding ends progress.
    return x, float((vector - product(x)).norm()) / size, iteration
