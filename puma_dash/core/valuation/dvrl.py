"""Data valuation by reinforcement learning: a network learns which rows to train on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import Costs
from puma_dash.core.registry import Described, seed_field
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.valuation.games import LinearGame, Worth, metric_field, space_field

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine

LOW, HIGH, PENALTY = 0.1, 0.9, 1e3
"""The mean probability of selection is pushed back into this range: else it explores no more."""
WINDOW = 20
"""Rounds that the expected V is a moving average of."""
INNER = 15
"""Steps of L-BFGS that the predictor takes on the rows selected, from where all rows have brought it."""


@dataclass(frozen=True)
class DVRL(Described):
    """h(x_j, y_j, |y_j - yhat_j|), from 0 to 1: how probably a learned selector takes row j for training.

    Each round draws s_j ~ Bernoulli(h_j), fits a predictor (a linear model on features) to the rows drawn and
    is rewarded by R = V - what V was of late, a moving average that begins with V of all rows. The selector,
    a network of two hidden layers, follows R grad sum_j [s_j log h_j + (1 - s_j) log(1 - h_j)] (REINFORCE),
    with a penalty where the mean of h leaves .1 to .9. yhat_j is what a predictor fitted to the evaluation
    rows says of x_j. The published learning rate, .01, drove h to one of these ends here.
    """

    label = "DVRL (reinforcement learning)"
    reference = "Yoon, Arik & Pfister (2020), Data valuation using reinforcement learning"
    needs = ("criterion", "trainer", "validation")

    metric: str = metric_field("criterion")
    space: str = space_field()
    l2: float = field(default=0.01, metadata={"help": "Weight decay of the predictor.", "min": 1e-8})
    rounds: int = field(default=1_000, metadata={"help": "Selections that are tried.", "min": 1})
    hidden: int = field(default=100, metadata={"help": "Width of the selector.", "min": 1})
    learning_rate: float = field(default=1e-3, metadata={"help": "Of the selector.", "min": 1e-12})
    batch: int = field(default=2_000, metadata={"help": "Rows considered in a round.", "min": 2})
    seed: int = seed_field("selector and selections")

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Probabilities (n,), and what the selection gains in V; rows of weight 0 are never drawn."""
        worth = Worth.of(engine, criterion, self.metric)
        game = LinearGame.of(engine, worth, self.space, self.l2)
        players = game.weights.nonzero().ravel()
        whole = game.fit(players.numpy())
        baseline = worth(game.held_out @ whole.T)
        seen = described(game, engine)
        generator = torch.Generator().manual_seed(self.seed)
        selector = _selector(seen.shape[1], self.hidden, self.seed)
        optimizer = torch.optim.Adam(selector.parameters(), lr=self.learning_rate)
        values, expected = [], baseline
        for number in range(self.rounds):
            engine.tick(number, self.rounds, "Learning to select")
            drawn = torch.randperm(len(players), generator=generator)[: self.batch]
            rows = players[drawn]
            h = selector(seen[rows])[:, 0].sigmoid()
            s = torch.bernoulli(h.detach(), generator=generator)
            if not s.any():
                s = torch.bernoulli(torch.full_like(s, 0.5), generator=generator)
            taken = rows[s > 0]
            if not len(taken):
                continue
            model = game.fit(taken.numpy(), whole, INNER)
            value = worth(game.held_out @ model.T)
            reward, expected = value - expected, expected + (value - expected) / WINDOW
            values.append(value)
            likelihood = (s * (h + 1e-8).log() + (1 - s) * (1 - h + 1e-8).log()).sum()
            outside = (h.mean() - HIGH).clamp_min(0) + (LOW - h.mean()).clamp_min(0)
            optimizer.zero_grad()
            (-reward * likelihood + PENALTY * outside).backward()
            optimizer.step()
        with torch.no_grad():
            scores = selector(seen)[:, 0].sigmoid()
        told = {"metric": worth.name, "baseline": baseline, "retrainings": len(values) + 2}
        return scores, {**told, "value": float(np.mean(values[-WINDOW:])), "mean": float(scores.mean())}

    def estimate(self, engine: Engine) -> Estimate:
        """What all rounds will cost."""
        width = engine.project.train.inputs[0].numel()
        outputs, rows = max(len(engine.project.class_names or ()), 1), min(self.batch, engine.n)
        per_row = 3 * self.hidden * (self.hidden + width) + 2 * INNER * width * outputs
        one = INNER * 3e-4 + 3e-3 + rows * per_row * Costs.of(engine).multiplication
        held = 8 * rows * (4 * self.hidden + 3 * width)
        return Estimate(self.rounds * one, held, f"{self.rounds + 2:,} retrainings of a linear model")


def described(game: LinearGame, engine: Engine) -> Tensor:
    """What the selector sees of each row: features, label, and how a model of the evaluation rows errs."""
    answers = game.worth.loss.answers(game.features @ game.reversed().T)  # (n, classes) or (n, k)
    if engine.project.task is CLASSIFICATION:
        label = nn.functional.one_hot(game.targets.long(), answers.shape[1]).double()
        return torch.cat([game.features, label, (label - answers).abs()], dim=1)
    scale = game.targets.double().std(0).clamp_min(1e-12)
    label = (game.targets.double() - game.targets.double().mean(0)) / scale
    return torch.cat([game.features, label, (game.targets - answers).abs() / scale], dim=1)


def _selector(width: int, hidden: int, seed: int) -> nn.Sequential:
    """A network (m, width) -> (m, 1) in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )
    return nn.Sequential(*layers).double()
