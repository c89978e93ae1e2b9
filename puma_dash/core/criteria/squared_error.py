"""Mean squared error, the criterion of regressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from puma_dash.core.criteria.base import Criterion
from puma_dash.core.task import REGRESSION

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Split


class MeanSquaredError(Criterion):
    """C = mean over rows and outputs of (f - y)^2, in squared units of the target."""

    key = "squared_error"
    label = "mean squared error"
    unit = "squared target units"
    reference = "Gauss (1809), Theoria motus"
    task = REGRESSION

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """Squared errors (m,) of ``outputs`` (m, k), the mean over the k outputs."""
        return loss.plain(outputs, data.targets)
