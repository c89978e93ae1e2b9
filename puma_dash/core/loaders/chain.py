"""Layers of a weight file as one chain: what each is, whether they fit, and what lies between them.

Names like features.0 and features.3 tell how many modules without parameters lie between two layers: the
first is taken for the activation, the next for the pooling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from puma_dash.core.loaders.fitting import Layer
from puma_dash.core.types import ProjectError

PARTS = {"weight", "bias", "running_mean", "running_var"}
KINDS = {2: "linear", 4: "convolution"}
"""What a layer without running statistics is, by the dimensions of its weight."""
BRANCHES = ("downsample", "shortcut", "skip")
ELSEWHERE = 'try architecture = "resnet18" or the like, a factory, or torch.export'


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of the chain and what follows it."""

    layer: Layer
    kind: str
    """convolution, norm or linear"""
    before: int
    """Features or channels that it takes."""
    after: int
    """Features or channels that it gives."""
    activated: bool = False
    """Whether an activation follows."""
    flattened: bool = False
    """Whether the image is flattened before it."""
    room: bool | None = False
    """Whether pooling follows; None where the names do not tell."""

    @property
    def weight(self) -> Tensor:
        """The kernel (out, in, ...) of what is no norm."""
        return self.layer.tensors["weight"]


def chain(layers: Sequence[Layer], shape: tuple[int, ...]) -> list[Step]:
    """The layers as steps that fit one behind the other.

    Args:
        layers: in the order of the network.
        shape: of one row.

    Raises:
        ProjectError: a layer is of no known kind, or does not take what the one before it gives.
    """
    kinds = [_kind(layer) for layer in layers]
    if "linear" not in kinds:
        raise ProjectError(
            f"expected a Linear layer at the end of a plain network, but none of {_named(layers)} is one; "
            f"{ELSEWHERE}."
        )
    last = len(kinds) - 1 - kinds[::-1].index("linear")
    if "convolution" in kinds[kinds.index("linear") :]:
        raise ProjectError(
            f"expected no convolution behind a Linear layer, but the order is {_named(layers)}; "
            "try order = the names in the order of the network in the [model] table."
        )
    if ("norm", "norm") in pairwise(kinds):
        raise ProjectError(
            f"expected each BatchNorm behind a layer of its own, but the order is {_named(layers)}; "
            "try order = the names in the order of the network in the [model] table."
        )
    images = "convolution" in kinds
    entering = math.prod(shape) if not images else shape[0] if len(shape) == 3 else 1
    steps = [_step(layers[0], kinds[0], entering, "a row of inputs")]
    for layer, kind in zip(layers[1:], kinds[1:], strict=True):
        step = steps[-1]
        flattens = kind == "linear" and images and not any(s.kind == "linear" for s in steps)
        following = _step(layer, kind, step.after, step.layer.name, flattens=flattens)
        steps.append(replace(following, flattened=flattens))
    return _with_gaps(steps, last)


def _kind(layer: Layer) -> str:
    """What the layer is, by the names and shapes of its parts."""
    parts, name = layer.tensors, layer.name or "the top level"
    unknown = set(parts) - PARTS
    if unknown or any(branch in name for branch in BRANCHES):
        what = f"has {', '.join(sorted(unknown))}" if unknown else "is a branch beside others"
        raise ProjectError(
            f"expected Linear, Conv2d and BatchNorm layers in one row, but {name} {what}; {ELSEWHERE}."
        )
    if not all(value.is_floating_point() for value in parts.values()):
        raise ProjectError(
            f"expected floating-point weights, but those of {name} are {next(iter(parts.values())).dtype}; "
            "try the weights before quantisation."
        )
    if {"running_mean", "running_var"} <= set(parts):
        kind, size = "norm", parts["running_mean"].numel()
        fits = len(parts) in (2, 4) and all(value.shape == (size,) for value in parts.values())
    elif "weight" in parts and parts["weight"].ndim in KINDS:
        kind, size = KINDS[parts["weight"].ndim], len(parts["weight"])
        fits = set(parts) <= {"weight", "bias"} and ("bias" not in parts or parts["bias"].shape == (size,))
    else:
        shapes = ", ".join(f"{part} {tuple(value.shape)}" for part, value in parts.items())
        raise ProjectError(
            f"expected Linear, Conv2d and BatchNorm layers in one row, but {name} ({shapes}) is none of "
            f"them; {ELSEWHERE}."
        )
    if not fits or min((value.numel() for value in parts.values()), default=0) == 0:
        shapes = ", ".join(f"{part} {tuple(value.shape)}" for part, value in parts.items())
        raise ProjectError(
            f"expected the parts of a layer to fit together, but {name} has {shapes}; try saving it again."
        )
    return kind


def _step(layer: Layer, kind: str, before: int, source: str, flattens: bool = False) -> Step:
    """The layer behind ``source``, which gives ``before`` features or channels."""
    parts = layer.tensors
    if kind == "norm":
        takes, after = (parts["running_mean"].numel(),) * 2
    else:
        after, takes = parts["weight"].shape[:2]
    if kind == "convolution" and takes == 1 and after % before == 0:
        takes = before  # one group for each channel
    if flattens and takes % before == 0:
        before = takes
    if takes != before:
        what = "features" if kind == "linear" else "channels"
        raise ProjectError(
            f"expected each layer to take what the one before it gives, but {layer.name or 'the only layer'} "
            f"takes {takes} {what} and {source} has {before}; try other inputs, or order = the names in the "
            "order of the network in the [model] table."
        )
    return Step(layer, kind, before, after)


def _with_gaps(steps: list[Step], last: int) -> list[Step]:
    """The steps with what lies between each and the next, up to the ``last`` linear layer."""
    gaps: list[int | None] = [_gap(one.layer.name, other.layer.name) for one, other in pairwise(steps)]
    if not any(gaps):  # a list of layers, whose numbers tell nothing
        gaps = [None] * len(gaps)
    pending, found = False, []
    for i, (step, gap) in enumerate(zip(steps, [*gaps, None], strict=True)):
        pending |= step.kind != "norm"
        if i >= last:
            found.append(step)
            continue
        following, images = steps[i + 1], not any(s.kind == "linear" for s in steps[: i + 1])
        if gap is None:
            activated = pending and following.kind != "norm"
            room = None if images and following.kind != "norm" else False
        else:
            activated = pending and gap > 0
            room = images and gap - activated - following.flattened > 0
        pending &= not activated
        found.append(replace(step, activated=activated, room=room))
    return found


def _gap(one: str, other: str) -> int | None:
    """Modules between two layers of the same Sequential; None where the names do not tell."""
    (parent, _, number), (parent_of_other, _, next_number) = one.rpartition("."), other.rpartition(".")
    if parent != parent_of_other or not (number.isdecimal() and next_number.isdecimal()):
        return None
    gap = int(next_number) - int(number) - 1
    return gap if gap >= 0 else None


def _named(layers: Sequence[Layer]) -> str:
    return ", ".join(layer.name or "the top level" for layer in layers)
