"""K-FAC and EK-FAC: curvature layer by layer, each layer through two small matrices (``kronecker``)."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
from puma_dash.core.curvature.costs import BACKWARD, PRODUCT, RECORDED, Costs
from puma_dash.core.curvature.damping import damping_field, settle_damping
from puma_dash.core.curvature.kronecker import (
    ALL_COLUMNS,
    Batch,
    Eigenbasis,
    blocks_of,
    factors,
    refitted,
)
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

EIGENVECTORS = 40
"""Multiplications, as fast as in a product of matrices, that an eigenproblem takes for each side cubed."""


@dataclass(frozen=True)
class KFAC(Described):
    """One Kronecker product for each layer: B ~ A (x) D + (wd + damping) I, block by block.

    Cheap in time and memory for any size of model, but it neglects what layers have in common and how inputs
    and gradients go together: the true residual, reported with every answer, is large. Norms, and what has
    no Kronecker rule, keep their exact block where it is small, else the damping alone; the facts name both.
    """

    label = "K-FAC"
    reference = (
        "Martens & Grosse (2015), Optimizing neural networks with Kronecker-factored approximate curvature"
    )

    damping: float | str = damping_field()

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of the blocks at ``theta``; factors and eigenvectors are computed here, once.

        Raises:
            ProjectError: nothing makes the blocks positive definite.
        """
        return _inverse(engine, theta, self.label, self.damping, refit=False)

    def estimate(self, engine: Engine) -> Estimate:
        """What factors and eigenvectors will cost."""
        return _estimate(engine, refit=False)


@dataclass(frozen=True)
class EKFAC(Described):
    """K-FAC with its eigenvalues replaced by the moments of the rows' gradients along its eigenvectors.

    For these eigenvectors they are the best ones: no others are closer to the blocks of the Gauss-Newton
    matrix. Takes one more pass over the rows than K-FAC, whose limits it shares.
    """

    label = "EK-FAC"
    reference = (
        "George et al. (2018), Fast approximate natural gradient descent in a Kronecker-factored eigenbasis"
    )

    damping: float | str = damping_field()

    def __call__(self, engine: Engine, theta: Tensor | None = None) -> Inverse:
        """The inverse of the blocks at ``theta``; eigenvectors and moments are computed here, once.

        Raises:
            ProjectError: nothing makes the blocks positive definite.
        """
        return _inverse(engine, theta, self.label, self.damping, refit=True)

    def estimate(self, engine: Engine) -> Estimate:
        """What factors, eigenvectors and moments will cost."""
        return _estimate(engine, refit=True)


def _inverse(
    engine: Engine, theta: Tensor | None, label: str, damping: float | str, *, refit: bool
) -> Inverse:
    begin = time.perf_counter()
    damping = settle_damping(engine, damping)
    shift = engine.weight_decay + damping
    blocks, missing = blocks_of(engine)
    bases = [Eigenbasis.of(block, *pair) for block, pair in zip(blocks, factors(engine, theta), strict=True)]
    bases = refitted(engine, bases, theta) if refit else bases
    _check_positive(bases, missing, shift, label)
    residual = Residual(engine, theta, shift)
    described = facts(engine, label, "ggn", damping, engine.n) | {
        "kronecker_layers": sum(block.kronecker for block in blocks),
        "exact_parameters": [name for block in blocks if not block.kronecker for name in block.names],
        "damping_only": list(missing),
        "residual_rows": residual.rows,
        "factor_seconds": time.perf_counter() - begin,
    }

    def solve(vectors: Tensor) -> Solution:
        begin = time.perf_counter()
        engine.check_cancel()
        x = vectors / shift if missing else torch.empty_like(vectors)
        for basis in bases:
            basis.solve(vectors, shift, x)
        return Solution(x, residual(x, vectors), 0, time.perf_counter() - begin)

    return Inverse(solve, described)


def _estimate(engine: Engine, *, refit: bool) -> Estimate:
    costs, n = Costs.of(engine), engine.n
    blocks, _ = blocks_of(engine)
    row = Batch(engine, blocks, None, slice(0, 1))
    outputs = row.recording.outputs.shape[1]
    columns = outputs if outputs <= ALL_COLUMNS else 1
    sides = torch.tensor([block.index.shape for block in blocks], dtype=torch.float64).reshape(-1, 3)
    places = torch.tensor([seen.shape[2] for seen in row.inputs()], dtype=torch.float64)
    groups, out, in_ = sides.T
    each = (groups * places * (in_**2 + columns * out**2)).sum()  # multiplications for one row
    if refit:
        each = 2 * each + (groups * columns * places * out * in_).sum()
    checked = min(n, RESIDUAL_ROWS)
    seconds = costs.multiplication * float(n * each + EIGENVECTORS * (groups * (in_**3 + out**3)).sum())
    seconds += (1 + refit) * costs.passes(n, RECORDED + columns * BACKWARD)
    seconds += costs.passes(checked, RECORDED + PRODUCT)
    number = engine.dtype.itemsize
    squares = float((groups * (in_**2 + out**2)).sum())
    batch = min(n, engine.batch_size)
    seen = float((groups * places * in_).sum())
    held = 2 * squares * number + 3 * float((in_**2 + out**2).max() if blocks else 0) * 8 + costs.vectors(6)
    held += max(2 * batch * seen * number + 3 * costs.graph(batch), costs.product_bytes(checked))
    note = f"Kronecker factors of {len(blocks)} blocks on {n:,} rows, {columns} backward passes each"
    return Estimate(seconds, int(held), note + (", then their eigenvalues" if refit else ""))


def _check_positive(bases: list[Eigenbasis], missing: tuple[str, ...], shift: float, label: str) -> None:
    smallest = min([float(basis.values.min()) for basis in bases] + [0.0] * bool(missing))
    largest = max([float(basis.values.max()) for basis in bases], default=0.0)
    precision = torch.finfo(bases[0].values.dtype).eps if bases else 0.0
    if not smallest + shift > precision * largest:
        raise ProjectError(
            f"expected {label} to be positive definite, but its smallest eigenvalue is "
            f"{smallest + shift:.1g} with weight decay + damping = {shift:g}; try a larger damping."
        )
