"""The influence of every training row on criteria: what valuation shows and patches are planned with."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.curvature import inverse_of, settled
from puma_dash.core.curvature.base import Curvature, Estimate
from puma_dash.core.curvature.costs import BACKWARD, FORWARD_MODE, RECORDED, Costs
from puma_dash.core.curvature.streams import Stream
from puma_dash.core.layers import Layout

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature.base import Inverse
    from puma_dash.core.engine import Engine


class Influence(NamedTuple):
    """The influence of every training row on one criterion."""

    value: float
    direction: Tensor
    """B^-1 grad C (p,)"""
    psi: Tensor
    """(n,)"""
    residual: float
    iterations: int
    facts: dict[str, Any]
    """How it was solved: what the inverse says of itself, the ``seconds`` that gradients, solve and scores
    took, and for how many ``criteria`` at once."""


def influences_of(engine: Engine, criteria: Sequence[Criterion], inverse: Inverse) -> list[Influence]:
    """One block solve and one pass over the training rows; kept by the engine, since patches ask again."""
    known = engine.memo.setdefault(inverse, {})
    new = [criterion for criterion in dict.fromkeys(criteria) if criterion not in known]
    if new:
        begin = time.perf_counter()
        values, gradients = zip(*(engine.criterion_gradient(criterion) for criterion in new), strict=True)
        solution = inverse(torch.stack(gradients))
        engine.tick(1, 2, "Scoring the training rows")
        psi = scores(engine, solution.x)
        took = {"seconds": time.perf_counter() - begin, "criteria": len(new)}
        for k, criterion in enumerate(new):
            known[criterion] = Influence(
                values[k],
                solution.x[k],
                psi[k],
                solution.residual,
                solution.iterations,
                {**inverse.facts, **solution.facts, **took},
            )
    return [known[criterion] for criterion in criteria]


def ask_first(engine: Engine, criteria: Sequence[Criterion], curvature: str | Curvature) -> None:
    """Has ``engine`` know the influences on ``criteria``, kept on disk, if this is its first question.

    What is solved first depends on nothing but the project, the criteria and the curvature, to the last bit:
    so it may be read where it was solved before. A later answer depends on what was asked earlier (which
    criteria were solved as one block, how far the sample of rows has grown), and is neither kept nor read.
    """
    chosen = settled(engine, curvature)
    if not criteria or chosen in engine.memo or ("rows", chosen) in engine.memo:
        return
    inverse = inverse_of(engine, chosen)

    def solve() -> dict[str, np.ndarray]:
        found = influences_of(engine, criteria, inverse)
        numbers = [(of.value, of.residual, of.iterations) for of in found]
        return {
            "directions": torch.stack([of.direction for of in found]).numpy(force=True),
            "psi": torch.stack([of.psi for of in found]).numpy(force=True),
            "numbers": np.array(numbers, dtype=np.float64),
            "facts": np.frombuffer(json.dumps([of.facts for of in found], default=float).encode(), np.uint8),
        }

    asked = sha256(repr((list(criteria), chosen)).encode()).hexdigest()
    kept = engine.keep(f"influences {asked}", solve)
    directions, psi = (torch.from_numpy(kept[name]).to(engine.device) for name in ("directions", "psi"))
    engine.memo[inverse] = {
        criterion: Influence(value, directions[k], psi[k], residual, int(iterations), facts)
        for k, (criterion, (value, residual, iterations), facts) in enumerate(
            zip(criteria, kept["numbers"].tolist(), json.loads(kept["facts"].tobytes()), strict=True)
        )
    }


def scores(engine: Engine, directions: Tensor) -> Tensor:
    """s^T (a_j grad l_j) for every training row j, (k, n), for directions s (k, p).

    One direction takes a forward-mode pass, about three bare forward passes. For several the rows' gradients
    are written down layer by layer, a batch at a time, and each further direction costs next to nothing.
    """
    layout = Layout.of(engine, engine.batch_size) if len(directions) > 1 else None
    if layout is None or layout.missing:
        return engine.directional_scores(directions)
    stream = Stream(engine, engine.split("train"), message="Scoring the training rows")
    return torch.cat(stream.over(lambda part: stream.gradients(part).times(directions)), dim=1)


def scoring_estimate(engine: Engine) -> Estimate:
    """What a criterion's gradient and the scores of all training rows will cost, without the solve."""
    costs, split = Costs.of(engine), engine.project.validation or engine.project.train
    seconds = costs.passes(len(split), 1 + RECORDED + BACKWARD) + costs.passes(engine.n, FORWARD_MODE)
    batch = min(max(len(split), engine.n), engine.batch_size)
    return Estimate(seconds, int(3 * costs.graph(batch) + costs.vectors(3)), f"scores of {engine.n:,} rows")
