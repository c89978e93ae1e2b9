"""Fairness: the worst group's loss, and smooth gaps between groups.

The gaps compare mean probabilities of the positive class where the usual differences compare rates of
predictions; where every probability is 0 or 1 both are the same number. Rows without a group count in none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from puma_dash.core.criteria.base import Criterion, column
from puma_dash.core.task import REGRESSION
from puma_dash.core.types import SPLITS, ProjectError, Split, listing

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Project


@dataclass(frozen=True)
class Grouped(Criterion):
    """A criterion that compares groups of rows."""

    attribute: int | str | None = field(
        default=None,
        metadata={"help": "Column that names the groups; empty for the first column of groups."},
    )

    def labels(self, data: Split) -> pd.Series:
        """The group (m,) of every row, missing where unknown.

        Raises:
            ProjectError: the rows have no such column.
        """
        if self.attribute is not None:
            return column(data, self.attribute, self.split)
        if data.groups is None or data.groups.shape[1] == 0:
            raise ProjectError(
                f"expected groups in the {self.split} split for {self.key}, but it has none; "
                "try puma.Split(inputs, targets, groups=DataFrame)."
            )
        return data.groups.iloc[:, 0]

    def codes(self, data: Split) -> np.ndarray:
        """Numbers (m,) of the groups of the rows; -1 where unknown."""
        import pandas as pd

        return pd.factorize(self.labels(data))[0]

    def strata(self, data: Split) -> np.ndarray:
        """The groups: a resample keeps the size of each."""
        return self.codes(data)

    def check(self, project: Project) -> None:
        """Refuses another task, a split that lacks a group the project knows, and rows of a single group."""
        super().check(project)
        whole = project.split(self.split)
        labels = self.labels(whole)
        known: set = set()
        for split in (getattr(project, name) for name in SPLITS):
            for frame in () if split is None else (split.groups, split.meta):
                if frame is not None and labels.name in frame.columns:
                    known |= set(frame[labels.name].dropna().unique())
                    break
        missing = known - set(labels.unique())
        if missing:
            raise ProjectError(
                f"expected rows of every group of {labels.name} in the {self.split} split, but it has none "
                f"of {listing(map(str, missing))}; try another split, or another attribute."
            )
        own = self.labels(self.restricted(whole, project)).dropna().unique()
        if len(own) < 2:
            raise ProjectError(
                f"expected at least two groups to compare for {self.name}, but got "
                f"{listing(map(str, own)) or 'none'}; try another attribute, or fewer restrictions."
            )


@dataclass(frozen=True)
class WorstLoss(Grouped):
    """The largest mean loss of a group."""

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """In which group the row is, and its loss there (m, 2, groups)."""
        return in_groups(loss.plain(outputs, data.targets), self.codes(data))

    def of_means(self, means: Tensor) -> Tensor:
        """C () of the groups' sizes and sums (2, groups)."""
        return group_means(means).max()


@dataclass(frozen=True)
class WorstGroup(WorstLoss):
    """C = the largest mean loss of a group, in nats; classes are groups where the project names none."""

    key = "worst_group"
    label = "worst group's cross-entropy"
    unit = "nats"
    reference = "Sagawa, Koh, Hashimoto & Liang (2020), Distributionally robust neural networks"

    def labels(self, data: Split) -> pd.Series:
        """The group (m,) of every row, or else its class."""
        import pandas as pd

        if self.attribute is None and data.groups is None:
            return pd.Series(data.targets.numpy(force=True))
        return super().labels(data)

    def check(self, project: Project) -> None:
        """Also refuses to take classes for groups on one split, and groups on another."""
        splits = {name: getattr(project, name) for name in SPLITS}
        named = [name for name, split in splits.items() if split is not None and split.groups is not None]
        if self.attribute is None and named and self.split not in named:
            raise ProjectError(
                f"expected groups in the {self.split} split, as in {', '.join(named)}, but it has none; "
                "try puma.Split(inputs, targets, groups=DataFrame)."
            )
        super().check(project)


