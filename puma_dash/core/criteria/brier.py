"""Brier score: the mean squared distance of the probabilities from the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import one_hot

from puma_dash.core.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Split


class Brier(Criterion):
    """C = mean over rows of sum_k (p_k - [y = k])^2, from 0 to 2."""

    key = "brier"
    label = "Brier score"
    unit = "squared probability"
    reference = "Brier (1950), Verification of forecasts expressed in terms of probability"

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """Squared distances (m,) of ``outputs`` (m, c)."""
        p = loss.probabilities(outputs)
        truth = one_hot(data.targets, p.shape[1]).to(p)
        return (p - truth).square().sum(-1)
