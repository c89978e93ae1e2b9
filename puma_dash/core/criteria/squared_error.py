"""Mean squared error, the criterion of regressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from puma_dash.core.criteria.base import Criterion
from puma_dash.core.objective import SquaredError
from puma_dash.core.types import ProjectError, Split

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.objective import Loss


class MeanSquaredError(Criterion):
    """C = mean over rows and outputs of (f - y)^2, in squared units of the target."""

    key = "squared_error"
    label = "Mean squared error"
    unit = "squared target units"
    reference = "Gauss (1809), Theoria motus"

    def __call__(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """C () of ``outputs`` (m, k)."""
        if not isinstance(loss, SquaredError):
            raise ProjectError(
                'expected a regression project for squared_error, but its loss has classes; try "brier".'
            )
        return loss(outputs, data.targets).mean()
