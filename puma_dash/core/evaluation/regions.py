"""Decision regions of two-dimensional data: what a model answers everywhere around its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from puma_dash.core.types import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from puma_dash.core.engine import Engine

SIDE = 160
"""Points along each side of the grid."""
MARGIN = 0.08
"""Of the data's extent, on each side."""


def is_flat(split: Split) -> bool:
    """Whether the rows are points in the plane."""
    return split.inputs.ndim == 2 and split.inputs.shape[1] == 2 and split.inputs.is_floating_point()


def decision_regions(engines: Sequence[Engine], split: Split) -> dict[str, np.ndarray]:
    """Class and confidence of each model on one grid around the points of ``split``.

    Args:
        engines: of the models (m,).
        split: points in the plane (n, 2).

    Returns:
        ``x`` and ``y`` (SIDE,), ``class`` uint8 and ``confidence`` float16 (m, SIDE, SIDE), y first.
    """
    low, high = (split.inputs.amin(0).double().cpu().numpy(), split.inputs.amax(0).double().cpu().numpy())
    room = MARGIN * np.maximum(high - low, 1e-12)
    x, y = np.linspace(low - room, high + room, SIDE).T
    points = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    classes, confidences = [], []
    for engine in engines:
        grid = Split(engine.to(points.to(split.inputs.dtype)), torch.zeros(len(points), dtype=torch.long))
        probabilities = engine.probabilities(engine.outputs(grid))
        classes.append(probabilities.argmax(1).astype(np.uint8))
        confidences.append(probabilities.max(1).astype(np.float16))
    shape = (len(engines), SIDE, SIDE)
    return {
        "x": x,
        "y": y,
        "class": np.stack(classes).reshape(shape),
        "confidence": np.stack(confidences).reshape(shape),
    }
