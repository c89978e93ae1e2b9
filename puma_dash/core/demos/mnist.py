"""MNIST: 10 000 of its training images with 10 % of the labels flipped, and the flips known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from puma_dash.core.demos.base import flip_labels, recipe, rows, train
from puma_dash.core.loaders.mnist import read_mnist, small_network, standardised
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.types import Project

TRAIN, VALIDATION = 10_000, 5_000


@dataclass(frozen=True)
class Mnist(Described):
    """MNIST, 28 x 28 grey values, a small convolutional network; 10 000 train, 5 000 validation, 10 000 test.

    It comes from the folder that ``PUMA_DASH_MNIST`` names, or else from openml.org. Batches are so large
    that the records of training, with each batch's update of 56 970 parameters, stay at 76 MB.
    """

    label = "MNIST"
    reference = "LeCun, Cortes & Burges (1998), The MNIST database of handwritten digits"
    summary = (
        "10 000 real images, 1 000 of them with a wrong label, and a convolutional network. They are read "
        "from the folder that PUMA_DASH_MNIST names, or else from openml.org."
    )
    seconds = 15

    flipped: float = field(
        default=0.1, metadata={"help": "Fraction of training labels flipped.", "min": 0.0, "max": 0.5}
    )
    seed: int = seed_field("rows, flips, start and batches")

    def untrained(self) -> Project:
        """The project with a freshly drawn model.

        Raises:
            ProjectError: MNIST is not at hand.
        """
        import pandas as pd

        images, labels, test_images, test_labels = read_mnist()
        labels, test_labels = labels.astype(np.int64), test_labels.astype(np.int64)
        rng = np.random.default_rng(self.seed)
        drawn = rng.choice(len(labels), TRAIN + VALIDATION, replace=False)
        own, held_out = drawn[:TRAIN], drawn[TRAIN:]
        noisy, flipped = flip_labels(labels[own], self.flipped, 10, rng)
        meta = pd.DataFrame({"flipped": flipped, "true_label": labels[own], "source_row": own})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = small_network()
        return Project(
            name="MNIST",
            model=model,
            train=rows(standardised(images[own]), noisy, meta=meta),
            validation=rows(standardised(images[held_out]), labels[held_out]),
            test=rows(standardised(test_images), test_labels),
            weight_decay=1e-3,
            trainer=recipe(learning_rate=0.003, epochs=20, batch_size=625),
        )

    def __call__(self) -> Project:
        """The trained project."""
        return train(self.untrained(), self.seed)
