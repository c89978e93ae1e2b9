"""What every criterion shares: its rows, the projects it refuses, and the name that says so."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from puma_dash.core.registry import Described
from puma_dash.core.task import CLASSIFICATION, Task
from puma_dash.core.types import SPLITS, ProjectError, Split, listing, row_array

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from puma_dash.core.engine import Engine
    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Project


@dataclass(frozen=True)
class Criterion(Described, ABC):
    """A scalar C(theta), lower is better, of the outputs on chosen evaluation rows.

    Every one is a function of means over rows, so that a resample of rows costs a product with its weights.
    ``rows``, ``of_class`` and ``group`` restrict it, together to the rows that all of them name: "which
    training rows caused these errors?"

    Args:
        split: where it is evaluated; validation by default, never chosen silently.
        rows: rows of that split, or None for all.
        of_class: only rows of this class (number or class name), or None for all.
        group: only rows with this (column, value) of the split's ``groups``, or else ``meta``; None for all.
    """

    key: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[str]
    reference: ClassVar[str]
    task: ClassVar[Task] = CLASSIFICATION
    """What the models are asked that it can judge."""

    split: str = field(
        default="validation", metadata={"help": "Rows of which split.", "choices": " ".join(SPLITS)}
    )
    rows: tuple[int, ...] | None = field(default=None, metadata={"help": "Rows of the split; empty for all."})
    of_class: int | str | None = field(
        default=None, metadata={"help": "Only rows of this class, by number or name; empty for all."}
    )
    group: tuple[Any, Any] | None = field(
        default=None, metadata={"help": "Only rows with this column and value; empty for all."}
    )

    def __post_init__(self) -> None:
        """Brings the restrictions into one form, so that equal criteria compare equal."""
        super().__post_init__()
        if self.rows is not None:
            rows = tuple(row_array(self.rows).tolist())
            if not rows:
                raise ProjectError(
                    "expected at least one row for the criterion, but got none; try rows=None."
                )
            object.__setattr__(self, "rows", rows)
        if self.group is not None:
            if not isinstance(self.group, tuple | list) or len(self.group) != 2:
                raise ProjectError(
                    f"expected group to be a column and a value of it, but got {self.group!r}; "
                    'try group=("sex", "female").'
                )
            column, value = self.group
            plain = value.item() if isinstance(value, np.generic) else value
            object.__setattr__(self, "group", (column, plain))

    @property
    def name(self) -> str:
        """Unique name: the registry key, and whatever is not the default, such as settings and rows."""
        shared = {entry.name for entry in dataclasses.fields(Criterion)}
        own = [entry for entry in dataclasses.fields(self) if entry.name not in shared]
        set_to = [
            f"{entry.name} {getattr(self, entry.name)!r}"
            for entry in own
            if getattr(self, entry.name) != entry.default
        ]
        parts = [self.key, f"({', '.join(set_to)})" if set_to else ""]
        if self.of_class is not None:
            parts.append(f"of class {self.of_class!r}")
        if self.group is not None:
            parts.append(f"where {self.group[0]} = {self.group[1]!r}")
        if self.rows is not None:
            mark = hashlib.sha256(repr(self.rows).encode()).hexdigest()[:6]
            parts.append(f"on {len(self.rows)} {self.split} rows #{mark}")
        elif self.split != "validation":
            parts.append(f"on {self.split}")
        return " ".join(filter(None, parts))

    def check(self, project: Project) -> None:
        """Refuses a project that it cannot be evaluated on.

        Raises:
            ProjectError: the project is of another task, or has no such rows.
        """
        if project.task is not self.task:
            raise ProjectError(
                f"expected a {self.task.name} project for {self.key}, but this one is a {project.task.name}; "
                f'try "{project.task.criterion}".'
            )
        self.restricted(project.split(self.split), project)

    def evaluation(self, engine: Engine) -> Split:
        """The rows it is evaluated on, in the engine's type.

        Raises:
            ProjectError: it cannot be evaluated on the engine's project.
        """
        self.check(engine.project)
        return self.restricted(engine.split(self.split), engine.project)

    def restricted(self, data: Split, project: Project) -> Split:
        """The rows of ``data``, which is its whole split, that it is about.

        Raises:
            ProjectError: there are none.
        """
        if self.rows is None and self.of_class is None and self.group is None:
            return data
        keep = np.ones(len(data), dtype=bool)
        if self.rows is not None:
            outside = [row for row in self.rows if not 0 <= row < len(data)]
            if outside:
                raise ProjectError(
                    f"expected rows 0 to {len(data) - 1} of the {self.split} split, "
                    f"but got {listing(outside)}."
                )
            keep = np.isin(np.arange(len(data)), self.rows)
        if self.of_class is not None:
            keep &= data.targets.numpy(force=True) == class_number(project, self.of_class)
        if self.group is not None:
            keep &= self._in_group(data)
        if not keep.any():
            raise ProjectError(
                f"expected rows of the {self.split} split for {self.name}, but none is left; "
                "try fewer restrictions."
            )
        return data.take(np.flatnonzero(keep))

    def _in_group(self, data: Split) -> np.ndarray:
        """Bool (m,): which rows have the value of ``group``."""
        assert self.group is not None
        name, value = self.group
        values = column(data, name, self.split)
        found = (values == value).to_numpy(bool, na_value=False)
        if not found.any():
            raise ProjectError(
                f"expected a value of {name} in the {self.split} split "
                f"({listing(map(str, values.dropna().unique()))}), but got {value!r}."
            )
        return found

    def strata(self, data: Split) -> np.ndarray:
        """Numbers (m,) of the strata within which rows may be resampled; all one where C needs none."""
        return np.zeros(len(data), dtype=np.int64)

    @abstractmethod
    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """What each row contributes (m, ...), from ``outputs`` (m, c) on the rows ``data``."""

    def of_means(self, means: Tensor) -> Tensor:
        """C () of the means (...) over rows of what they contribute."""
        return means

    def __call__(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """C () of ``outputs`` (m, c) on the rows ``data`` of a model trained with ``loss``."""
        return self.of_means(self.per_row(outputs, data, loss).mean(0))


def class_number(project: Project, value: int | str) -> int:
    """The number of a class given by number or name.

    Raises:
        ProjectError: the project has no such class.
    """
    names = project.classes
    if isinstance(value, str) and value in names:
        return names.index(value)
    if isinstance(value, str) or not 0 <= value < len(names):
        known = f"from 0 to {len(names) - 1} or by name ({', '.join(names)})" if names else "of a classifier"
        raise ProjectError(f"expected a class {known}, but got {value!r}.")
    return value


def column(data: Split, name: Any, split: str) -> pd.Series:
    """The column (m,) of that name of the rows' ``groups``, or else of their ``meta``.

    Raises:
        ProjectError: neither has it; the message lists those there are.
    """
    frames = [frame for frame in (data.groups, data.meta) if frame is not None]
    for frame in frames:
        if name in frame.columns:
            return frame[name]
    known = listing(str(known) for frame in frames for known in frame.columns)
    raise ProjectError(
        f"expected a column of the {split} split's groups or meta ({known or 'it has none'}), "
        f"but got {name!r}."
    )
