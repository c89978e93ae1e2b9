"""Margin: the error rate with a smooth step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from puma_dash.core.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Split


@dataclass(frozen=True)
class Margin(Criterion):
    """C = mean over rows of sigmoid(-(z_y - max_{k != y} z_k) / temperature); 1 - accuracy in the limit 0."""

    key = "margin"
    label = "margin (smooth error rate)"
    unit = "fraction of rows"
    reference = "Mason, Baxter, Bartlett & Frean (1999), Boosting algorithms as gradient descent"

    temperature: float = field(
        default=1.0,
        metadata={"help": "Margin over which an error turns into a hit, in nats.", "min": 1e-6, "max": 1e3},
    )

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """Smooth errors (m,) of ``outputs`` (m, c)."""
        z = outputs if outputs.shape[1] > 1 else torch.cat([torch.zeros_like(outputs), outputs], dim=1)
        truth = data.targets[:, None]
        margin = z.gather(1, truth)[:, 0] - z.scatter(1, truth, -torch.inf).amax(1)
        return (-margin / self.temperature).sigmoid()
