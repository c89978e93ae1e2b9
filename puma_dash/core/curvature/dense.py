"""The whole matrix B in memory, factored once: exact, for small models."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import vjp, vmap

from puma_dash.core.curvature.base import (
    Estimate,
    Inverse,
    Solution,
    facts,
    indefinite,
)
from puma_dash.core.curvature.costs import BACKWARD, PRODUCT, RECORDED, Costs
from puma_dash.core.curvature.damping import damping_field, settle_damping
from puma_dash.core.objective import forward
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

LARGEST = 20_000
"""Parameters above which the matrix is refused (3 GB in float64)."""
JACOBIAN_NUMBERS = 2**24
"""A chunk of rows is chosen so that its Jacobian holds about this many numbers."""


@dataclass(frozen=True)
class Dense(Described):
    """B = (1/n) sum_j a_j J_j^T H_j J_j + (wd + damping) I as a matrix, solved by Cholesky.

    With ``matrix="hessian"`` the exact Hessian of J takes the place of the Gauss-Newton matrix; the two agree
    for models that are linear in their parameters. A matrix that is not positive definite is refused.
    """

    label = "dense Cholesky"
    reference = "Schraudolph (2002), Fast curvature matrix-vector products for second-order gradient descent"

    damping: float | str = damping_field()
    matrix: str = field(
        default="ggn", metadata={"help": "Gauss-Newton or exact Hessian.", "choices": "ggn hessian"}
    )

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of B at ``theta``: the factor is computed here, once.

        Raises:
            ProjectError: B is too large for memory or not positive definite.
        """
        p = len(engine.theta)
        if p > LARGEST:
            raise ProjectError(
                f"expected at most {LARGEST:,} parameters for a dense matrix, but the model has {p:,} "
                f"({p * p * engine.dtype.itemsize / 2**30:.1f} GiB); try puma.ConjugateGradient()."
            )
        start = time.perf_counter()
        damping = settle_damping(engine, self.damping)
        build = gauss_newton_matrix if self.matrix == "ggn" else hessian_matrix
        b = build(engine, theta)
        b.diagonal().add_(engine.weight_decay + damping)
        factor, failed = torch.linalg.cholesky_ex(b)
        if failed:
            raise indefinite(f"Cholesky stopped at row {int(failed)} of {p}", damping)
        described = facts(engine, self.label, self.matrix, damping, engine.n)
        described["factor_seconds"] = time.perf_counter() - start

        def solve(vectors: Tensor) -> Solution:
            begin = time.perf_counter()
            x = torch.cholesky_solve(vectors.T, factor).T
            size = vectors.norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
            residual = float(((x @ b - vectors).norm(dim=1) / size).max())
            return Solution(x, residual, 0, time.perf_counter() - begin)

        return Inverse(solve, described)

    def estimate(self, engine: Engine) -> Estimate:
        """What the matrix, its factor and one solve will cost."""
        costs, p = Costs.of(engine), len(engine.theta)
        number, c = engine.dtype.itemsize, max(1, len(engine.project.class_names or ()))
        seconds = float(costs.multiplication * p**3 / 3)
        if self.matrix == "ggn":
            seconds += costs.passes(engine.n, RECORDED + c * BACKWARD)
            seconds += costs.multiplication * engine.n * c * p**2
            rows = min(engine.n, _chunk(engine))
            work = 2 * rows * c * (p + engine.activations()) * number
        else:
            seconds += p * costs.passes(engine.n, 2 * PRODUCT)
            work = p * p * number + 4 * int(costs.graph(min(engine.n, engine.batch_size)))
        note = f"dense matrix of {p:,} parameters on {engine.n:,} rows"
        return Estimate(seconds, int(3 * p * p * number + work), note)


def _chunk(engine: Engine) -> int:
    return max(1, JACOBIAN_NUMBERS // (len(engine.theta) * max(1, len(engine.project.class_names or ()))))


def gauss_newton_matrix(engine: Engine, theta: Tensor | None = None) -> Tensor:
    """G = (1/n) sum_j a_j J_j^T H_j J_j (p, p), summed over chunks of rows."""
    train, p = engine.split("train"), len(engine.theta)
    named = engine.parameters.unflatten(engine.theta if theta is None else theta)

    def rooted_jacobian(row: Tensor, target: Tensor) -> Tensor:
        """S^T J (c, p) of one row, with S S^T = H."""
        outputs, pull, *_ = vjp(lambda leaf: forward(engine.model, leaf, row[None]), named)
        root = engine.loss.hessian_root(outputs.detach(), target[None])[0]  # (c, c)
        (gradients,) = vmap(pull)(root.T[:, None, :])
        return torch.cat([gradients[name].reshape(len(root), -1) for name in engine.parameters.names], dim=1)

    chunk = _chunk(engine)
    total = engine.theta.new_zeros(p, p)
    for start in range(0, engine.n, chunk):
        engine.tick(start, engine.n, "Curvature matrix")
        part = slice(start, start + chunk)
        try:
            jacobians = vmap(rooted_jacobian)(engine.to(train.inputs[part]), train.targets[part])
        except (RuntimeError, NotImplementedError) as error:
            raise ProjectError(
                f"expected a model whose rows can be differentiated one by one, but torch.func refused it "
                f"({str(error).splitlines()[0]}); try puma.ConjugateGradient()."
            ) from error
        if train.weights is not None:
            jacobians = jacobians * train.weights[part].to(jacobians).sqrt()[:, None, None]
        flat = jacobians.reshape(-1, p)
        total.addmm_(flat.T, flat)
    return total / engine.n


def hessian_matrix(engine: Engine, theta: Tensor | None = None) -> Tensor:
    """(1/n) sum_j a_j grad^2 l_j (p, p), one exact product per parameter."""
    product, p = engine.hessian_product(theta), len(engine.theta)
    columns = []
    for i, unit in enumerate(torch.eye(p, dtype=engine.dtype, device=engine.device)):
        if i % 50 == 0:
            engine.tick(i, p, "Exact Hessian")
        columns.append(product(unit[None])[0])
    matrix = torch.stack(columns)
    return (matrix + matrix.T) / 2
