"""The LeNet-style convolutional network: convolutions with pooling, then linear layers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from puma_dash.core.architectures.base import ACTIVATIONS, POOLINGS, image, whole_numbers
from puma_dash.core.architectures.dense import Mlp
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError


@dataclass(frozen=True)
class LeNet(Described):
    """Convolution, activation and pooling for each entry of ``channels``, then linear layers."""

    label = "LeNet-style CNN"
    reference = (
        "LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition"
    )

    channels: tuple[int, ...] = field(default=(6, 16), metadata={"help": "Channels of each convolution."})
    hidden: tuple[int, ...] = field(
        default=(120, 84), metadata={"help": "Units of each linear layer before the last."}
    )
    kernel: int = field(default=5, metadata={"help": "Side of the kernels.", "min": 1, "max": 64})
    padding: int = field(default=0, metadata={"help": "Zeros around the images.", "min": 0, "max": 32})
    pool: int = field(default=2, metadata={"help": "Side of the pooling; 1 for none.", "min": 1, "max": 64})
    pooling: str = field(default="max", metadata={"help": "How to pool.", "choices": " ".join(POOLINGS)})
    activation: str = field(
        default="relu",
        metadata={"help": "After each layer but the last.", "choices": " ".join(ACTIVATIONS)},
    )

    def __post_init__(self) -> None:
        """Checks the sizes."""
        super().__post_init__()
        object.__setattr__(self, "channels", whole_numbers("channels", self.channels, 1))
        object.__setattr__(self, "hidden", whole_numbers("hidden", self.hidden, 1))

    def __call__(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The network for images (channels, height, width) or (height, width).

        Its keys are features.0.weight, ..., classifier.0.weight, ... as in ``nn.Sequential``.

        Raises:
            ProjectError: the rows are no images, or too small for the kernels.
        """
        front, (depth, *sides) = image(shape)
        features: list[nn.Module] = []
        for before, after in pairwise((depth, *self.channels)):
            features += [
                nn.Conv2d(before, after, self.kernel, padding=self.padding),
                ACTIVATIONS[self.activation](),
                POOLINGS[self.pooling](self.pool),
            ]
            sides = [(side + 2 * self.padding - self.kernel + 1) // self.pool for side in sides]
            if min(sides) < 1:
                raise ProjectError(
                    f"expected images large enough for {len(self.channels)} convolutions of side "
                    f"{self.kernel}, but rows have the shape {shape}; try a smaller kernel or pool = 1."
                )
        width = sides[0] * sides[1] * (self.channels[-1] if self.channels else depth)
        flatten, *classifier = Mlp(self.hidden, self.activation)((width,), outputs).children()
        parts = {
            "front": front,
            "features": nn.Sequential(*features),
            "flatten": flatten,
            "classifier": nn.Sequential(*classifier),
        }
        return nn.Sequential(OrderedDict(parts))
