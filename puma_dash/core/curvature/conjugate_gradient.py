"""Conjugate gradients on B without forming it: products only, any size of model."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from puma_dash.core.curvature.base import (
    Estimate,
    Inverse,
    Solution,
    facts,
    indefinite,
)
from puma_dash.core.curvature.costs import PRODUCT, RECORDED, Costs
from puma_dash.core.curvature.damping import damping_field, settle_damping
from puma_dash.core.curvature.krylov import Block, conjugate_gradient
from puma_dash.core.curvature.sample_space import (
    SampleSpace,
    preconditioner,
    preconditioner_estimate,
    usual_count,
)
from puma_dash.core.curvature.sampling import sample_rows
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from puma_dash.core.engine import Engine

ROWS_TIMES_ERROR = 300
"""Curvature rows that are tried first, times the squared error that is allowed: what small CNNs needed."""
SLACK = 0.6
"""Share of the allowed error that conjugate gradients may use up where the rows are a sample."""
SEEN = 0.1
"""Rows are sampled where wd + damping is at least this share of the preconditioner's d. With less, curvature
in directions that few rows know decides, which samples miss without a word."""
PER_DIGIT = {True: 3.5, False: 10.0}
"""Products that a digit of accuracy needed, with and without a preconditioner, on small networks."""


@dataclass(frozen=True)
class ConjugateGradient(Described):
    """B x = v by conjugate gradients; B = Gauss-Newton matrix (or exact Hessian) + (wd + damping) I.

    They are preconditioned (``sample_space``) by what is factored once for every question. The relative
    residual reached is reported with every answer. Negative curvature, which only the exact Hessian can
    have, is refused.

    With a ``fidelity`` f the solve stops at the relative error sqrt(1 - f^2) in the norm of B, estimated from
    above (``krylov``). That is the error of psi over the training rows, so that f estimates the correlation
    of psi with its exact values. Where the curvature rows are a sample, the error is measured on two further
    samples: their residuals a and b are independent, so that a^T P b, with P the preconditioner, is free of
    the noise of either. The sample grows until the error is small enough. With tiny damping (``SEEN``) all
    rows are taken.
    """

    label = "conjugate gradient"
    reference = "Martens (2010), Deep learning via Hessian-free optimization"

    damping: float | str = damping_field()
    rows: int | None = field(
        default=None,
        metadata={"help": "Training rows drawn to make up the curvature; empty for all.", "min": 1},
    )
    tolerance: float = field(
        default=1e-2, metadata={"help": "Stop at this relative residual.", "min": 1e-12, "max": 0.1}
    )
    fidelity: float | None = field(
        default=None,
        metadata={
            "help": "Correlation with the exact psi to reach; rows and stopping then follow from it.",
            "min": 0.5,
            "max": 0.99999,
        },
    )
    preconditioner: int | None = field(
        default=None, metadata={"help": "Gradients that precondition; empty chooses, 0 is none.", "min": 0}
    )
    max_iterations: int = field(default=500, metadata={"help": "Stop after this many products.", "min": 1})
    matrix: str = field(
        default="ggn", metadata={"help": "Gauss-Newton or exact Hessian.", "choices": "ggn hessian"}
    )
    seed: int = seed_field("the drawn rows")

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of B at ``theta``; the preconditioner, of theta_org, is factored here or before.

        Raises:
            ProjectError: no such number of rows, or (when solving) negative curvature.
        """
        self._check_rows(engine)
        begin = time.perf_counter()
        damping = settle_damping(engine, self.damping)
        system = System(self, engine, theta, damping)
        described = facts(engine, self.label, self.matrix, damping, system.rows)
        described["preconditioner_rows"] = len(system.precondition.rows) if system.precondition else 0
        if self.fidelity is not None and system.precondition is not None:
            described["fidelity_asked"] = self.fidelity
        described["factor_seconds"] = time.perf_counter() - begin

        def solve(vectors: Tensor) -> Solution:
            begin = time.perf_counter()
            if self.fidelity is None or system.precondition is None:
                found, reached = system.to_residual(vectors, self.tolerance), None
            else:
                found, reached = system.to_fidelity(vectors, self.fidelity)
            own = {"rows": system.rows} | ({} if reached is None else {"fidelity": reached})
            size = vectors.norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
            residual = float((found.residual.norm(dim=1) / size).max())
            return Solution(found.x, residual, found.products, time.perf_counter() - begin, own)

        return Inverse(solve, described)

    def estimate(self, engine: Engine) -> Estimate:
        """What the preconditioner and one solve will cost, with as many products as small networks needed."""
        self._check_rows(engine)
        costs, n = Costs.of(engine), engine.n
        count = usual_count(engine) if self.preconditioner is None else min(self.preconditioner, n)
        first, use = preconditioner_estimate(engine, count)
        rows, error = self.rows or n, self.tolerance
        if self.fidelity is not None and count:
            error = math.sqrt(1 - self.fidelity**2)
            rows = self.rows or fitting(engine.memo.get(("rows", self)) or ROWS_TIMES_ERROR / error**2, n)
        products = 1 + round(PER_DIGIT[count > 0] * -math.log10(error))
        products = min(products, len(engine.theta), self.max_iterations)
        seconds = products * (costs.passes(rows, PRODUCT if self.matrix == "ggn" else 2 * PRODUCT) + use)
        seconds += costs.passes(rows, RECORDED)
        if rows < n and self.rows is None:
            seconds += costs.passes(n) + costs.passes(rows / 2, PRODUCT + RECORDED)  # shares, and the check
        note = f"about {products} products on {rows:,} of {n:,} rows"
        note += f", preconditioned by {count:,} gradients" if count else ""
        held = costs.product_bytes(rows) + costs.vectors(6)
        return Estimate(first.seconds + seconds, int(first.bytes + held), note)

    def _check_rows(self, engine: Engine) -> None:
        if self.matrix == "hessian" and (self.rows is not None or self.fidelity is not None):
            raise ProjectError(
                "expected rows=None and fidelity=None with the exact Hessian, whose estimate from a few rows "
                'need not be positive; try matrix="ggn".'
            )
        if self.rows is not None and self.rows > engine.n:
            raise ProjectError(f"expected 1 to {engine.n} curvature rows, but got {self.rows}.")


