"""Which training rows stand for all of them in the curvature: those that carry much of it, more often.

A row's share is the trace of a_j H_j, what it can add to the Gauss-Newton matrix through its outputs: nothing
where the model is certain. Rows are drawn with probabilities in proportion to it (and never far below the
average's), and weigh the inverse of their probability, so that every sum stays unbiased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

FLOOR = 0.1
"""Least share of a row, as a fraction of the average share."""


def curvature_shares(engine: Engine) -> Tensor:
    """a_j tr H_j split over the columns of the root of H_j, (n, c), in float64; kept by the engine."""
    if "curvature shares" not in engine.memo:
        train = engine.split("train")
        found = engine.loss.root_sizes(engine.training_outputs, train.targets).double()
        engine.memo["curvature shares"] = found if train.weights is None else found * train.weights[:, None]
    return engine.memo["curvature shares"]


def sample_rows(engine: Engine, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers (m,), ascending, and the weights (m,) that make sums over them stand for all n rows.

    Args:
        engine: of the project.
        count: m; all rows, with weight 1, where it reaches n.
        seed: of the draw.
    """
    if count >= engine.n:
        return torch.arange(engine.n), torch.ones(engine.n, dtype=torch.float64)
    shares = curvature_shares(engine).sum(1).cpu()
    return systematic(shares + FLOOR * shares.mean() + torch.finfo(torch.float64).tiny, count, seed)


def systematic(sizes: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` of the items, drawn without replacement with probabilities in proportion to ``sizes`` (n,).

    Items that would be drawn more than once are taken for certain (Madow 1949).

    Returns:
        The items (m,), ascending, and the inverses of their probabilities (m,).
    """
    generator = torch.Generator().manual_seed(seed)
    certain = torch.zeros(len(sizes), dtype=torch.bool)
    while True:
        left = count - int(certain.sum())
        others = sizes[~certain].sum().clamp_min(torch.finfo(sizes.dtype).tiny)  # may all be of size 0
        chance = torch.where(certain, 1.0, sizes * left / others)
        more = (chance >= 1) & ~certain
        if not more.any() or left <= 0:
            break
        certain |= more
    order = torch.randperm(len(sizes), generator=generator)
    ends = chance[order].cumsum(0) - torch.rand((), generator=generator, dtype=torch.float64)
    steps = torch.ceil(ends)
    drawn = order[steps > torch.cat([torch.zeros(1, dtype=steps.dtype), steps[:-1]])].sort().values
    return drawn, 1 / chance[drawn]
