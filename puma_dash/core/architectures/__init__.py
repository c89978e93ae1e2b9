"""Architectures that a weight file can name: logistic regression, MLP, LeNet-style CNN, small ResNets.

Each is called with the shape of one row and the number of outputs and returns the network, freshly drawn.
"""

from __future__ import annotations

from typing import Any

from puma_dash.core.architectures.dense import Logistic, Mlp
from puma_dash.core.architectures.lenet import LeNet
from puma_dash.core.architectures.resnet import ResNet18, ResNet34

__all__ = ["ARCHITECTURES", "LeNet", "Logistic", "Mlp", "ResNet18", "ResNet34"]

ARCHITECTURES: dict[str, Any] = {
    "logistic": Logistic,
    "mlp": Mlp,
    "lenet": LeNet,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
}
