"""A plain network inferred from names and shapes: Linear, Conv2d and BatchNorm layers in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from puma_dash.core.architectures.base import ACTIVATIONS, POOLINGS, image, whole_numbers
from puma_dash.core.loaders.chain import Step, chain
from puma_dash.core.loaders.convolutions import WHOLE, Convolution, Reading, solve
from puma_dash.core.loaders.fitting import orders
from puma_dash.core.loaders.weights import Weights
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError


@dataclass(frozen=True)
class Plain(Described):
    """What shapes cannot tell of a plain network; what is None is solved from the shapes where it can be."""

    activation: str = field(
        default="relu", metadata={"help": "Between the layers.", "choices": " ".join(ACTIVATIONS)}
    )
    pooling: str = field(default="max", metadata={"help": "How to pool.", "choices": " ".join(POOLINGS)})
    padding: int | tuple[int, ...] | None = field(
        default=None, metadata={"help": "Zeros around the images: one number for all, or one for each."}
    )
    stride: int | tuple[int, ...] | None = field(
        default=None, metadata={"help": "Step of the convolutions: one number for all, or one for each."}
    )
    pool: int | tuple[int, ...] | None = field(
        default=None,
        metadata={"help": "Side of the pooling, for all or each; 1 for none, 0 for the whole image."},
    )

    def __post_init__(self) -> None:
        """Checks the numbers."""
        super().__post_init__()
        for name, least in (("padding", 0), ("stride", 1), ("pool", WHOLE)):
            value = getattr(self, name)
            if type(value) is int:
                whole_numbers(name, [value], least)
            elif value is not None:
                object.__setattr__(self, name, whole_numbers(name, value, least))

    def __call__(
        self, weights: Weights, order: Sequence[str] | None, inputs: Tensor
    ) -> tuple[nn.Module, tuple[str, ...]]:
        """The network with its weights, and notes on how it was read.

        Args:
            weights: the tensors.
            order: names of the layers in the order of the network, or None.
            inputs: (b, ...) some rows.

        Raises:
            ProjectError: the tensors are no plain network, or one with several readings; the message says
                which, and what to write into the [model] table.
        """
        if not inputs.is_floating_point():
            raise ProjectError(
                f"expected real inputs for an inferred network, but they are {inputs.dtype}; "
                "try a factory for a network that begins with an embedding."
            )
        shape = tuple(inputs.shape[1:])
        faults: list[ProjectError] = []
        found: list[list[Step]] = []
        for layers in orders(weights, order):
            try:
                found.append(chain(layers, shape))
            except ProjectError as fault:
                faults.append(fault)
        if not found:
            raise faults[0]
        if len(found) > 1:
            one, other = ([step.layer.name for step in steps] for steps in found[:2])
            raise ProjectError(
                f"expected names that tell the order of the layers, but {one} and {other} both fit; "
                "try order = one of them in the [model] table."
            )
        model = self._built(found[0], shape)
        return model, (f"Inferred from names and shapes: {', '.join(map(_told, model))}.",)

    def _built(self, steps: list[Step], shape: tuple[int, ...]) -> nn.Sequential:
        modules: list[nn.Module] = []
        convolutions = [i for i, step in enumerate(steps) if step.kind == "convolution"]
        pooled: dict[int, int] = {}
        reading: dict[int, tuple[int, int]] = {}
        if convolutions:
            front, (_, height, width) = image(shape)
            modules += [front] if len(shape) == 2 else []
            places = [_place(steps, i) for i in convolutions]
            solved = self._solved(steps, convolutions, places, (height, width))
            pooled = dict(zip(places, solved.pool, strict=True))
            reading = dict(zip(convolutions, zip(solved.padding, solved.stride, strict=True), strict=True))
        elif len(shape) > 1:
            modules.append(nn.Flatten())
        for i, step in enumerate(steps):
            images = bool(convolutions) and not any(s.kind == "linear" for s in steps[: i + 1])
            modules += [nn.Flatten()] if step.flattened else []
            modules.append(_module(step, images, *reading.get(i, (0, 1))))
            modules += [ACTIVATIONS[self.activation]()] if step.activated else []
            if (pool := pooled.get(i, 1)) != 1:
                modules.append(nn.AdaptiveAvgPool2d(1) if pool == WHOLE else POOLINGS[self.pooling](pool))
        return nn.Sequential(*modules)

    def _solved(
        self, steps: list[Step], convolutions: list[int], places: list[int], sides: tuple[int, int]
    ) -> Reading:
        first = next(step for step in steps if step.flattened)
        last = steps[convolutions[-1]]
        known = [
            Convolution((int(steps[i].weight.shape[2]), int(steps[i].weight.shape[3])), steps[place].room)
            for i, place in zip(convolutions, places, strict=True)
        ]
        pixels = first.before // last.after
        return solve(known, sides, pixels, self.padding, self.stride, self.pool)


def _told(module: nn.Module) -> str:
    """The module in a few words."""
    if isinstance(module, nn.Conv2d):
        sides = " x ".join(map(str, module.kernel_size))
        padding, stride = module.padding[0], module.stride[0]
        return f"Conv2d({module.in_channels}, {module.out_channels}, {sides}, {stride=}, {padding=})"
    if isinstance(module, nn.Linear):
        return f"Linear({module.in_features}, {module.out_features})"
    size = getattr(module, "kernel_size", getattr(module, "num_features", ""))
    return f"{type(module).__name__}({size})" if size else type(module).__name__


def _place(steps: list[Step], convolution: int) -> int:
    """The step behind which pooling follows the convolution: the first with room, else its last."""
    end = next(i for i in range(convolution + 1, len(steps)) if steps[i].kind != "norm")
    return next((i for i in range(convolution, end) if steps[i].room), end - 1)


def _module(step: Step, images: bool, padding: int, stride: int) -> nn.Module:
    """The module of a step with its weights."""
    parts = step.layer.tensors
    with torch.device("meta"):
        if step.kind == "linear":
            module: nn.Module = nn.Linear(step.before, step.after, bias="bias" in parts)
        elif step.kind == "norm":
            module = (nn.BatchNorm2d if images else nn.BatchNorm1d)(step.after, affine="weight" in parts)
        else:
            kernel = (int(step.weight.shape[2]), int(step.weight.shape[3]))
            groups = step.before // int(step.weight.shape[1])
            module = nn.Conv2d(
                step.before, step.after, kernel, stride, padding, groups=groups, bias="bias" in parts
            )
    counter = {"num_batches_tracked": torch.tensor(0)} if step.kind == "norm" else {}
    module.load_state_dict({**parts, **counter}, assign=True)
    return module
