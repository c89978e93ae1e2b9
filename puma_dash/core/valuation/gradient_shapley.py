"""Data Shapley by gradients: what each step of one epoch adds, in random orders at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import BACKWARD, Costs
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.training import fresh
from puma_dash.core.valuation.data_shapley import mean_of_orders
from puma_dash.core.valuation.games import Worth, metric_field

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine

RATES = tuple(10.0**-power for power in np.arange(1, 5, 0.5))
TRIALS = 10
AT_ONCE = 20
"""Learning rates tried, orders each is tried in, and orders that are gone through together."""


@dataclass(frozen=True)
class DataShapleyG(Described):
    """phi_j = mean over random orders of V after the step on row j - V before it.

    An order is one epoch of SGD on single rows, from fresh parameters, theta <- theta - rate a_j grad l_j; V
    is the accuracy (or minus the criterion) on the evaluation rows. The first row of an order gets 0. The
    learning rate "auto" is the one of eight with the best mean - standard deviation of V after an epoch.
    BatchNorm and Dropout are as in evaluation. It stops as the truncated Monte Carlo does.
    """

    label = "Data Shapley (gradient)"
    reference = "Ghorbani & Zou (2019), Data Shapley: equitable valuation of data for machine learning"
    needs = ("criterion", "trainer", "validation")

    metric: str = metric_field()
    orders: int = field(default=100, metadata={"help": "Random orders at most.", "min": 1})
    learning_rate: float | str = field(
        default="auto", metadata={"help": "Of the single epoch.", "min": 1e-12, "choices": "auto"}
    )
    convergence: float = field(
        default=0.05, metadata={"help": "Stop where the values change by less than this share.", "min": 0.0}
    )
    seed: int = seed_field("the orders and the fresh parameters")

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Values (n,) in units of V, and whether they have converged; rows of weight 0 get 0.

        Raises:
            ProjectError: a module cannot draw its parameters anew.
        """
        epochs = Epochs(engine, Worth.of(engine, criterion, self.metric), self.seed)
        rate, tried = self.learning_rate, {}
        if isinstance(rate, str):
            tried = {str(one): epochs.score(one) for one in RATES}
            rate = float(max(tried, key=lambda one: tried[one]))
        chosen = rate

        def found() -> Any:
            for start in range(0, self.orders, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, self.orders))
                message = f"Data Shapley, {start:,} of {self.orders:,} orders"
                yield from ((row, 1) for row in epochs.added(numbers, float(chosen), message))

        values, facts = mean_of_orders(found(), self.convergence)
        scores = torch.zeros(engine.n, dtype=torch.float64)
        scores[epochs.players] = torch.from_numpy(values)
        del facts["evaluations"]
        told = {"metric": epochs.worth.name, "learning_rate": rate, "rates": tried}
        return scores, {**told, **facts, "retrainings": facts["orders"] + len(tried) * TRIALS}

    def estimate(self, engine: Engine) -> Estimate:
        """What all orders will cost."""
        costs, held_out = Costs.of(engine), len(engine.project.validation)
        tried = len(RATES) * TRIALS if self.learning_rate == "auto" else 0
        steps = engine.n * (self.orders + tried) / AT_ONCE
        seconds = steps * 10 * costs.call * (1 + BACKWARD) + self.orders * engine.n * held_out * costs.row
        held = int(AT_ONCE * (costs.graph(held_out) + costs.vectors(3)))
        return Estimate(seconds, held, f"{self.orders + tried} retrainings of one epoch")


class Epochs:
    """Models that go through one epoch of single rows side by side, each in an order of its own.

    Args:
        engine: of the project.
        worth: what a model is worth.
        seed: of orders and fresh parameters.

    Attributes:
        players: (k,) training rows that take part.
    """

    def __init__(self, engine: Engine, worth: Worth, seed: int) -> None:
        self.engine, self.worth, self.seed = engine, worth, seed
        self.train = engine.split("train")
        own = self.train.weights
        self.weights = engine.theta.new_ones(engine.n) if own is None else own
        self.players = self.weights.nonzero().ravel().cpu()
        self.held_out = engine.to(worth.data.inputs)
        names = [name for name, p in engine.project.model.named_parameters() if p.requires_grad]

        def loss(
            moving: dict[str, Tensor], rest: dict[str, Tensor], x: Tensor, y: Tensor, a: Tensor
        ) -> Tensor:
            outputs = functional_call(engine.model, {**moving, **rest}, (x[None],))
            return a * engine.loss(outputs, y[None])[0]

        def outputs(moving: dict[str, Tensor], rest: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(engine.model, {**moving, **rest}, (x,))

        self._names = set(names)
        self._slopes = vmap(grad(loss))
        self._outputs = vmap(outputs, in_dims=(0, 0, None))

    def score(self, rate: float) -> float:
        """Mean - standard deviation of V after an epoch with this learning rate."""
        values: list[float] = []
        self._run(range(TRIALS), rate, "Learning rate", lambda _, after: values.extend(after), last=True)
        return float(np.mean(values) - np.std(values)) if np.isfinite(values).all() else -np.inf

    def added(self, numbers: range, rate: float, message: str) -> np.ndarray:
        """What each player's step adds to V (orders, k)."""
        found, before = np.zeros((len(numbers), len(self.players))), np.zeros(len(numbers))
        orders = self._orders(numbers)

        def note(step: int, after: np.ndarray) -> None:
            if step:
                found[np.arange(len(numbers)), orders[:, step]] = after - before
            before[:] = after

        self._run(numbers, rate, message, note)
        return found

    def _orders(self, numbers: range) -> np.ndarray:
        """(orders, k) places among the players."""
        each = [np.random.default_rng([self.seed, one]).permutation(len(self.players)) for one in numbers]
        return np.stack(each)

    def _run(
        self,
        numbers: range,
        rate: float,
        message: str,
        note: Callable[[int, np.ndarray], object],
        last: bool = False,
    ) -> None:
        """Goes through the orders, and tells ``note`` V of each model after each step, or after the last."""
        engine, rows = self.engine, self.players[torch.from_numpy(self._orders(numbers))]
        models = [
            fresh(engine.project.model, self.seed + one).to(engine.device, engine.dtype) for one in numbers
        ]
        named, buffers = stack_module_state([model.eval() for model in models])
        moving = {name: value.detach() for name, value in named.items() if name in self._names}
        rest = {name: value.detach() for name, value in {**named, **buffers}.items() if name not in moving}
        for step in range(rows.shape[1]):
            engine.tick(step, rows.shape[1], message)
            now = rows[:, step]
            x, y = engine.to(self.train.inputs[now]), self.train.targets[now]
            slopes = self._slopes(moving, rest, x, y, self.weights[now])
            moving = {name: value - rate * slopes[name] for name, value in moving.items()}
            if not last or step == rows.shape[1] - 1:
                note(step, self._values(moving, rest))

    @torch.no_grad()
    def _values(self, moving: dict[str, Tensor], rest: dict[str, Tensor]) -> np.ndarray:
        """V of each model."""
        return np.array(
            [self.worth(one) for one in self._outputs(moving, rest, self.held_out).double().cpu()]
        )
