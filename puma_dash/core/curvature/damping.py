"""Damping: what is added to the diagonal of B, and how "auto" is settled."""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.curvature.base import Curvature, Estimate
from puma_dash.core.curvature.costs import PRODUCT, Costs
from puma_dash.core.curvature.sampling import systematic

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

START = 0.01
GRID = (1e-4, 3e-4, 1e-3, 3e-3, START, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of damping, in units of the loss's scale: curvatures of squared errors grow with the targets' units."""
PROBES = 4
SHARE_REMOVED = 0.1
"""A probe removes this share of the training rows, drawn in proportion to their loss: those people remove.
With rows drawn evenly the predicted change averages out, the measured one does not."""
LARGEST_MISS = 1 / 3
"""The measured changes may miss the predicted ones by this share of what these amount to."""
PROBE_ROWS = 500
PROBE_GRADIENTS = 1_000
PROBE_PRODUCTS = 2
"""Rows, preconditioning gradients and products of a probe's solve by conjugate gradients. To stop so early
does for few rows what the others' curvature would do: the misses were those of a patch's solve."""


def damping_field() -> Any:
    """The field that every curvature has."""
    told = {"help": "Added to the diagonal of B, in units of curvature.", "min": 0.0, "choices": "auto"}
    return field(default="auto", metadata=told)


def settle_damping(engine: Engine, damping: float | str) -> float:
    """The number that ``damping`` stands for.

    "auto" is 0 where B is positive definite without it (a model linear in its parameters, with weight decay).
    Else it is the smallest value at which the linear prediction holds: for a few removals of rows, drawn in
    proportion to their loss, the change of the mean loss on the validation rows, predicted from its gradient,
    and that measured after the step differ by no more than a third of the predicted changes. With less
    damping a step leaves the region where the model is close to its linearisation.
    """
    if damping != "auto":
        return float(damping)
    if "damping" not in engine.memo:
        certain = engine.weight_decay > 0 and is_linear(engine)
        found = {} if certain else engine.keep("damping", lambda: {"value": np.array(calibrate(engine))})
        engine.memo["damping"] = 0.0 if certain else float(found["value"])
    return engine.memo["damping"]


def calibrate(engine: Engine) -> float:
    """Where the predictions miss by ``LARGEST_MISS``: between two values of ``GRID``, from ``START`` on."""
    losses = engine.losses().double().cpu() + torch.finfo(torch.float64).tiny
    count = max(1, round(SHARE_REMOVED * engine.n))
    removals = [systematic(losses, count, seed)[0] for seed in range(PROBES)]
    gradients = torch.stack(
        [engine.weighted_gradient(engine.theta.new_ones(len(rows)), rows) / engine.n for rows in removals]
    )
    now, slope = _validation_loss(engine)
    unit = engine.loss.scale(engine.split("train").targets) or 1.0
    grid, at = [unit * value for value in GRID], GRID.index(START)
    miss = _miss(engine, grid[at], gradients, now, slope)
    onward = 1 if miss > LARGEST_MISS else -1
    while 0 <= at + onward < len(grid):
        before, miss = miss, _miss(engine, grid[at + onward], gradients, now, slope)
        if (miss > LARGEST_MISS) != (before > LARGEST_MISS):
            share = math.log(before / LARGEST_MISS) / math.log(before / miss)
            return float(f"{grid[at] * (grid[at + onward] / grid[at]) ** share:.2g}")
        at += onward
    return grid[at]


def calibration_estimate(engine: Engine, damping: float | str) -> Estimate | None:
    """What settling ``damping`` will cost, if it still has to be: about three values are tried."""
    if damping != "auto" or "damping" in engine.memo or (engine.weight_decay > 0 and is_linear(engine)):
        return None
    costs, rows = Costs.of(engine), min(engine.n, PROBE_ROWS)
    seconds = 3 * PROBES * PROBE_PRODUCTS * costs.passes(rows, PRODUCT)
    return Estimate(seconds, int(costs.product_bytes(rows)), "the damping calibrated")


def _miss(engine: Engine, damping: float, gradients: Tensor, now: float, slope: Tensor) -> float:
    """How far the measured changes are from the predicted ones, as a share of what these amount to."""
    engine.tick(0, 1, f"Calibrating the damping: {damping:g}")
    moves = _probing(engine, damping)(engine)(gradients).x  # a removal moves along + B^-1 grad
    predicted = (moves @ slope).double().cpu()
    measured = torch.tensor([_loss(engine, engine.theta + move) - now for move in moves], dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return float(((measured - predicted).abs().sum() / predicted.abs().sum().clamp_min(tiny)).clamp_min(tiny))


def _probing(engine: Engine, damping: float) -> Curvature:
    """What is chosen for questions, made cheap where it iterates."""
    from puma_dash.core.curvature import Auto, ConjugateGradient, settled
    from puma_dash.core.curvature.sample_space import preconditioner, usual_count

    chosen = settled(engine, Auto(damping=damping))
    if not isinstance(chosen, ConjugateGradient):
        return chosen
    rows, count = min(PROBE_ROWS, engine.n), min(PROBE_GRADIENTS, usual_count(engine))
    cheap = replace(chosen, rows=rows, fidelity=None, preconditioner=count)
    known = preconditioner(engine, engine.weight_decay + damping, count)
    return replace(cheap, max_iterations=PROBE_PRODUCTS) if known else cheap


def _loss(engine: Engine, theta: Tensor | None = None) -> float:
    rows = engine.split("validation")
    return float(engine.loss.plain(engine.outputs(rows, theta), rows.targets).double().mean())


def _validation_loss(engine: Engine) -> tuple[float, Tensor]:
    rows = engine.split("validation")
    outputs = engine.outputs(rows).requires_grad_()
    (cotangents,) = torch.autograd.grad(engine.loss.plain(outputs, rows.targets).mean(), outputs)
    return _loss(engine), engine.pullback(rows, cotangents)


def is_linear(engine: Engine) -> bool:
    """Whether the outputs are an affine function of the parameters, tried on a few rows and one direction."""
    rows = engine.split("train").take(torch.arange(min(16, engine.n)).numpy())
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(engine.theta), generator=generator).to(engine.theta)
    z, dz = engine.pushforward(rows, direction)
    moved = engine.outputs(rows, engine.theta + direction)
    return bool((moved - z - dz).norm() <= 1e-4 * dz.norm())
