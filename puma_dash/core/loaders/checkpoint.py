"""Stand-in: a multilayer perceptron from safetensors; the real one reads all kinds of weight files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from puma_dash.core.loaders.base import reading


def load_model(weights: Path, settings: Mapping[str, Any], inputs: Tensor, outputs: int) -> nn.Module:
    """The network whose linear layers lie in ``weights``, in order, with ReLU between them."""
    from safetensors.torch import load_file

    with reading(weights, "safetensors"):
        state = load_file(weights)
    layers: list[nn.Module] = [nn.Flatten()] if inputs.ndim > 2 else []
    for name in sorted(name for name in state if name.endswith("weight")):
        layer = nn.Linear(*state[name].shape[::-1])
        layer.load_state_dict({"weight": state[name], "bias": state[name.replace("weight", "bias")]})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
