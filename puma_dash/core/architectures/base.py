"""What the architectures share: activations, lists of sizes, and images with or without channels."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from puma_dash.core.types import ProjectError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "identity": nn.Identity,
}
POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
LARGEST = 2**20
"""Units of one layer."""
DEEPEST = 1_000
"""Layers."""


def whole_numbers(name: str, value: Any, least: int) -> tuple[int, ...]:
    """``value``, a list of whole numbers from ``least`` on, as a tuple.

    Raises:
        ProjectError: it is something else, or it holds absurdly many or large numbers.
    """
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and len(value) <= DEEPEST:
        plain = tuple(v.item() if isinstance(v, np.generic) else v for v in value)
        if all(type(v) is int and least <= v <= LARGEST for v in plain):
            return plain
    raise ProjectError(
        f"expected {name} to be a list of at most {DEEPEST} whole numbers from {least} to {LARGEST}, "
        f"but got {reprlib.repr(value)}."
    )


def image(shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, int, int]]:
    """The module that gives images their channels, and their shape (channels, height, width) behind it.

    Args:
        shape: of one row: (channels, height, width), or (height, width) for grey values.

    Raises:
        ProjectError: rows of this shape are no images.
    """
    if len(shape) == 2:
        return nn.Unflatten(1, (1, shape[0])), (1, *shape)
    if len(shape) != 3:
        raise ProjectError(
            "expected images (channels, height, width) or (height, width) for a network with convolutions, "
            f"but one row has the shape {shape}; try reshaping the inputs."
        )
    return nn.Identity(), shape
