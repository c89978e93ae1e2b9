"""What every criterion shares: the rows it is evaluated on and the name that says so."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from puma_dash.core.types import SPLITS, ProjectError, Split, listing, row_array

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.engine import Engine
    from puma_dash.core.objective import Loss


@dataclass(frozen=True)
class Criterion(ABC):
    """A scalar C(theta), lower is better, of the outputs on chosen evaluation rows.

    Args:
        split: where it is evaluated; validation by default, never chosen silently.
        rows: rows of that split, or None for all: "which training rows caused these errors?"
    """

    key: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[str]
    reference: ClassVar[str]

    split: str = field(
        default="validation", metadata={"help": "Rows of which split.", "choices": " ".join(SPLITS)}
    )
    rows: tuple[int, ...] | None = field(default=None, metadata={"help": "Rows of the split; empty for all."})

    def __post_init__(self) -> None:
        """Brings ``rows`` into one form, so that equal criteria compare equal."""
        if self.split not in SPLITS:
            raise ProjectError(f"expected one of the splits {', '.join(SPLITS)}, but got {self.split!r}.")
        if self.rows is not None:
            rows = tuple(row_array(self.rows).tolist())
            if not rows:
                raise ProjectError(
                    "expected at least one row for the criterion, but got none; try rows=None."
                )
            object.__setattr__(self, "rows", rows)

    @property
    def name(self) -> str:
        """Unique name: the registry key, and the rows where they are not the default."""
        if self.rows is None:
            return self.key if self.split == "validation" else f"{self.key} on {self.split}"
        mark = hashlib.sha256(repr(self.rows).encode()).hexdigest()[:6]
        return f"{self.key} on {len(self.rows)} {self.split} rows #{mark}"

    def evaluation(self, engine: Engine) -> Split:
        """The rows it is evaluated on, in the engine's type.

        Raises:
            ProjectError: the split has no such rows.
        """
        split = engine.split(self.split)
        if self.rows is None:
            return split
        outside = [row for row in self.rows if not 0 <= row < len(split)]
        if outside:
            raise ProjectError(
                f"expected rows 0 to {len(split) - 1} of the {self.split} split, but got {listing(outside)}."
            )
        return split.take(np.array(self.rows))

    @abstractmethod
    def __call__(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """C () of ``outputs`` (m, c) on the rows ``data`` of a model trained with ``loss``."""
