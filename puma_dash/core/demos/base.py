"""What the demos share: flipped labels that are known, and training by the project's own recipe."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.objective import resolve_loss
from puma_dash.core.recorder import train_recorded
from puma_dash.core.training import AdamRecipe
from puma_dash.core.types import Project, Split

if TYPE_CHECKING:
    import pandas as pd


def flip_labels(
    targets: np.ndarray, fraction: float, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels with ``fraction`` of them moved to another class at random, and which ones (n,) bool."""
    flipped = np.zeros(len(targets), dtype=bool)
    flipped[rng.choice(len(targets), round(fraction * len(targets)), replace=False)] = True
    noisy = targets.copy()
    noisy[flipped] = (targets[flipped] + rng.integers(1, classes, flipped.sum())) % classes
    return noisy, flipped


def recipe(learning_rate: float, epochs: int, batch_size: int) -> AdamRecipe:
    """The demos' training recipe for softmax cross-entropy."""
    return AdamRecipe(resolve_loss("cross_entropy"), learning_rate, epochs, batch_size)


def mlp(*widths: int, seed: int) -> nn.Sequential:
    """A multilayer perceptron with tanh units, drawn from ``seed``."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def rows(inputs: np.ndarray | Tensor, labels: np.ndarray, meta: pd.DataFrame | None = None) -> Split:
    """A split of float32 inputs (n, ...) and labels (n,)."""
    return Split(torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(labels), meta=meta)


def train(project: Project, seed: int) -> Project:
    """``project`` with its model trained by its own recipe, and the records of that training.

    They hold ten checkpoints, and the rows and the update of each batch: 2 to 10 MB, of MNIST 76 MB.
    """
    weights = torch.ones(len(project.train))
    model = copy.deepcopy(project.model)  # the recipe trains in place; a project's model never changes
    trainer = project.trainer
    assert isinstance(trainer, AdamRecipe), "every demo brings its recipe"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose by sharing, and sums keep one order on every machine
    try:
        decay = project.weight_decay or 0.0
        trained, records = train_recorded(trainer, model, project.train, weights, decay, seed, updates=True)
    finally:
        torch.set_num_threads(threads)
    return replace(project.with_model(trained), records=records)
