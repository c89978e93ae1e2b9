"""Principal components: instant, deterministic, distances mean something."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.embedding.base import SPACES, Coordinates, features
from puma_dash.core.registry import Described

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class Pca(Described):
    """The two directions of largest variance."""

    label = "PCA"
    reference = "Pearson (1901), On lines and planes of closest fit"

    space: str = field(
        default="penultimate",
        metadata={"help": "What the rows are compared by.", "choices": " ".join(SPACES)},
    )

    def __call__(self, engine: Engine) -> Coordinates:
        """Coordinates (n, 2); the axes say how much of the variance each shows."""
        from sklearn.decomposition import PCA

        vectors = features(engine, self.space)
        if vectors.shape[1] == 1:
            return Coordinates(np.repeat(vectors, 2, axis=1).astype(np.float32), ("feature 1", "feature 1"))
        fitted = PCA(2, random_state=0)
        xy = fitted.fit_transform(vectors).astype(np.float32)
        shares = fitted.explained_variance_ratio_
        first, second = (f"PC {k} ({100 * share:.0f} % of variance)" for k, share in enumerate(shares, 1))
        return Coordinates(xy, (first, second))
