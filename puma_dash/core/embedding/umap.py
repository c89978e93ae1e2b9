"""UMAP: neighbourhoods kept, distances between far groups mean little."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from puma_dash.core.embedding.base import SPACES, Coordinates, features
from puma_dash.core.registry import Described, seed_field

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class Umap(Described):
    """Uniform manifold approximation; seeded, so that the same data give the same map."""

    label = "UMAP"
    reference = "McInnes, Healy & Melville (2018), UMAP: uniform manifold approximation and projection"

    space: str = field(
        default="penultimate",
        metadata={"help": "What the rows are compared by.", "choices": " ".join(SPACES)},
    )
    neighbors: int = field(default=15, metadata={"help": "Size of a neighbourhood.", "min": 2, "max": 200})
    min_dist: float = field(
        default=0.1, metadata={"help": "Least distance on the map.", "min": 0.0, "max": 1.0}
    )
    seed: int = seed_field("the layout")

    def __call__(self, engine: Engine) -> Coordinates:
        """Coordinates (n, 2)."""
        engine.tick(0, 1, "Loading UMAP (its first use compiles for some seconds)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that Tensorflow, which is not needed, is missing
            import umap

        vectors = features(engine, self.space)
        engine.tick(0, 1, f"UMAP of {len(vectors):,} rows")
        reducer = umap.UMAP(
            n_neighbors=min(self.neighbors, len(vectors) - 1),
            min_dist=self.min_dist,
            random_state=self.seed,
            n_jobs=1,
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about disconnected points and spectral starts, not about the answer
            threads = torch.get_num_threads()
            xy = reducer.fit_transform(vectors)
            torch.set_num_threads(threads)  # numba has set the ones that both share to all cores
        return Coordinates(np.asarray(xy, dtype=np.float32), ("UMAP 1", "UMAP 2"))
