"""The same questions put to PUMA Dash, in a process like that of a peer; called as a peer is (``peer``)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import puma_dash as puma
from benchmarks.measure import main
from benchmarks.problems import DAMPING, Problem

CURVATURE = puma.ConjugateGradient(damping=DAMPING)
TRUTH = {
    "digits": puma.Dense(damping=DAMPING),
    "cnn": puma.ConjugateGradient(damping=DAMPING, tolerance=1e-4),
}


def project_of(problem: Problem) -> puma.Project:
    """The problem as a project; its test rows, on which C is evaluated, are the validation split."""
    return puma.Project(
        name=problem.name,
        model=problem.model,
        train=puma.Split(problem.x, problem.y),
        validation=puma.Split(problem.test_x, problem.test_y),
        weight_decay=problem.weight_decay,
    )


def psi(project: puma.Project, curvature: puma.Curvature = CURVATURE) -> Tensor:
    """psi (n,) of the mean test cross-entropy."""
    return torch.as_tensor(puma.value(project, curvature=curvature, device="cpu").scores)


def cold(problem: Problem) -> Callable[[], Tensor]:
    """From model and tensors to scores."""
    return lambda: psi(project_of(problem))


def cached(problem: Problem) -> Callable[[], Tensor]:
    """A second criterion on a project that has answered for one (Brier)."""
    project = project_of(problem)
    puma.value(project, criterion="brier", curvature=CURVATURE, device="cpu")
    return lambda: psi(project)


METHODS = {"PUMA Dash psi, cold": cold, "PUMA Dash psi, second criterion": cached}

if __name__ == "__main__":
    main(METHODS)
