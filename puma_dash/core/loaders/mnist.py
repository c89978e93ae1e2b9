"""MNIST, from the four files as they are published or through scikit-learn's loader."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.loaders.idx import read_idx
from puma_dash.core.types import ProjectError

FOLDER = "PUMA_DASH_MNIST"
"""The environment variable with the folder that holds the four files, gzipped or not."""
FILES = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
MEAN, STD, TRAIN = 0.1307, 0.3081, 60_000


def read_mnist(folder: str | Path = "") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (n, 28, 28) and labels (n,) of the 60 000 training rows, then of the 10 000 test rows.

    Args:
        folder: where the files are; else the one that ``PUMA_DASH_MNIST`` names; else OpenML is asked, whose
            answer scikit-learn keeps.

    Raises:
        ProjectError: the folder lacks a file, or none is named and OpenML cannot be reached.
    """
    folder = folder or os.environ.get(FOLDER, "")
    if folder:
        found = [_file(Path(folder), name) for name in FILES]
        images, labels, test_images, test_labels = map(read_idx, found)
        return images, labels, test_images, test_labels
    from sklearn.datasets import fetch_openml

    try:
        pixels, digits = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
    except OSError as error:
        raise ProjectError(
            f"expected MNIST in a folder or from openml.org, but no folder is named and {error}; try "
            f"{FOLDER}=FOLDER, with its four files: {', '.join(FILES)}, gzipped or not."
        ) from error
    images, labels = pixels.reshape(-1, 28, 28).astype(np.uint8), digits.astype(np.uint8)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ProjectError(
        f"expected the four files of MNIST in {folder}, but {name} is not there, nor {name}.gz; "
        f"try another folder, or leave {FOLDER} empty, which asks openml.org."
    )


def drawn(
    images: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """``count`` of the images at random, standardised (count, 1, 28, 28), with their labels."""
    rows = rng.choice(len(labels), count, replace=False)
    return standardised(images[rows]), torch.as_tensor(labels[rows]).long()


def standardised(images: np.ndarray) -> Tensor:
    """Images uint8 (n, 28, 28) as inputs (n, 1, 28, 28), over all of MNIST of mean 0 and deviation 1."""
    return (torch.as_tensor(images).float()[:, None] / 255 - MEAN) / STD


def small_network() -> nn.Sequential:
    """An untrained convolutional network of 56 970 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
