"""Data Shapley by truncated Monte Carlo: what rows add to those that came before, in random orders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import Costs
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.retraining import Check, Training, jobs_field, results, retraining_estimate
from puma_dash.core.valuation.games import Game, LinearGame, TrainedGame, Worth, metric_field, space_field

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine

PATIENCE = 5
"""An order is left after more than so many rows in a row that end within the tolerance of the full value."""
LAG = 100
"""Converged where the means of the last so many orders differ little from the last one."""
USUAL_SHARE = 0.2
FIT_PASSES = 20
"""Share of an order that is gone through and evaluations of a fit, seen on digits, for estimates."""


@dataclass(frozen=True)
class DataShapleyTMC(Described):
    """phi_j = mean over random orders of V(rows before j and j) - V(rows before j).

    V is the accuracy (or minus the criterion) on the evaluation rows of a model trained on the rows alone. It
    is a linear model on features of the project's model, fitted anew each time, or the project's own trainer,
    which takes as many trainings as rows are gone through. An order is left where V has come within
    ``truncation`` of V of all rows, |V - V_all| <= truncation |V_all|, for more than 5 rows; the rest gets 0.
    The values then add up to V_all - V_nothing, but for what was left. It stops where, for the means phi^t
    of the last 100 orders, mean_j |phi_j^t - phi_j^T| / |phi_j^T| < ``convergence``, or after ``orders``.
    """

    label = "Data Shapley (truncated Monte Carlo)"
    reference = "Ghorbani & Zou (2019), Data Shapley: equitable valuation of data for machine learning"
    needs = ("criterion", "trainer", "validation")

    model: str = field(
        default="linear",
        metadata={"help": "A linear model on features, or the project's own.", "choices": "linear trainer"},
    )
    metric: str = metric_field()
    space: str = space_field()
    l2: float = field(default=0.01, metadata={"help": "Weight decay of the linear model.", "min": 1e-8})
    orders: int = field(default=200, metadata={"help": "Random orders at most.", "min": 1})
    truncation: float = field(
        default=0.01, metadata={"help": "Leave an order this near to the full value; 0 never.", "min": 0.0}
    )
    convergence: float = field(
        default=0.05, metadata={"help": "Stop where the values change by less than this share.", "min": 0.0}
    )
    seed: int = seed_field("the orders and the trainings")
    jobs: int | None = jobs_field()

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Shapley values (n,) in units of V, and whether they have converged; rows of weight 0 get 0."""
        worth = Worth.of(engine, criterion, self.metric)
        own = engine.project.train.weights
        players = np.arange(engine.n) if own is None else np.flatnonzero(own.numpy(force=True))
        game: Game
        if self.model == "linear":
            game = LinearGame.of(engine, worth, self.space, self.l2)
        else:
            game = TrainedGame(Training.of(engine), worth, engine.batch_size, self.seed)
        full = game(engine.check_cancel)(players)
        walk = Walk(game, players, worth.empty, full, self.truncation, self.seed)
        found = results(engine, walk, range(self.orders), self.jobs, "Data Shapley")
        values, facts = mean_of_orders(found, self.convergence)
        scores = torch.zeros(engine.n, dtype=torch.float64)
        scores[torch.from_numpy(players)] = torch.from_numpy(values)
        told = {"metric": worth.name, "value_of_all": full, "value_of_nothing": worth.empty}
        return scores, {**told, **facts, "retrainings": facts["evaluations"] + 1}

    def estimate(self, engine: Engine) -> Estimate:
        """What all orders will cost, one after the other, each gone through to a fifth."""
        times = round(self.orders * USUAL_SHARE * engine.n)
        if self.model == "trainer":
            return retraining_estimate(engine, times, max(1, round(USUAL_SHARE * engine.n / 2)))
        width = engine.project.train.inputs[0].numel()
        outputs = max(len(engine.project.class_names or ()), 1)
        rows = USUAL_SHARE * engine.n / 2 + len(engine.project.validation) / FIT_PASSES
        one = FIT_PASSES * (2e-4 + 2 * rows * width * outputs * Costs.of(engine).multiplication)
        held = 16 * width * (engine.n + len(engine.project.validation))
        return Estimate(times * one, held, f"about {times:,} retrainings of a linear model")


@dataclass(frozen=True, eq=False)
class Walk:
    """What each row adds to those before it in one random order."""

    game: Game
    players: np.ndarray
    empty: float
    full: float
    truncation: float
    seed: int

    def __call__(self, number: int, check: Check) -> tuple[np.ndarray, int]:
        """What the players (k,) add in order ``number``, and how often V was asked for."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.players))
        value, before = self.game(check), self.empty
        found, near, asked = np.zeros(len(order)), 0, 0
        for size, j in enumerate(order, 1):
            check()
            asked += size < len(order)
            after = value(self.players[order[:size]]) if size < len(order) else self.full
            found[j], before = after - before, after
            close = self.truncation > 0 and abs(self.full - after) <= self.truncation * abs(self.full)
            near = near + 1 if close else 0
            if near > PATIENCE:
                break
        return found, asked


def mean_of_orders(
    found: Iterable[tuple[np.ndarray, int]], convergence: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """The mean (k,) of what rows add, over as many orders as it takes, and how it went."""
    total: Any = 0.0
    means: list[np.ndarray] = []  # the last LAG + 1
    change, asked, orders = np.inf, 0, 0
    for orders, (added, times) in enumerate(found, 1):
        total, asked = total + added, asked + times
        means = [*means[-LAG:], total / orders]
        if orders > LAG:
            last = means[-1]
            change = float((np.abs(np.array(means) - last) / (np.abs(last) + 1e-12)).mean(1).max())
            if change < convergence:
                break
    facts = {"orders": orders, "evaluations": asked, "change": change, "converged": change < convergence}
    return means[-1], facts
