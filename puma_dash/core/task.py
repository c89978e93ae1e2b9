"""What a model is asked, which class a row is of or which value it has, and what follows from that.

The loss of a project says its task. Nothing here imports torch: the pages read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is named and read."""

    label: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, eq=False)
class Task:
    """What is meant where nobody says it, and what can be measured.

    Args:
        name: as messages have it.
        criterion: key of the criterion that is the plain loss, which is meant where none is named.
        target: what the truth about a row is called.
        metrics: name -> how it is read, of everything that is shown of a model.
        headline: the metrics that stand for all where there is room for few, the first one first.
    """

    name: str
    criterion: str
    target: str
    metrics: Mapping[str, Metric]
    headline: tuple[str, ...]


CLASSIFICATION = Task(
    "classification",
    "cross_entropy",
    "label",
    {
        "accuracy": Metric("Accuracy", "fraction", True),
        "nll": Metric("NLL", "nats", False),
        "brier": Metric("Brier score", "squared probability", False),
        "ece": Metric("ECE, 15 equal-width bins", "fraction", False),
    },
    ("accuracy", "nll", "ece"),
)
REGRESSION = Task(
    "regression",
    "squared_error",
    "target",
    {
        "rmse": Metric("RMSE", "target units", False),
        "mae": Metric("MAE", "target units", False),
        "r2": Metric("R²", "share of the targets' variance", True),
    },
    ("rmse", "mae", "r2"),
)
TASKS = {task.name: task for task in (CLASSIFICATION, REGRESSION)}
