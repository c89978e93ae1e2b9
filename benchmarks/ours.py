"""The same questions put to PUMA Dash, in a process like that of a peer; called as a peer is (``peer``).

The names are imported one by one because ``puma_dash`` loads them when asked, and importing is not counted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import main
from benchmarks.problems import DAMPING, Problem
from puma_dash import ConjugateGradient, Dense, Project, Split, value
from puma_dash.core.curvature import Curvature

CURVATURE = ConjugateGradient(damping=DAMPING, fidelity=0.99)
TRUTH = {
    "digits": Dense(damping=DAMPING),
    "cnn": ConjugateGradient(damping=DAMPING, tolerance=1e-4),
}


def project_of(problem: Problem) -> Project:
    """The problem as a project; its test rows, on which C is evaluated, are the validation split."""
    return Project(
        name=problem.name,
        model=problem.model,
        train=Split(problem.x, problem.y),
        validation=Split(problem.test_x, problem.test_y),
        weight_decay=problem.weight_decay,
    )


def psi(project: Project, curvature: Curvature = CURVATURE) -> Tensor:
    """psi (n,) of the mean test cross-entropy."""
    return torch.as_tensor(value(project, curvature=curvature, device="cpu").scores)


def cold(problem: Problem) -> Callable[[], Tensor]:
    """From model and tensors to scores."""
    return lambda: psi(project_of(problem))


def cached(problem: Problem) -> Callable[[], Tensor]:
    """A second criterion on a project that has answered for one (Brier)."""
    project = project_of(problem)
    value(project, criterion="brier", curvature=CURVATURE, device="cpu")
    return lambda: psi(project)


def all_rows(problem: Problem) -> Callable[[], Tensor]:
    """The reference for speed: plain conjugate gradients on all rows, to a residual of 1e-4."""
    plain = ConjugateGradient(damping=DAMPING, tolerance=1e-4, preconditioner=0)
    return lambda: psi(project_of(problem), plain)


def self_influence(problem: Problem) -> Callable[[], Tensor]:
    """Of all training rows, on a project that knows its factor."""
    project = project_of(problem)
    options = {"method": "self_influence", "curvature": CURVATURE, "device": "cpu"}
    return lambda: torch.as_tensor(value(project, **options).scores)


METHODS = {
    "PUMA Dash psi, cold": cold,
    "PUMA Dash psi, second criterion": cached,
    "PUMA Dash psi, plain CG to 1e-4": all_rows,
    "PUMA Dash self-influence": self_influence,
}

if __name__ == "__main__":
    main(METHODS)
