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


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    vectors: Tensor,
    *,
    start: Tensor | None = None,
    precondition: Callable[[Tensor], Tensor] = lambda v: v,
    finished: Callable[[Tensor, Tensor], Tensor],
    max_iterations: int,
    on_iteration: Callable[[int], None],
    on_negative: Callable[[], Exception],
) -> Block:
    """Solves B x = v for every row v of ``vectors`` (k, p) side by side (Hestenes & Stiefel 1952).

    Args:
        product: V -> B V for (k, p).
        vectors: (k, p).
        start: (k, p) first guess; None is 0.
        precondition: R -> P R for (k, p), P close to B^-1.
        finished: says from the residuals r and P r, each (k, p), which systems (k,) are done.
        max_iterations: most products.
        on_iteration: called with the number of the product that comes.
        on_negative: the exception for a direction of negative curvature.
    """
    x = torch.zeros_like(vectors) if start is None else start.clone()
    residual = vectors - product(x) if start is not None else vectors.clone()
    pulled = precondition(residual)
    direction, slope = pulled.clone(), (residual * pulled).sum(1)
    open_ = ~finished(residual, pulled)
    products = 0
    while open_.any() and products < max_iterations:
        products += 1
        on_iteration(products)
        curved = product(direction[open_])
        curvature = (direction[open_] * curved).sum(1)
        if not (curvature > 0).all():
            raise on_negative()
        step = (slope[open_] / curvature)[:, None]
        x[open_] += step * direction[open_]
        residual[open_] -= step * curved
        pulled[open_] = precondition(residual[open_])
        before, slope = slope, (residual * pulled).sum(1)
        direction = torch.where(open_[:, None], pulled + (slope / before)[:, None] * direction, direction)
        open_ = open_ & ~finished(residual, pulled)
    return Block(x, residual, products)
