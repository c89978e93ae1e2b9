"""LiSSA: the inverse of B as a series, summed up by products with mini-batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from puma_dash.core.curvature.base import (
    RESIDUAL_ROWS,
    Estimate,
    Inverse,
    Residual,
    Solution,
    facts,
)
from puma_dash.core.curvature.costs import PRODUCT, RECORDED, Costs
from puma_dash.core.curvature.damping import damping_field, settle_damping
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

POWER_STEPS = 20
ENLARGEMENTS = 5
"""So often an automatic scale is doubled before LiSSA is given up."""


@dataclass(frozen=True)
class LiSSA(Described):
    """x <- x + (v - B_t x) / scale, with the B_t of mini-batches: the Neumann series of B^-1 v.

    B_t holds wd + damping like every B here, so that damping is the true one and scale changes nothing but
    the speed. (In Koh & Liang's recursion x <- v + (1 - damping) x - G_t x / scale the true damping is
    damping * scale.) The series converges for a scale above half the largest eigenvalue of B, at the rate
    1 - (wd + damping) / scale in the flattest directions. The scale "auto" is an estimate of that eigenvalue,
    doubled where the iterate grows or the answer is worse than none; a scale that was given is refused then.
    """

    label = "LiSSA"
    reference = "Agarwal, Bullins & Hazan (2017), Second-order stochastic optimization for machine learning"

    damping: float | str = damping_field()
    depth: int = field(default=1_000, metadata={"help": "Terms of the series.", "min": 1})
    rows: int = field(default=256, metadata={"help": "Training rows of a mini-batch.", "min": 1})
    scale: float | str = field(
        default="auto",
        metadata={
            "help": "Largest eigenvalue of B; too small diverges, too large is slow.",
            "min": 1e-12,
            "choices": "auto",
        },
    )
    samples: int = field(default=1, metadata={"help": "Runs that are averaged.", "min": 1})
    seed: int = seed_field("the mini-batches")

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of B at ``theta``; the largest eigenvalue is estimated here.

        Raises:
            ProjectError: (when solving) the series does not converge.
        """
        begin = time.perf_counter()
        damping = settle_damping(engine, self.damping)
        shift = engine.weight_decay + damping
        residual = Residual(engine, theta, shift)
        largest = largest_eigenvalue(engine, residual.product)
        described = facts(engine, self.label, "ggn", damping, engine.n) | {
            "batch_rows": min(self.rows, engine.n),
            "scale": largest if isinstance(self.scale, str) else float(self.scale),
            "largest_eigenvalue": largest,
            "residual_rows": residual.rows,
            "factor_seconds": time.perf_counter() - begin,
        }

        def solve(vectors: Tensor) -> Solution:
            begin, steps = time.perf_counter(), 0
            for _ in range(ENLARGEMENTS + 1):
                x = torch.zeros_like(vectors)
                for sample in range(self.samples):
                    products = _products(engine, theta, shift, self.rows, self.seed + sample)
                    x += self._series(engine, vectors, products, described["scale"], shift) / self.samples
                steps += self.depth * self.samples
                missed = residual(x, vectors)
                if missed <= 1:
                    return Solution(x, missed, steps, time.perf_counter() - begin)
                if self.scale != "auto":
                    break
                described["scale"] *= 2
            raise ProjectError(
                f"expected LiSSA to converge, but its answer is worse than none (relative residual "
                f"{missed:.1g} at scale {described['scale']:.3g}, largest eigenvalue about {largest:.3g}, "
                f"mini-batches of {described['batch_rows']} rows); "
                'try scale="auto", more rows or a larger damping.'
            )

        return Inverse(solve, described)

    def estimate(self, engine: Engine) -> Estimate:
        """What largest eigenvalue, series and residual will cost, unless the scale is enlarged."""
        costs, rows = Costs.of(engine), min(self.rows, engine.n)
        checked = min(engine.n, RESIDUAL_ROWS)
        each = PRODUCT if rows == engine.n else PRODUCT + RECORDED  # new rows need a new graph
        seconds = self.depth * self.samples * costs.passes(rows, each)
        seconds += costs.passes(checked, RECORDED) + (POWER_STEPS + 1) * costs.passes(checked, PRODUCT)
        held = costs.product_bytes(checked) + costs.product_bytes(rows) + costs.vectors(4)
        note = f"{self.depth * self.samples:,} products on {rows:,} of {engine.n:,} rows"
        return Estimate(seconds, int(held), note)

    def _series(
        self,
        engine: Engine,
        vectors: Tensor,
        products: Iterator[Callable[[Tensor], Tensor]],
        scale: float,
        shift: float,
    ) -> Tensor:
        """x (k, p) after ``depth`` terms, or where it has outgrown every solution, |v| / shift."""
        most = 2 * vectors.norm(dim=1) / shift if shift else torch.full_like(vectors[:, 0], math.inf)
        x = torch.zeros_like(vectors)
        for step in range(self.depth):
            engine.tick(step, self.depth, "LiSSA")
            x = x + (vectors - next(products)(x)) / scale
            if not (x.norm(dim=1) <= most).all():
                break
        return x


def largest_eigenvalue(engine: Engine, product: Callable[[Tensor], Tensor]) -> float:
    """The largest eigenvalue of B, from below, by power iteration."""
    vector = torch.randn(1, len(engine.theta), generator=torch.Generator().manual_seed(0)).to(engine.theta)
    for step in range(POWER_STEPS):
        engine.tick(step, POWER_STEPS, "Largest eigenvalue")
        vector = product(vector / vector.norm())
    return float(vector.norm())


def _products(
    engine: Engine, theta: Tensor | None, shift: float, rows: int, seed: int
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Functions v -> B_t v (k, p), each on the next ``rows`` of the shuffled training rows; all if so few."""
    generator = torch.Generator().manual_seed(seed)

    def shifted(gauss_newton: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda vectors: gauss_newton(vectors) + shift * vectors

    if rows >= engine.n:
        whole = shifted(engine.gauss_newton_product(theta=theta))
        while True:
            yield whole
    weights = torch.full((rows,), engine.n / rows, dtype=torch.float64)
    while True:
        order = torch.randperm(engine.n, generator=generator)
        for chosen in order[: engine.n // rows * rows].split(rows):
            yield shifted(engine.gauss_newton_product(chosen, weights, theta))
