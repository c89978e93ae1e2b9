"""Radial: clusters on a circle, alternating between two classes; remove one cluster and keep the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from puma_dash.core.demos.base import mlp, recipe, rows, train
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.types import Project, Split

CLUSTERS = 6


@dataclass(frozen=True)
class Radial(Described):
    """Six Gaussian clusters around a circle, a 2-16-16-2 network; 600 train, 600 validation, 1 200 test."""

    label = "Radial clusters"
    reference = "the setting of PUMA's figure 6"
    summary = (
        "Six clusters of two classes: remove the influence of one and see that both classes hold elsewhere."
    )
    seconds = 3

    spread: float = field(
        default=0.2, metadata={"help": "Standard deviation of a cluster.", "min": 0.0, "max": 1.0}
    )
    seed: int = seed_field("data, start and batches")

    def untrained(self) -> Project:
        """The project with a freshly drawn model."""
        rng = np.random.default_rng(self.seed)
        splits = [self._draw(count, rng) for count in (600, 600, 1_200)]
        return Project(
            name="Radial clusters",
            model=mlp(2, 16, 16, 2, seed=self.seed),
            train=splits[0],
            validation=splits[1],
            test=splits[2],
            weight_decay=1e-3,
            class_names=("class A", "class B"),
            trainer=recipe(learning_rate=0.02, epochs=100, batch_size=100),
        )

    def __call__(self) -> Project:
        """The trained project."""
        return train(self.untrained(), self.seed)

    def _draw(self, count: int, rng: np.random.Generator) -> Split:
        import pandas as pd

        cluster = np.arange(count) % CLUSTERS
        angle = 2 * np.pi * cluster / CLUSTERS
        centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points = centres + self.spread * rng.standard_normal((count, 2))
        return rows(points, cluster % 2, meta=pd.DataFrame({"cluster": cluster}))
