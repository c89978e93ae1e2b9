"""Cross-entropy: the mean negative log-likelihood of the true class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from puma_dash.core.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Split


class CrossEntropy(Criterion):
    """C = mean over rows of -log p_y, in nats."""

    key = "cross_entropy"
    label = "cross-entropy"
    unit = "nats"
    reference = "Good (1952), Rational decisions"

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """-log p_y (m,) of ``outputs`` (m, c)."""
        return loss.plain(outputs, data.targets)
