"""A linear model on fixed features: what representer points and fast retrainings fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from puma_dash.core.objective import Loss

ITERATIONS = 5_000


def with_ones(features: np.ndarray) -> Tensor:
    """``features`` (m, d) with a last column of ones, (m, d + 1) float64."""
    return torch.as_tensor(np.column_stack([features, np.ones(len(features))]), dtype=torch.float64)


def standardised(features: np.ndarray, *others: np.ndarray) -> list[Tensor]:
    """Features with mean 0 and variance 1 over the first rows, and a column of ones, (m, d + 1) each."""
    middle, spread = features.mean(0), features.std(0)
    spread[spread == 0] = 1
    return [with_ones((values - middle) / spread) for values in (features, *others)]


def fitted(
    features: Tensor,
    targets: Tensor,
    loss: Loss,
    l2: float,
    weights: Tensor,
    start: Tensor,
    *,
    tolerance: float = 1e-8,
    iterations: int = ITERATIONS,
) -> Tensor:
    """W (c, d) where (1/m) sum_i a_i l(W f_i, y_i) + (l2/2) |W|^2 is least, by L-BFGS.

    Args:
        features: f (m, d).
        targets: y (m,) or (m, k).
        loss: l, convex in the outputs.
        l2: weight decay of W, above 0.
        weights: a (m,).
        start: (c, d) where to begin.
        tolerance: stop where the gradient's largest entry is this share of that at W = 0.
        iterations: stop after so many at the latest.
    """
    from scipy.optimize import minimize

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(x).view_as(start)
        outputs = (features @ w.T).requires_grad_()
        value = weights @ loss(outputs, targets) / len(features)
        (slopes,) = torch.autograd.grad(value, outputs)
        gradient = slopes.T @ features + l2 * w
        return float(value.detach() + l2 / 2 * w.square().sum()), gradient.reshape(-1).numpy()

    steepest = np.abs(value_and_gradient(np.zeros(start.numel()))[1]).max()
    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": tolerance * steepest}
    found = minimize(
        value_and_gradient, start.reshape(-1).numpy(), jac=True, method="L-BFGS-B", options=options
    )
    return torch.from_numpy(found.x).view_as(start)
