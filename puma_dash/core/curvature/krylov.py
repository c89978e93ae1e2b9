"""Preconditioned conjugate gradients for several systems side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Block(NamedTuple):
    """Where conjugate gradients stopped, for k systems."""

    x: Tensor
    """(k, p)"""
    residual: Tensor
    """v - B x (k, p), as the recursion knows it."""
    products: int
    pulled: Tensor
    """P r (k, p) of the residuals."""
    error: Tensor
    """The squared error e^T B e (k,), e = x - B^-1 v, from above where no eigenvalue of P B is smaller than
    the one that was told."""

    def relative_error(self, vectors: Tensor) -> Tensor:
        """The squared error (k,) as a share of that of 0, v^T B^-1 v."""
        reached = (self.x * (vectors + self.residual)).sum(1)
        return self.error / (reached + self.error).clamp_min(torch.finfo(vectors.dtype).tiny)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    vectors: Tensor,
    *,
    start: Tensor | None = None,
    precondition: Callable[[Tensor], Tensor] = lambda v: v,
    least: float = 1.0,
    finished: Callable[[Block], Tensor],
    max_iterations: int,
    on_iteration: Callable[[int], None],
    on_negative: Callable[[], Exception],
) -> Block:
    """Solves B x = v for every row v of ``vectors`` (k, p) side by side (Hestenes & Stiefel 1952).

    The residual's r^T P r is the squared error only where P is B^-1. It is multiplied by what the steps taken
    say of the eigenvalues of P B, as Gauss-Radau quadrature does with a lower bound of these (Meurant & Tichy
    2013).

    Args:
        product: V -> B V for (k, p).
        vectors: (k, p).
        start: (k, p) first guess; None is 0.
        precondition: R -> P R for (k, p), P close to B^-1.
        least: a lower bound on the eigenvalues of P B; 1 takes P for B^-1.
        finished: says where they stand which systems (k,) are done.
        max_iterations: most products.
        on_iteration: called with the number of the product that comes.
        on_negative: the exception for a direction of negative curvature.
    """
    x = torch.zeros_like(vectors) if start is None else start.clone()
    residual = vectors - product(x) if start is not None else vectors.clone()
    pulled = precondition(residual)
    direction, slope = pulled.clone(), (residual * pulled).sum(1)
    ahead, products = torch.full_like(slope, 1 / least), 0  # ahead: (k,) squared error / r^T P r

    def now() -> Block:
        return Block(x, residual, products, pulled, ahead * slope)

    open_ = ~finished(now())
    while open_.any() and products < max_iterations:
        products += 1
        on_iteration(products)
        curved = product(direction[open_])
        curvature = (direction[open_] * curved).sum(1)
        if not (curvature > 0).all():
            raise on_negative()
        step = slope[open_] / curvature
        x[open_] += step[:, None] * direction[open_]
        residual[open_] -= step[:, None] * curved
        pulled[open_] = precondition(residual[open_])
        before, slope = slope, (residual * pulled).sum(1)
        rate = slope / before
        direction = torch.where(open_[:, None], pulled + rate[:, None] * direction, direction)
        beyond = ahead[open_] - step  # negative only where some eigenvalue is below ``least``
        ahead[open_] = torch.where(beyond > 0, beyond / (least * beyond + rate[open_]), step)
        open_ = open_ & ~finished(now())
    return now()
