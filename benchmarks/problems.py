"""The two problems that everyone is asked about: plain torch and numpy, so that the peers can read them.

Each is made once, deterministically, and saved; every library reads the same weights and rows. 10 % of the
training labels are flipped, and which ones is known.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from puma_dash.core.loaders.mnist import small_network as network

DAMPING = 0.01
DATA = "PUMA_DASH_TEST_DATA"
"""The environment variable that names the folder with the real data sets."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A trained classifier, its rows and what was done to them; float32, as the peers expect it."""

    name: str
    title: str
    model: nn.Sequential
    x: Tensor
    y: Tensor
    flipped: Tensor
    test_x: Tensor
    test_y: Tensor
    weight_decay: float

    @property
    def shift(self) -> float:
        """What B adds to the Gauss-Newton matrix of the mean loss: damping, and the weight decay of J."""
        return self.weight_decay + DAMPING

    def save(self, folder: Path) -> Path:
        """The file it was written to."""
        torch.save(self, folder / f"{self.name}.pt")
        return folder / f"{self.name}.pt"


def load(file: str | Path) -> Problem:
    """The problem that ``save`` wrote."""
    return torch.load(file, weights_only=False)


def digits() -> Problem:
    """A tanh network of 6 570 parameters, trained to convergence on scikit-learn's 8 x 8 digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.as_tensor(images[order] / 16)
    y, flipped = flip(torch.as_tensor(labels[order[:1437]]))
    torch.manual_seed(0)
    widths = [nn.Linear(a, b).double() for a, b in pairwise((64, 64, 32, 10))]
    model = nn.Sequential(widths[0], nn.Tanh(), widths[1], nn.Tanh(), widths[2])
    weight_decay = 0.005

    def objective() -> Tensor:
        squares = sum(parameter.square().sum() for parameter in model.parameters())
        return cross_entropy(model(x[:1437]), y) + weight_decay / 2 * squares

    descend(torch.optim.Adam(model.parameters(), lr=0.01), objective, 300)
    lbfgs = torch.optim.LBFGS(
        model.parameters(),
        max_iter=2_000,
        tolerance_grad=1e-7,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    descend(lbfgs, objective, 1)
    return Problem(
        name="digits",
        title="1 437 digits of 8 x 8, tanh network of 6 570 parameters",
        model=model.float().eval(),
        x=x[:1437].float(),
        y=y,
        flipped=flipped,
        test_x=x[1437:].float(),
        test_y=torch.as_tensor(labels[order[1437:]]),
        weight_decay=weight_decay,
    )


def cnn() -> Problem:
    """A convolutional network of 56 970 parameters after 12 epochs on 10 000 images of 28 x 28."""
    source = mnist(10_000, 2_000) if os.environ.get(DATA) else enlarged_digits()
    title, x, y, test_x, test_y = source
    y, flipped = flip(y)
    torch.manual_seed(0)
    model = network()
    epochs, batch = 12, 100
    batches = iter([rows for _ in range(epochs) for rows in torch.randperm(len(y)).split(batch)])

    def objective() -> Tensor:
        rows = next(batches)
        return cross_entropy(model(x[rows]), y[rows])

    descend(torch.optim.SGD(model.parameters(), lr=0.05), objective, epochs * len(y) // batch)
    return Problem(
        name="cnn",
        title=f"10 000 {title} of 28 x 28, convolutional network of 56 970 parameters",
        model=model.eval(),
        x=x,
        y=y,
        flipped=flipped,
        test_x=test_x,
        test_y=test_y,
        weight_decay=0.0,
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {"digits": digits, "cnn": cnn}


def descend(optimizer: torch.optim.Optimizer, objective: Callable[[], Tensor], steps: int) -> None:
    """Takes ``steps`` of ``optimizer``."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)


def flip(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (n,) with 10 % moved to another of the ten classes, and which ones (n,) bool."""
    rng = np.random.default_rng(1)
    rows = rng.choice(len(labels), len(labels) // 10, replace=False)
    noisy, flipped = labels.clone(), torch.zeros(len(labels), dtype=torch.bool)
    noisy[rows] = (labels[rows] + torch.as_tensor(rng.integers(1, 10, len(rows)))) % 10
    flipped[rows] = True
    return noisy, flipped


def mnist(training: int, test: int) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
    """A name, ``training`` and ``test`` images with their labels, at random from MNIST."""
    folder, rng = Path(os.environ[DATA]) / "mnist", np.random.default_rng(0)

    def read(part: str, count: int) -> tuple[Tensor, Tensor]:
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        rows = rng.choice(len(labels), count, replace=False)
        pixels = torch.as_tensor(images[rows]).float() / 255
        return (pixels - 0.1307) / 0.3081, torch.as_tensor(labels[rows]).long()

    return ("MNIST images", *read("train", training), *read("t10k", test))


def enlarged_digits() -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
    """The same without MNIST at hand: scikit-learn's digits enlarged, shifted and with noise."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))

    def draw(rows: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
        chosen = rng.choice(rows, count)
        large = interpolate(
            torch.as_tensor(images[chosen].reshape(-1, 1, 8, 8) / 16).float(), 24, mode="bilinear"
        )
        canvas = torch.as_tensor(0.1 * rng.standard_normal((count, 1, 28, 28))).float()
        for image, patch, (down, right) in zip(canvas, large, rng.integers(0, 5, (count, 2)), strict=True):
            image[:, down : down + 24, right : right + 24] += patch
        return (canvas - 0.22) / 0.35, torch.as_tensor(labels[chosen])

    return ("enlarged scikit-learn digits", *draw(order[:1437], 10_000), *draw(order[1437:], 2_000))
