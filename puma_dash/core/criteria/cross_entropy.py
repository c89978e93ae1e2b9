"""Cross-entropy: the mean negative log-likelihood of the true class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from puma_dash.core.criteria.base import Criterion
from puma_dash.core.objective import SquaredError
from puma_dash.core.types import ProjectError, Split

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.objective import Loss


class CrossEntropy(Criterion):
    """C = mean over rows of -log p_y, in nats."""

    key = "cross_entropy"
    label = "Cross-entropy (NLL)"
    unit = "nats"
    reference = "Good (1952), Rational decisions"

    def __call__(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """C () of ``outputs`` (m, c)."""
        if isinstance(loss, SquaredError):
            raise ProjectError(
                "expected a classification project for cross_entropy, but its loss is squared error; "
                'try "squared_error".'
            )
        return loss(outputs, data.targets).mean()
