"""The story of one training row, as arrays and facts for the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from puma_dash.core.engine import CancelEvent, Progress, engine_of
from puma_dash.core.evaluation.neighbours import Row, duplicates, neighbours, suspicions
from puma_dash.core.types import Project, ProjectError
from puma_dash.core.valuation.pairwise import pairwise_influence

MOST_VALUES = 64
"""Input values of a row that are kept to be shown."""


def story_of(
    project: Project, row: int, progress: Progress | None = None, cancel: CancelEvent | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a validator asks of one training row.

    Args:
        project: model and data.
        row: training row number.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Raises:
        ProjectError: there is no such row.
    """
    n = len(project.train)
    if not 0 <= row < n:
        raise ProjectError(f"expected a training row from 0 to {n - 1}, but got {row}.")
    influence = pairwise_influence(project, None, [row], progress=progress, cancel=cancel)  # (m, 1)
    engine = engine_of(project, progress=progress, cancel=cancel)
    engine.tick(0, 1, "Nearest rows")
    near, copies = neighbours(engine, row), duplicates(engine, row)
    labels = project.train.targets.numpy(force=True)
    probabilities = engine.probabilities(engine.outputs(project.train.take(np.array([row]))))[0]
    known = Row(
        label=int(labels[row]),
        prediction=int(probabilities.argmax()),
        confidence=float(probabilities.max()),
        neighbours=labels[near.rows],
        distance=float(near.distances[-1]) if len(near.distances) else 0.0,
        usual=near.usual,
        far=near.far,
        copies=labels[copies],
    )
    weights = project.train.weights
    values = project.train.inputs[row].reshape(-1)[:MOST_VALUES].numpy(force=True)
    arrays: dict[str, np.ndarray] = {
        "influence": influence[:, 0].astype(np.float32),
        "neighbours": near.rows,
        "distances": near.distances,
        "same": near.same,
        "other": near.other,
        "copies": copies,
        "values": np.asarray(values, dtype=np.float32),
    }
    info: dict[str, Any] = {
        "row": row,
        "weight": 1.0 if weights is None else float(weights[row]),
        "space": near.space,
        "suspicions": suspicions(known, list(project.class_names or ())),
    }
    return arrays, info
