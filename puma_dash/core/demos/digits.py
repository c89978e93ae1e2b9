"""Digits: 1 797 real handwritten digits with 10 % of the training labels flipped, and the flips known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from puma_dash.core.demos.base import flip_labels, mlp, recipe, rows, train
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.types import Project

TRAIN, VALIDATION = 1_000, 397


@dataclass(frozen=True)
class Digits(Described):
    """Handwritten digits, 8 x 8 grey values, a 64-32-10 network; 1 000 train, 397 validation, 400 test."""

    label = "Handwritten digits"
    reference = "Alpaydin & Kaynak (1998), Optical recognition of handwritten digits, UCI (via scikit-learn)"
    summary = "1 000 real images, 100 of them with a wrong label. Find them, patch them away."
    seconds = 3

    flipped: float = field(
        default=0.1, metadata={"help": "Fraction of training labels flipped.", "min": 0.0, "max": 0.5}
    )
    seed: int = seed_field("split, flips, start and batches")

    def untrained(self) -> Project:
        """The project with a freshly drawn model."""
        import pandas as pd
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = (images / 16).reshape(-1, 1, 8, 8)
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(labels))
        cuts = np.split(order, [TRAIN, TRAIN + VALIDATION])
        noisy, flipped = flip_labels(labels[cuts[0]], self.flipped, 10, rng)
        meta = pd.DataFrame({"flipped": flipped, "true_label": labels[cuts[0]], "source_row": cuts[0]})
        model = mlp(64, 32, 10, seed=self.seed)
        model.insert(0, nn.Flatten())
        return Project(
            name="Handwritten digits",
            model=model,
            train=rows(images[cuts[0]], noisy, meta=meta),
            validation=rows(images[cuts[1]], labels[cuts[1]]),
            test=rows(images[cuts[2]], labels[cuts[2]]),
            weight_decay=1e-3,
            trainer=recipe(learning_rate=0.01, epochs=200, batch_size=200),
        )

    def __call__(self) -> Project:
        """The trained project."""
        return train(self.untrained(), self.seed)