@dataclass(frozen=True)
class WorstGroupError(WorstLoss):
    """C = the largest mean squared error of a group, in squared units of the target."""

    key = "worst_group_error"
    label = "worst group's squared error"
    unit = "squared target units"
    reference = WorstGroup.reference
    task = REGRESSION


@dataclass(frozen=True)
class DemographicParity(Grouped):
    """C = the largest gap between groups of the mean probability of the positive class, from 0 to 1."""

    key = "demographic_parity"
    label = "demographic parity gap"
    unit = "probability"
    reference = "Agarwal et al. (2018), A reductions approach to fair classification"

    positive: int | None = field(
        default=None, metadata={"help": "Number of the positive class; empty for the last.", "min": 0}
    )

    def check(self, project: Project) -> None:
        """Also refuses a positive class that the project does not have."""
        super().check(project)
        classes = len(project.classes)
        if self.positive is not None and self.positive not in range(classes):
            raise ProjectError(
                f"expected positive to be a class from 0 to {classes - 1}, but got {self.positive!r}."
            )

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """In which group the row is, and its probability there (m, 2, groups)."""
        p = loss.probabilities(outputs)
        return in_groups(p[:, self._number(p.shape[1])], self.codes(data))

    def of_means(self, means: Tensor) -> Tensor:
        """C () of the groups' sizes and sums (..., 2, groups): the largest gap."""
        rates = group_means(means)
        return (rates.amax(-1) - rates.amin(-1)).max()

    def _number(self, classes: int) -> int:
        """The number of the positive class."""
        return classes - 1 if self.positive is None else self.positive


@dataclass(frozen=True)
class EqualizedOdds(DemographicParity):
    """C = the larger of the gaps among the truly positive rows and among the others, from 0 to 1."""

    key = "equalized_odds"
    label = "equalized odds gap"
    unit = "probability"
    reference = "Hardt, Price & Srebro (2016), Equality of opportunity in supervised learning"

    def check(self, project: Project) -> None:
        """Also refuses rows where a group has only positive or only other ones."""
        super().check(project)
        data = self.restricted(project.split(self.split), project)
        labels, truth = self.labels(data), self._truth(data, len(project.classes))
        for rows, what in ((truth, "of the positive class"), (~truth, "of other classes")):
            lacking = set(labels.dropna().unique()) - set(labels[rows.numpy(force=True)].unique())
            if lacking:
                raise ProjectError(
                    f"expected rows {what} in every group for {self.name}, but there are none in "
                    f"{listing(map(str, lacking))}; try another attribute, or demographic_parity."
                )

    def strata(self, data: Split) -> np.ndarray:
        """The groups, each by class: a resample keeps the positive and the other rows of each."""
        targets = data.targets.numpy(force=True)
        return self.codes(data) * (targets.max() + 1) + targets

    def per_row(self, outputs: Tensor, data: Split, loss: Loss) -> Tensor:
        """In which group the row is, and its probability there, by truth (m, 2, 2, groups)."""
        known = super().per_row(outputs, data, loss)
        truth = self._truth(data, loss.probabilities(outputs).shape[1])
        return known[:, None] * torch.stack([truth, ~truth], dim=1)[:, :, None, None]

    def _truth(self, data: Split, classes: int) -> Tensor:
        """Bool (m,): which rows are of the positive class."""
        return data.targets == self._number(classes)


def in_groups(values: Tensor, codes: np.ndarray) -> Tensor:
    """1 and the value of each row in the column of its group, else 0 (m, 2, groups).

    Args:
        values: (m,)
        codes: (m,) numbers of the groups; rows of code -1 are in none.
    """
    groups = torch.arange(int(codes.max()) + 1, device=values.device)
    member = (torch.from_numpy(codes).to(values.device)[:, None] == groups).to(values)  # (m, groups)
    return torch.stack([member, member * values[:, None]], dim=1)


def group_means(means: Tensor) -> Tensor:
    """Mean value (..., groups) of each group, from what ``in_groups`` gives on average (..., 2, groups)."""
    sizes, sums = means.unbind(-2)
    return sums / sizes