def fitting(rows: float, n: int) -> int:
    """``rows`` as a number; all ``n`` of them where a sample would not save much."""
    return n if rows > n / 2 else int(rows)


class System:
    """B at one theta, on all rows or a sample, with its preconditioner."""

    def __init__(
        self, settings: ConjugateGradient, engine: Engine, theta: Tensor | None, damping: float
    ) -> None:
        self.settings, self.engine, self.theta = settings, engine, theta
        self.damping, self.shift = damping, engine.weight_decay + damping
        self.precondition: SampleSpace | None = preconditioner(engine, self.shift, settings.preconditioner)
        self.least = self.shift / self.precondition.shift if self.precondition else 1.0
        """The smallest eigenvalue of P B, as far as P has seen the curvature: in the flattest directions."""
        self.rows = settings.rows or engine.n
        if settings.rows is None and settings.fidelity is not None and self.precondition is not None:
            known = engine.memo.get(("rows", settings)) or ROWS_TIMES_ERROR / (1 - settings.fidelity**2)
            self.rows = fitting(known, engine.n) if self.least >= SEEN else engine.n
        self._product = self._draw(self.rows, settings.seed)

    def to_residual(self, vectors: Tensor, tolerance: float) -> Block:
        """Solves to a relative residual."""
        size = vectors.norm(dim=1)
        found = self._run(vectors, None, lambda at: at.residual.norm(dim=1) <= tolerance * size)
        if tolerance >= torch.finfo(vectors.dtype).eps ** 0.5:
            return found
        # There the recursion's residual drifts from the true one.
        return found._replace(residual=vectors - self._apply(found.x))

    def to_fidelity(self, vectors: Tensor, fidelity: float) -> tuple[Block, float | None]:
        """Solves to an error in the norm of B; also gives the fidelity, where it was measured.

        It is not where the rows were given or theta has moved: then the error is that on the rows drawn.
        """
        assert self.precondition is not None
        chosen = self.theta is None and self.settings.rows is None
        allowed, x, products = 1 - fidelity**2, None, 0
        while True:
            sampled = self.rows < self.engine.n
            enough = (SLACK**2 if sampled else 1) * allowed
            found = self._run(vectors, x, lambda at: at.relative_error(vectors) <= enough)  # noqa: B023
            products += found.products
            error = float(found.relative_error(vectors).max())
            if sampled and chosen:
                error = self._error_elsewhere(vectors, found.x)
            if not chosen or not sampled or error <= allowed:
                known = chosen or not sampled
                reached = math.sqrt(min(max(0.0, 1 - error), 1.0))  # an estimate may fall below 0
                return found._replace(products=products), reached if known else None
            self.rows, x = fitting(self.rows * max(2.0, 1.2 * error / allowed), self.engine.n), found.x
            self._product = self._draw(self.rows, self.settings.seed)
            self.engine.memo["rows", self.settings] = self.rows

    def _error_elsewhere(self, vectors: Tensor, x: Tensor) -> float:
        """The squared relative error of ``x``, from the residuals on two samples that it does not know."""
        assert self.precondition is not None
        count = max(1, self.rows // 4)
        a, b = (
            vectors - self._draw(count, seed)(x) - self.shift * x
            for seed in (self.settings.seed + 1, self.settings.seed + 2)
        )
        size = (vectors * self.precondition(vectors)).sum(1).clamp_min(torch.finfo(vectors.dtype).tiny)
        return float(((a * self.precondition(b)).sum(1) / size).max())

    def _draw(self, rows: int, seed: int) -> Callable[[Tensor], Tensor]:
        if self.settings.matrix == "hessian":
            return self.engine.hessian_product(self.theta)
        if rows >= self.engine.n:
            return self.engine.gauss_newton_product(theta=self.theta)
        return self.engine.gauss_newton_product(*sample_rows(self.engine, rows, seed), theta=self.theta)

    def _apply(self, vectors: Tensor) -> Tensor:
        return self._product(vectors) + self.shift * vectors

    def _run(self, vectors: Tensor, start: Tensor | None, finished: Callable[[Block], Tensor]) -> Block:
        most = self.settings.max_iterations
        return conjugate_gradient(
            self._apply,
            vectors,
            start=start,
            precondition=self.precondition or (lambda v: v),
            least=self.least,
            finished=finished,
            max_iterations=most,
            on_iteration=lambda i: self.engine.tick(i, most, "Inverse curvature"),
            on_negative=lambda: indefinite("met by conjugate gradients", self.damping),
        )
