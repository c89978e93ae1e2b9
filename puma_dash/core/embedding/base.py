"""Where embeddings look: the inputs themselves, or what the model's last layer sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine
    from puma_dash.core.types import Split

SPACES = ("penultimate", "inputs")


class Coordinates(NamedTuple):
    """Two numbers per training row and what they are."""

    xy: np.ndarray
    """(n, 2) float32"""
    axes: tuple[str, str]


def features(engine: Engine, space: str, rows: Split | None = None) -> np.ndarray:
    """``rows`` as vectors (m, d): the inputs, or the inputs of the model's last linear layer.

    Without ``rows``, all training rows.
    """
    if space == "penultimate":
        return penultimate(engine, rows)
    inputs = (rows or engine.split("train")).inputs
    return inputs.reshape(len(inputs), -1).float().numpy(force=True)


@torch.no_grad()
def penultimate(engine: Engine, rows: Split | None = None) -> np.ndarray:
    """What the last linear layer that runs takes in, for ``rows`` or all training rows: (m, d) float32."""
    linear = [module for module in engine.model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ProjectError(
            'expected a linear last layer to look in front of, but the model has none; try space="inputs".'
        )
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, args: seen.append(args[0])) for module in linear
    ]
    inputs = (rows or engine.split("train")).inputs

    def features(part: slice) -> Tensor:
        seen.clear()
        engine.model(engine.to(inputs[part]))
        return seen[-1].reshape(len(inputs[part]), -1).float().cpu()

    try:
        pieces = engine.over(len(inputs), features)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(pieces).numpy()
