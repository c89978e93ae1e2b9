"""Two of the inputs' own columns: 2-D data as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from puma_dash.core.embedding.base import Coordinates, features
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class Columns(Described):
    """Input columns ``first`` and ``second``, untransformed."""

    label = "own columns"
    reference = "the data as given"

    first: int = field(default=0, metadata={"help": "Input column on the x axis.", "min": 0})
    second: int = field(default=1, metadata={"help": "Input column on the y axis.", "min": 0})

    def __call__(self, engine: Engine) -> Coordinates:
        """Coordinates (n, 2)."""
        vectors = features(engine, "inputs")
        d = vectors.shape[1]
        if not (0 <= self.first < d and 0 <= self.second < d):
            raise ProjectError(
                f"expected input columns 0 to {d - 1}, but got {self.first} and {self.second}."
            )
        return Coordinates(
            vectors[:, [self.first, self.second]].copy(),
            (f"input {self.first + 1}", f"input {self.second + 1}"),
        )
