"""Damping: what is added to the diagonal of B, and how "auto" is settled."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import PRODUCT, Costs

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

START = 0.01
GRID = (1e-4, 3e-4, 1e-3, 3e-3, START, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
PROBES = 8
SHARE_REMOVED = 0.05
"""A probe removes this share of the training rows, drawn at random."""
LARGEST_MISS = 2 / 3
"""The measured changes may miss the predicted ones by this share of what these amount to."""
PROBE_ROWS = 2_000
PROBE_GRADIENTS = 1_000
PROBE_FIDELITY = 0.9
"""The rows, preconditioner and fidelity a probe is solved with, on large projects: close to a patch's."""


def damping_field() -> Any:
    """The field that every curvature has."""
    told = {"help": "Added to the diagonal of B, in units of curvature.", "min": 0.0, "choices": "auto"}
    return field(default="auto", metadata=told)


def settle_damping(engine: Engine, damping: float | str) -> float:
    """The number that ``damping`` stands for.

    "auto" is 0 where B is positive definite without it (a model linear in its parameters, with weight decay).
    Else it is the smallest value, on a grid of half decades, at which the linear prediction holds: for a few
    random removals the change of the mean loss on the validation rows, predicted from its gradient, and that
    measured after the step differ by no more than two thirds of the predicted changes. With less damping a
    step leaves the region where the model is close to its linearisation.
    """
    if damping != "auto":
        return float(damping)
    if "damping" not in engine.memo:
        certain = engine.weight_decay > 0 and is_linear(engine)
        found = {} if certain else engine.keep("damping", lambda: {"value": np.array(calibrate(engine))})
        engine.memo["damping"] = 0.0 if certain else float(found["value"])
    return engine.memo["damping"]


def calibrate(engine: Engine) -> float:
    """The smallest damping of ``GRID`` at which the linear prediction holds, searched from ``START``."""
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(SHARE_REMOVED * engine.n))
    gradients = torch.stack(
        [
            engine.weighted_gradient(engine.theta.new_ones(count), drawn) / engine.n
            for drawn in (torch.randperm(engine.n, generator=generator)[:count] for _ in range(PROBES))
        ]
    )
    now, slope = _validation_loss(engine)
    at = GRID.index(START)
    if _holds(engine, GRID[at], gradients, now, slope):
        while at > 0 and _holds(engine, GRID[at - 1], gradients, now, slope):
            at -= 1
        return GRID[at]
    while at + 1 < len(GRID):
        at += 1
        if _holds(engine, GRID[at], gradients, now, slope):
            break
    return GRID[at]


def calibration_estimate(engine: Engine, damping: float | str) -> Estimate | None:
    """What settling ``damping`` will cost, if it still has to be: about three values are tried."""
    if damping != "auto" or "damping" in engine.memo or (engine.weight_decay > 0 and is_linear(engine)):
        return None
    costs, rows = Costs.of(engine), min(engine.n, PROBE_ROWS)
    seconds = 3 * PROBES * 5 * costs.passes(rows, PRODUCT)
    return Estimate(seconds, int(costs.product_bytes(rows)), "the damping calibrated")


def _holds(engine: Engine, damping: float, gradients: Tensor, now: float, slope: Tensor) -> bool:
    from puma_dash.core.curvature.conjugate_gradient import ConjugateGradient
    from puma_dash.core.curvature.sample_space import usual_count

    engine.tick(0, 1, f"Calibrating the damping: {damping:g}")
    rows = None if engine.n <= 2 * PROBE_ROWS else PROBE_ROWS
    gradients_used = min(PROBE_GRADIENTS, usual_count(engine))
    inverse = ConjugateGradient(
        damping=damping, rows=rows, fidelity=PROBE_FIDELITY, preconditioner=gradients_used
    )(engine)
    moves = inverse(gradients).x  # a removal moves along + B^-1 grad
    predicted = (moves @ slope).double().cpu()
    measured = torch.tensor([_loss(engine, engine.theta + move) - now for move in moves], dtype=torch.float64)
    return bool((measured - predicted).abs().sum() <= LARGEST_MISS * predicted.abs().sum())


def _loss(engine: Engine, theta: Tensor | None = None) -> float:
    rows = engine.split("validation")
    return float(engine.loss(engine.outputs(rows, theta), rows.targets).double().mean())


def _validation_loss(engine: Engine) -> tuple[float, Tensor]:
    rows = engine.split("validation")
    outputs = engine.outputs(rows).requires_grad_()
    (cotangents,) = torch.autograd.grad(engine.loss(outputs, rows.targets).mean(), outputs)
    return _loss(engine), engine.pullback(rows, cotangents)


def is_linear(engine: Engine) -> bool:
    """Whether the outputs are an affine function of the parameters, tried on a few rows and one direction."""
    rows = engine.split("train").take(torch.arange(min(16, engine.n)).numpy())
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(engine.theta), generator=generator).to(engine.theta)
    z, dz = engine.pushforward(rows, direction)
    moved = engine.outputs(rows, engine.theta + direction)
    return bool((moved - z - dz).norm() <= 1e-4 * dz.norm())
