"""The story of one training row, as arrays and facts for the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from puma_dash.core.engine import CancelEvent, Engine, Progress, engine_of
from puma_dash.core.evaluation.neighbours import (
    Neighbours,
    Row,
    ValueRow,
    duplicates,
    neighbours,
    suspicions,
    suspicions_of_value,
)
from puma_dash.core.task import CLASSIFICATION
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
        "suspicions": _suspicions(engine, row, near, copies),
    }
    return arrays, info


def _suspicions(engine: Engine, row: int, near: Neighbours, copies: np.ndarray) -> list[tuple[str, str]]:
    """What the row is suspected of, by what its targets are."""
    labels = engine.project.train.targets.numpy(force=True)
    answers = engine.answers(engine.training_outputs)
    shared: dict[str, Any] = {
        "neighbours": labels[near.rows],
        "distance": float(near.distances[-1]) if len(near.distances) else 0.0,
        "usual": near.usual,
        "far": near.far,
        "copies": labels[copies],
    }
    if engine.project.task is CLASSIFICATION:
        said = answers[row]
        known = Row(int(labels[row]), int(said.argmax()), float(said.max()), **shared)
        return suspicions(known, list(engine.project.classes))
    large = float(np.quantile(np.abs(answers - labels).mean(1), 0.99))
    return suspicions_of_value(ValueRow(labels[row], answers[row], large, **shared))
