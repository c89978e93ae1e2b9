"""Figure 4: where naive removal and PUMA lead, on the surfaces of the objective and of a criterion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from puma_dash.core import api
from puma_dash.core.criteria.cross_entropy import CrossEntropy
from puma_dash.core.demos.two_moons import TwoMoons
from puma_dash.core.engine import engine_of
from puma_dash.core.experiments.base import (
    Experiment,
    Result,
    criterion_values,
    mean_of,
    summary,
    told_value,
    verdict,
)
from puma_dash.core.plan import PatchPlan

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.engine import CancelEvent, Engine, Progress

SIDE, ROOM = 25, 0.6
"""Points along each side of the grid, and how far it goes beyond what it shows, in its extent."""
WAYS = {"naive removal": "influence", "PUMA": "puma"}


@dataclass(frozen=True)
class Directions(Experiment):
    """Two moons: the most valuable rows are removed, naively and with the validation loss held."""

    label = "Figure 4: directions"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figures 1 and 4"

    removed: int = field(default=40, metadata={"help": "How many of the rows of highest psi.", "min": 1})

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """J and C at the end of each direction; both surfaces over their plane, of the first seed."""
        found, arrays = [], {}
        for seed in self.over_seeds(progress, cancel):
            project = TwoMoons(seed=seed)()
            held, engine = CrossEntropy(), engine_of(project)
            rows = np.argsort(api.value(project, criterion=held).scores)[-self.removed :].tolist()
            value = criterion_values(project, [held])
            steps = {}
            for way, method in WAYS.items():
                hold = (held,) if method == "puma" else ()
                made = api.patch(project, PatchPlan(remove=rows, hold=hold, method=method), seed=seed)
                steps[way] = made.delta
                moved = _objective(engine, engine.theta_of(made.model))
                line = {"J of all rows": moved - _objective(engine, engine.theta)}
                change = value(made.model)[0] - value(project.model)[0]
                found.append({"way": way, **line, "C": change, "strength": made.strength})
            if not seed:
                arrays = _surfaces(engine, held, torch.stack(list(steps.values())))
        table = summary(found, ["way"])
        ends = [mean_of(table, {"way": way}, "C") for way in WAYS]
        naive, puma = (told_value(table, {"way": way}, "C", 4) for way in WAYS)
        told = (
            f"Removing the {self.removed} most valuable rows changes the validation loss by {naive} naively "
            f"and by {puma} with PUMA. {verdict(ends[0] > 0 >= ends[1])}, where naive removal walks up the "
            "surface of C and PUMA's sum of arrows does not."
        )
        return Result({"Change at the end of each direction": table}, arrays, told)


def _objective(engine: Engine, theta: Tensor) -> float:
    """J on all training rows."""
    losses = engine.loss(engine.outputs("train", theta), engine.split("train").targets)
    return float(losses.mean() + 0.5 * engine.weight_decay * theta @ theta)


def _surfaces(engine: Engine, criterion: CrossEntropy, steps: Tensor) -> dict[str, np.ndarray]:
    """J and C on the plane through theta and both ends (2, p), in coordinates of equal length."""
    basis = torch.linalg.qr(steps.to(engine.theta).T).Q.T  # (2, p)
    ends = (steps.to(engine.theta) @ basis.T).cpu().numpy()  # (2, 2)
    shown = np.concatenate([np.zeros((1, 2)), ends])
    low, high = shown.min(0), shown.max(0)
    room = ROOM * (high - low).max()
    x, y = np.linspace(low - room, high + room, SIDE).T
    data = criterion.evaluation(engine)
    train, c = np.empty((SIDE, SIDE)), np.empty((SIDE, SIDE))
    for i, v in enumerate(y):
        for j, u in enumerate(x):
            theta = engine.theta + torch.tensor([u, v]).to(engine.theta) @ basis
            train[i, j] = _objective(engine, theta)
            c[i, j] = engine.criterion(criterion, theta, data=data)
    return {"x": x, "y": y, "J": train, "C": c, "ends": ends}
