"""Networks of linear layers: logistic regression and the multilayer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from puma_dash.core.architectures.base import ACTIVATIONS, whole_numbers
from puma_dash.core.registry import Described


@dataclass(frozen=True)
class Logistic(Described):
    """One linear layer: logistic regression, or linear regression under squared error."""

    label = "Logistic regression"
    reference = "Cox (1958), The regression analysis of binary sequences"

    def __call__(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The network for rows of ``shape``, with the keys 1.weight and 1.bias."""
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))


@dataclass(frozen=True)
class Mlp(Described):
    """Linear layers with an activation between them."""

    label = "Multilayer perceptron"
    reference = "Rumelhart, Hinton & Williams (1986), Learning representations by back-propagating errors"

    hidden: tuple[int, ...] = field(default=(64, 32), metadata={"help": "Units of each hidden layer."})
    activation: str = field(
        default="relu",
        metadata={"help": "Between the layers.", "choices": " ".join(ACTIVATIONS)},
    )

    def __post_init__(self) -> None:
        """Checks the sizes."""
        super().__post_init__()
        object.__setattr__(self, "hidden", whole_numbers("hidden", self.hidden, 1))

    def __call__(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The network for rows of ``shape``, with the keys 1.weight, 1.bias, 3.weight, 3.bias, ..."""
        layers: list[nn.Module] = [nn.Flatten()]
        for width, following in pairwise((math.prod(shape), *self.hidden, outputs)):
            layers += [nn.Linear(width, following), ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers[:-1])
