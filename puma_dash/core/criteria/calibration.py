"""Soft-binned calibration error: how far confidence is from accuracy, with bins that have no hard edges.

Row i belongs to bin j, with centre x_j, by the share u_ij = softmax_j(-(c_i - x_j)^2 / temperature) of its
confidence c_i, the probability of the predicted class. With size_j = sum_i u_ij and
gap_j = sum_i u_ij ([right]_i - c_i) / size_j,

    C = (sum_j size_j / m |gap_j|^norm)^(1 / norm).

Whether a row is right is a constant; only confidences carry the gradient. As the temperature goes to 0 this
is the binned ECE of equal-width bins.
"""

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
class Calibration(Criterion):
    """C = soft-binned expected calibration error of top-label confidence, from 0 to 1."""

    key = "calibration"
    label = "calibration (soft-binned ECE)"
    unit = "fraction"
    reference = "Karandikar et al. (2021), Soft calibration objectives for neural networks"

    bins: int = field(
        default=15, metadata={"help": "Equal-width bins of confidence.", "min": 1, "max": 1_000}
    )
    temperature: float = field(
        default=0.01,
        metadata={
            "help": "How soft the edges of bins are; hard towards 0.",
            "min": 1e-8,
            "max": 1.0,
        },
    )
    norm: int = field(
        default=1, metadata={"help": "1: mean gap; 2: root mean squared gap.", "min": 1, "max": 2}
    )

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """Shares of the row in the bins, and its gap in these shares (m, 2, bins)."""
        confidence, predicted = loss.probabilities(outputs).max(-1)  # (m,)
        right = (predicted == data.targets).to(confidence)
        centres = (torch.arange(self.bins).to(confidence) + 0.5) / self.bins
        shares = (-(confidence[:, None] - centres).square() / self.temperature).softmax(-1)  # (m, bins)
        return torch.stack([shares, shares * (right - confidence)[:, None]], dim=1)

    def of_means(self, means: Tensor) -> Tensor:
        """C () of the sizes of the bins and their gaps (2, bins)."""
        tiny = torch.finfo(means.dtype).tiny  # for a bin without rows, and for no gap at all
        sizes, gaps = means
        total = sizes @ (gaps / sizes.clamp_min(tiny)).abs() ** self.norm
        return total if self.norm == 1 else total.clamp_min(tiny).sqrt()
