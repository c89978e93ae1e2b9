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
    flat: float,
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
        flat: stop where the gradient's largest entry is at most this.
        iterations: stop after so many at the latest.
    """
    from scipy.optimize import minimize

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(x).view_as(start)
        value, gradient = mean_loss(features, targets, loss, weights, w)
        return value + float(l2 / 2 * w.square().sum()), (gradient + l2 * w).reshape(-1).numpy()

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": flat}
    found = minimize(
        value_and_gradient, start.reshape(-1).numpy(), jac=True, method="L-BFGS-B", options=options
    )
    return torch.from_numpy(found.x).view_as(start)


def mean_loss(
    features: Tensor, targets: Tensor, loss: Loss, weights: Tensor, w: Tensor
) -> tuple[float, Tensor]:
    """(1/m) sum_i a_i l(W f_i, y_i) and its gradient (c, d) at ``w`` = W."""
    outputs = (features @ w.T).requires_grad_()
    value = weights @ loss(outputs, targets) / len(features)
    (slopes,) = torch.autograd.grad(value, outputs)
    return float(value.detach()), slopes.T @ features
