"""Two moons with 10 % label noise: mislabelled, over-confident and under-confident points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from puma_dash.core.demos.base import flip_labels, mlp, recipe, rows, train
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.types import Project


@dataclass(frozen=True)
class TwoMoons(Described):
    """Two interleaving half circles, a 2-16-16-2 network; 800 train, 1 000 validation, 2 000 test."""

    label = "Two moons"
    reference = "scikit-learn's make_moons; the setting of PUMA's figures 8 and 9"
    summary = "800 points in the plane, 80 of them with a wrong label: see calibration break and mend."
    seconds = 5

    flipped: float = field(
        default=0.1, metadata={"help": "Fraction of training labels flipped.", "min": 0.0, "max": 0.5}
    )
    noise: float = field(
        default=0.2, metadata={"help": "Standard deviation of the points.", "min": 0.0, "max": 1.0}
    )
    seed: int = seed_field("data, flips, start and batches")

    def untrained(self) -> Project:
        """The project with a freshly drawn model."""
        import pandas as pd
        from sklearn.datasets import make_moons

        sizes = (800, 1_000, 2_000)
        points, labels = make_moons(sum(sizes), noise=self.noise, random_state=self.seed)
        cuts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        noisy, flipped = flip_labels(labels[cuts[0]], self.flipped, 2, np.random.default_rng(self.seed))
        meta = pd.DataFrame({"flipped": flipped, "true_label": labels[cuts[0]]})
        return Project(
            name="Two moons",
            model=mlp(2, 16, 16, 2, seed=self.seed),
            train=rows(points[cuts[0]], noisy, meta=meta),
            validation=rows(points[cuts[1]], labels[cuts[1]]),
            test=rows(points[cuts[2]], labels[cuts[2]]),
            weight_decay=1e-4,
            class_names=("upper moon", "lower moon"),
            trainer=recipe(learning_rate=0.02, epochs=150, batch_size=100),
        )

    def __call__(self) -> Project:
        """The trained project."""
        return train(self.untrained(), self.seed)
