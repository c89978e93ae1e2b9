"""Normalisation as the first thing that the model does: data stay as they are on the disk."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from puma_dash.core.objective import model_dtype
from puma_dash.core.types import ProjectError

CHUNK_NUMBERS = 2**22
"""Rows are read in chunks of about this many numbers."""


@dataclass(frozen=True)
class Normalise:
    """(x - mean) / std in front of a model, called by it with its inputs (``register_forward_pre_hook``).

    A hook, unlike a wrapping module, leaves the names of parameters and the keys of saved weights alone.

    Args:
        mean: one number, or one per channel or feature (the first axis of a row).
        std: likewise, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Checks that both are numbers, and as many."""
        if not self.mean or len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise ProjectError(
                "expected as many numbers in mean as in std of [normalise], and each std above 0, but got "
                f"{len(self.mean)} and {len(self.std)}; try mean = 0.5, std = 0.25."
            )

    def __call__(self, model: nn.Module, args: tuple[Any, ...]) -> Tensor:
        """The inputs (b, ...) that the model goes on with, in its own type."""
        inputs = args[0]
        kind = inputs.dtype if inputs.is_floating_point() else model_dtype(model)
        mean, std = _constants(self, kind, inputs.device, inputs.ndim)
        return (inputs.to(kind) - mean) / std

    def check(self, inputs: Tensor) -> None:
        """Refuses rows of another number of channels or features."""
        if len(self.mean) not in (1, *inputs.shape[1:2]):
            raise ProjectError(
                f"expected one mean and std, or one per channel or feature, for rows of shape "
                f"{tuple(inputs.shape[1:])}, but got {len(self.mean)} in [normalise]."
            )


@functools.lru_cache(maxsize=8)
def _constants(of: Normalise, kind: torch.dtype, device: torch.device, axes: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, shaped for inputs of so many axes."""
    shape = (-1, *[1] * (axes - 2))
    values = (torch.tensor(each, dtype=kind, device=device) for each in (of.mean, of.std))
    mean, std = (value.reshape(shape) for value in values)
    return mean, std


def standard(inputs: Tensor) -> Normalise:
    """Mean and standard deviation of the inputs (n, ...), in two passes over chunks of rows.

    Per feature of vectors (n, d) and per channel of pictures (n, c, h, w); one pair for any other shape.
    Where nothing varies, the standard deviation counts as 1.
    """
    kept = 1 if inputs.ndim in (2, 4) else None
    axes = [axis for axis in range(inputs.ndim) if axis != kept]
    count = inputs.numel() // (inputs.shape[1] if kept else 1)
    chunks = inputs.split(max(1, CHUNK_NUMBERS * len(inputs) // max(inputs.numel(), 1)))
    mean = sum(chunk.double().sum(axes, keepdim=True) for chunk in chunks) / count
    square = sum((chunk.double() - mean).square().sum(axes, keepdim=True) for chunk in chunks) / count
    std = square.sqrt().where(square > 0, 1.0)
    return Normalise(tuple(mean.ravel().tolist()), tuple(std.ravel().tolist()))
