"""What the experiments of the source share: their result, repetition over seeds, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from puma_dash.core.engine import CancelEvent, Engine, Progress, engine_of
from puma_dash.core.evaluation.statistics import half_width
from puma_dash.core.registry import Described
from puma_dash.core.types import Cancelled

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.types import Project


class Result(NamedTuple):
    """What an experiment found."""

    tables: dict[str, pd.DataFrame]
    """Title -> table; intervals are over seeds."""
    arrays: dict[str, np.ndarray]
    """What its picture is drawn from, of the first seed where it is of one."""
    told: str
    """What is to be seen, and where it agrees with the source and where not."""


@dataclass(frozen=True)
class Experiment(Described):
    """An experiment, repeated over seeds 0, 1, ...; called, it returns its ``Result``."""

    label: ClassVar[str]
    reference: ClassVar[str]

    seeds: int = field(default=10, metadata={"help": "How many repetitions.", "min": 1, "max": 1000})

    def over_seeds(self, progress: Progress | None, cancel: CancelEvent | None) -> Iterator[int]:
        """The seeds, telling progress before each.

        Raises:
            Cancelled: ``cancel`` was set.
        """
        for seed in range(self.seeds):
            if cancel is not None and cancel.is_set():
                raise Cancelled
            if progress is not None:
                progress(seed, self.seeds, f"Seed {seed + 1} of {self.seeds}")
            yield seed


def summary(found: list[dict[str, Any]], by: list[str]) -> pd.DataFrame:
    """The mean of each number over seeds and half the width of its 95 % t-interval, by the columns ``by``.

    Args:
        found: a line for each seed and way, with the columns ``by`` and numbers.
        by: columns that name the way, in whose order of first appearance the lines come.
    """
    import pandas as pd

    groups = pd.DataFrame(found).groupby(by, sort=False)
    mean = groups.mean(numeric_only=True)
    half = groups[list(mean)].agg(lambda values: half_width(values.to_numpy()))
    return mean.join(half.add_suffix(" ±")).reset_index()


def told_value(table: pd.DataFrame, of: dict[str, Any], name: str, digits: int = 3) -> str:
    """A number of a summary with its interval, in words; the line is the one with the values ``of``."""
    mean, half = mean_of(table, of, name), mean_of(table, of, f"{name} ±")
    told = f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
    return told.replace("-", "−")


def verdict(agrees: bool) -> str:
    """How what was found compares with what the source shows."""
    return f"On average over the seeds it {'agrees' if agrees else 'does not agree'} with the source"


def mean_of(table: pd.DataFrame, of: dict[str, Any], name: str) -> float:
    """A number of a summary; the line is the one with the values ``of``."""
    chosen = np.logical_and.reduce([table[column] == value for column, value in of.items()])
    return float(table.loc[chosen, name].iloc[0])


def criterion_values(project: Project, criteria: list[Criterion]) -> Callable[[nn.Module], list[float]]:
    """What gives the values of ``criteria`` for another model of ``project``, on the same evaluation rows."""
    engine = engine_of(project)
    rows = [criterion.evaluation(engine) for criterion in criteria]

    def of(model: nn.Module) -> list[float]:
        other = Engine(project.with_model(model), device=engine.device)
        return [other.criterion(c, data=data) for c, data in zip(criteria, rows, strict=True)]

    return of
