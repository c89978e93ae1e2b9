"""What a set of training rows is worth: the games whose Shapley values are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.embedding.base import SPACES, features
from puma_dash.core.objective import Loss
from puma_dash.core.retraining import Check, Training, outputs_of
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import ProjectError, Split
from puma_dash.core.valuation.linear import fitted, mean_loss, standardised

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.engine import Engine

Game = Callable[[Check], Callable[[np.ndarray], float]]
"""Gives a function v(rows) to be asked along one order of rows, which may go on from its last answer."""

FLAT, ITERATIONS = 1e-2, 100
"""A fit ends where the gradient's largest entry is this share of that of all rows at W = 0, or after so many
steps."""


def metric_field(default: str = "auto") -> Any:
    """The field that says what a model is worth."""
    told = {
        "help": "What a model is worth: its accuracy, or minus the criterion; auto: accuracy of classes.",
        "choices": "auto accuracy criterion",
    }
    return field(default=default, metadata=told)


def space_field() -> Any:
    """The field that says what a fast model sees."""
    told = {"help": "What the fast model sees of a row.", "choices": " ".join(SPACES)}
    return field(default="penultimate", metadata=told)


@dataclass(frozen=True, eq=False)
class Worth:
    """V of outputs on the evaluation rows: accuracy, or minus the criterion; higher is better."""

    data: Split
    loss: Loss
    criterion: Criterion | None
    """None for accuracy."""
    nothing: Tensor
    """(1, c) outputs of who knows nothing."""

    @classmethod
    def of(cls, engine: Engine, criterion: Criterion, metric: str) -> Worth:
        """That of ``metric`` on the rows of the criterion.

        Raises:
            ProjectError: accuracy of a regression.
        """
        classes = engine.project.task is CLASSIFICATION
        if metric == "accuracy" and not classes:
            raise ProjectError(
                'expected metric="criterion" for a regression, which has no accuracy, but got "accuracy".'
            )
        placed, targets = criterion.evaluation(engine), engine.project.train.targets
        data = Split(placed.inputs.cpu(), placed.targets.cpu(), None, placed.groups, placed.meta)
        width = engine.training_outputs.shape[1]
        nothing = torch.zeros(1, width).double() if classes else targets.double().mean(0, keepdim=True).cpu()
        by_accuracy = metric == "accuracy" or (metric == "auto" and classes)
        return cls(data, engine.loss, None if by_accuracy else criterion, nothing)

    @property
    def name(self) -> str:
        """What is measured."""
        return "accuracy" if self.criterion is None else f"minus {self.criterion.name}"

    def __call__(self, outputs: Tensor) -> float:
        """V of ``outputs`` (m, c)."""
        if self.criterion is not None:
            return -float(self.criterion(outputs, self.data, self.loss))
        predicted = self.loss.probabilities(outputs).argmax(1)
        return float((predicted == self.data.targets).double().mean())

    @property
    def empty(self) -> float:
        """V without any rows: the share of the commonest class, or that of a model that knows nothing."""
        if self.criterion is None:
            return float(self.data.targets.bincount().max()) / len(self.data)
        return self(self.nothing.expand(len(self.data), -1).clone())


@dataclass(frozen=True, eq=False)
class LinearGame:
    """V of a linear model, fitted with the project's loss to features of mean 0 and variance 1.

    A fit goes on from the one before, which takes a few steps where the row is one of many.
    """

    features: Tensor
    """(n, d + 1)"""
    targets: Tensor
    weights: Tensor
    """(n,) training weights."""
    held_out: Tensor
    """(m, d + 1) of the evaluation rows."""
    worth: Worth
    l2: float
    flat: float

    @classmethod
    def of(cls, engine: Engine, worth: Worth, space: str, l2: float) -> LinearGame:
        """On features of the engine's model."""
        own, data = (features(engine, space, rows) for rows in (None, worth.data))
        train, held_out = standardised(own, data)
        given = engine.project.train.weights
        weights = train.new_ones(engine.n) if given is None else given.double()
        targets, nothing = engine.project.train.targets.cpu(), _nothing(worth, train)
        steepest = mean_loss(train, targets, worth.loss, weights, nothing)[1].abs().max()
        return cls(train, targets, weights, held_out, worth, l2, FLAT * float(steepest))

    def fit(self, rows: np.ndarray, start: Tensor | None = None, iterations: int = ITERATIONS) -> Tensor:
        """W (c, d + 1) of the model of ``rows``."""
        begin = _nothing(self.worth, self.features) if start is None else start
        own, targets, weights = self.features[rows], self.targets[rows], self.weights[rows]
        loss = self.worth.loss
        return fitted(own, targets, loss, self.l2, weights, begin, flat=self.flat, iterations=iterations)

    def reversed(self) -> Tensor:
        """W (c, d + 1) of the model of the evaluation rows."""
        begin, targets = _nothing(self.worth, self.features), self.worth.data.targets
        weights = self.held_out.new_ones(len(targets))
        return fitted(self.held_out, targets, self.worth.loss, self.l2, weights, begin, flat=self.flat)

    def __call__(self, check: Check) -> Callable[[np.ndarray], float]:
        """V of rows, each fit going on from the last."""
        model: Tensor | None = None

        def value(rows: np.ndarray) -> float:
            nonlocal model
            check()
            model = self.fit(rows, model)
            return self.worth(self.held_out @ model.T)

        return value


@dataclass(frozen=True, eq=False)
class TrainedGame:
    """V of a model that the project's own trainer makes of the rows, from the same start."""

    training: Training
    worth: Worth
    rows: int
    seed: int

    def __call__(self, check: Check) -> Callable[[np.ndarray], float]:
        """V of rows."""

        def value(rows: np.ndarray) -> float:
            check()
            model = self.training.on(rows, self.seed, check)
            return self.worth(torch.from_numpy(outputs_of(model, self.worth.data.inputs, self.rows)))

        return value


def _nothing(worth: Worth, features: Tensor) -> Tensor:
    """W = 0 (c, d + 1)."""
    return features.new_zeros(worth.nothing.shape[1], features.shape[1])
