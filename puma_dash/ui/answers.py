"""What rows are labelled and what the model answers, for people: classes with a confidence, or values.

The one place in the pages that knows how single rows of a classifier and of a regression differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from puma_dash.core.task import REGRESSION, TASKS
from puma_dash.ui import text
from puma_dash.ui.rules import Field

FIT = ["misfit", "fits its label"]
MIX = 4
"""Classes of a selection that are named, most frequent first."""


class Answers(Protocol):
    """Targets and predictions of the rows of a split."""

    names: list[str]
    target: NDArray
    predicted: NDArray

    def fields(self) -> dict[str, Field]:
        """Everything about targets and answers by which rows can be coloured and found."""

    def columns(self, chosen: NDArray) -> dict[str, Any]:
        """The same of the rows ``chosen``, as columns of a table."""

    def told(self, chosen: NDArray) -> list[str]:
        """One line for each of the rows ``chosen``."""

    def words(self, values: NDArray) -> list[str]:
        """Targets or predictions in words."""

    def summary(self, chosen: NDArray) -> str:
        """What is labelled what among the rows ``chosen``, in one line of Markdown."""


@dataclass(frozen=True, eq=False)
class Classes:
    """Rows of a classifier.

    Args:
        names: of the classes.
        target: class numbers (n,).
        predicted: class numbers (n,).
        confidence: of the prediction (n,).
    """

    names: list[str]
    target: NDArray
    predicted: NDArray
    confidence: NDArray

    def fields(self) -> dict[str, Field]:
        """Label, prediction, whether they agree, and confidence."""
        return {
            "label": Field(self.target, self.names),
            "prediction": Field(self.predicted, self.names),
            "fit": Field((self.target == self.predicted).astype(np.int8), FIT),
            "confidence": Field(self.confidence),
        }

    def columns(self, chosen: NDArray) -> dict[str, Any]:
        """Label, prediction and confidence."""
        return {
            "label": self.words(self.target[chosen]),
            "prediction": self.words(self.predicted[chosen]),
            "confidence": self.confidence[chosen],
        }

    def told(self, chosen: NDArray) -> list[str]:
        """Such as: label 3, predicted 8 (97 %)."""
        own, said = self.words(self.target[chosen]), self.words(self.predicted[chosen])
        sure = [text.percent(share, 0) for share in self.confidence[chosen]]
        return [f"label {a}, predicted {b} ({c})" for a, b, c in zip(own, said, sure, strict=True)]

    def words(self, values: NDArray) -> list[str]:
        """Names of classes."""
        return [self.names[int(k)] for k in values]

    def summary(self, chosen: NDArray) -> str:
        """How many rows of which class, the most frequent ones first."""
        sizes = np.bincount(self.target[chosen], minlength=len(self.names))
        order = [label for label in np.argsort(-sizes, kind="stable")[:MIX] if sizes[label]]
        mix = ", ".join(f"{text.escape(self.names[label])}: {sizes[label]:,}" for label in order)
        others = np.count_nonzero(sizes) - len(order)
        return f"**Labels** {mix}" + (f" and {others} more" if others > 0 else "")


@dataclass(frozen=True, eq=False)
class Values:
    """Rows of a regression.

    Args:
        names: of the k outputs.
        target: values (n, k).
        predicted: values (n, k).
    """

    names: list[str]
    target: NDArray
    predicted: NDArray

    @property
    def residual(self) -> NDArray:
        """Prediction - target (n, k)."""
        return self.predicted - self.target

    def fields(self) -> dict[str, Field]:
        """Target, prediction and residual, of several outputs each."""
        kinds = {"target": self.target, "prediction": self.predicted, "residual": self.residual}
        return {
            kind if len(self.names) == 1 else f"{kind} of {name}": Field(values[:, k])
            for k, name in enumerate(self.names)
            for kind, values in kinds.items()
        }

    def columns(self, chosen: NDArray) -> dict[str, Any]:
        """Target, prediction and residual, of several outputs each."""
        return {name: np.asarray(field.values)[chosen] for name, field in self.fields().items()}

    def told(self, chosen: NDArray) -> list[str]:
        """Such as: target 151, predicted 163.2."""
        each = zip(self.words(self.target[chosen]), self.words(self.predicted[chosen]), strict=True)
        return [f"target {target}, predicted {predicted}" for target, predicted in each]

    def words(self, values: NDArray) -> list[str]:
        """Numbers, those of several outputs between commas."""
        return [
            ", ".join(f"{value:.4g}" for value in row) for row in np.reshape(values, (-1, len(self.names)))
        ]

    def summary(self, chosen: NDArray) -> str:
        """Mean target and mean residual."""
        target, off = self.target[chosen].mean(0), self.residual[chosen].mean(0)
        return f"**Mean target** {self.words(target)[0]}, **mean residual** {self.words(off)[0]}"


def answers_in(info: Mapping[str, Any], arrays: Mapping[str, NDArray], prefix: str = "") -> Classes | Values:
    """The answers in an overview, of the split whose arrays begin with ``prefix``."""
    names, target, predicted = info["classes"], arrays[f"{prefix}target"], arrays[f"{prefix}predicted"]
    if TASKS[info["task"]] is REGRESSION:
        return Values(names, target, predicted)
    return Classes(names, target, predicted, arrays[f"{prefix}confidence"])
