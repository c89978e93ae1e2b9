"""Where the answers of influence and of retraining part: five terms that add up to the gap.

From retraining without the removed rows to the influence step, one thing changes at a time (the training
weight of row i is a_i, and w_i = 0 where it is removed, else a_i):

    retrained     the project's own trainer, from scratch
    warm start    argmin J_w = (1/n) sum_i w_i l_i + (wd/2) |theta|^2, sought from theta_org
    proximal      argmin J_w + (damping/2) |theta - theta_org|^2
    Bregman       argmin (1/n) sum_i a_i D(z_i(theta_org), z_i(theta)) - (1/n) sum_removed a_j l_j
                         + ((wd + damping)/2) |theta - theta_org|^2, of which theta_org is a minimum without
                  the removal, trained to the end or not (the proximal Bregman response function)
    linearised    theta_org + (1/n) B^-1 sum_removed a_j grad l_j, solved tightly
    influence     the same, solved by the curvature in use

B is made of the matrix that the curvature in use stands for. The Gauss-Newton matrix is the Hessian of the
Bregman objective at theta_org. Where the exact Hessian of J is in use, what the two differ by moves the
straight step, and so belongs to linearisation. Rows drawn, layers taken one by one (K-FAC) and systems not
solved to the end belong to the solver.

References:
    Bae, Ng, Lo, Ghassemi & Grosse (2022), If influence functions are the answer, then what is the question?
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.curvature import ConjugateGradient, Curvature, inverse_of, settled
from puma_dash.core.engine import DOUBLE_LIMIT, Engine, engine_of
from puma_dash.core.plan import PatchPlan
from puma_dash.core.types import Project, ProjectError, Selection, row_array
from puma_dash.core.unlearning import Retrain
from puma_dash.core.unlearning.base import check_plan_for, chosen_change, direction_of, training_weights

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.engine import CancelEvent, Progress

LARGEST_MODEL, MOST_ROWS = DOUBLE_LIMIT, 5_000
ITERATIONS = 2_000
FLAT = 1e-9
"""Minimising ends where the gradient's largest entry is this share of what it was at theta_org."""
UNFINISHED = 1e-3
"""With more than this share left, the answer is named unfinished."""
TIGHT = ConjugateGradient(tolerance=1e-10, max_iterations=10_000)

STAGES = ("retrained", "warm start", "proximal", "Bregman", "linearised", "influence")
TERMS = {
    "warm start": "going on from the trained model, where retraining starts from scratch",
    "proximity": "damping, which holds the parameters near those of the trained model",
    "non-convergence": "taking the trained model for a minimum of its objective",
    "linearisation": "one straight step, by the {matrix}, in place of the minimum it aims at",
    "solver": "computing that step approximately",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Decomposition:
    """Why influence and retraining differ about a removal.

    ``retrained`` and ``influence`` are the changes of the criterion from theta_org that the two find;
    ``predicted`` is the first-order forecast of the latter, (1/n) sum_removed psi_j. ``terms`` has a row per
    term: its ``change`` of the criterion (they add up to influence - retrained), its ``outputs`` (the mean
    squared change of the probabilities, or of a regression's outputs, on the criterion's rows) and its
    ``meaning``. ``stages`` has a row per answer between the two: its ``change`` of the criterion, its
    ``distance`` |theta - theta_org|, and the share of the gradient (or of the right-hand side) ``left``.
    ``diagnostics["unfinished"]`` names answers that did not reach their minimum.
    """

    criterion: str
    retrained: float
    influence: float
    predicted: float
    terms: pd.DataFrame
    stages: pd.DataFrame
    fingerprint: str
    diagnostics: dict[str, Any]


def decompose(
    project: Project,
    rows: Iterable[int] | Selection | np.ndarray,
    *,
    criterion: str | Criterion | None = None,
    curvature: str | Curvature = "auto",
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Decomposition:
    """What the gap between influence and retraining consists of, when ``rows`` are removed together.

    Args:
        project: a small model and its data.
        rows: training rows.
        criterion: a key of ``CRITERIA`` or an instance; lower is better. None is "cross_entropy", and for a
            regression "squared_error".
        curvature: a key of ``CURVATURES`` or an instance, whose influence is judged.
        seed: of retraining from scratch.
        device: None stands for the CPU, where small models are computed in float64.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Raises:
        ProjectError: the rows do not fit the project, or the model is too large to train four times over.
    """
    import pandas as pd

    plan = PatchPlan(remove=tuple(row_array(rows).tolist()))
    check_plan_for(project, plan)
    target = resolve_criterion(criterion or project.task.criterion)
    engine = engine_of(project, device or "cpu", progress, cancel)
    _check_size(engine)
    start = time.perf_counter()
    data, train = target.evaluation(engine), engine.split("train")
    change = chosen_change(engine, plan)
    chosen, inverse = settled(engine, curvature), inverse_of(engine, curvature)
    damping, wd = inverse.facts["damping"], engine.weight_decay
    before, gradient = engine.criterion_gradient(target)
    a = engine.theta.new_ones(engine.n) if train.weights is None else train.weights
    w = torch.as_tensor(training_weights(engine, change)).to(a)
    reference = engine.outputs("train")

    def reweighted(z: Tensor) -> Tensor:
        return w @ engine.loss(z, train.targets) / engine.n

    def bregman(z: Tensor) -> Tensor:
        held = a @ engine.loss.divergence(reference, z, train.targets)
        return (held - (a - w) @ engine.loss(z, train.targets)) / engine.n

    retraining = Retrain()(engine, plan, curvature, seed)
    fresh = Engine(project.with_model(retraining.model), device=engine.device)
    found: list[tuple[Tensor, float]] = [
        (fresh.theta, np.nan),
        minimise(engine, reweighted, wd, 0.0, "Warm start"),
        minimise(engine, reweighted, wd, damping, "Proximal warm start"),
        minimise(engine, bregman, 0.0, wd + damping, "Bregman objective"),
    ]
    tight = dataclasses.replace(TIGHT, damping=damping, matrix=getattr(chosen, "matrix", "ggn"))
    for solver in (tight(engine), inverse):
        delta, _, residual, facts = direction_of(engine, change, solver)
        found.append((engine.theta + delta, residual))
    rows_of_stages, answers = [], []
    for judge, (theta, left) in zip((fresh, *[engine] * 5), found, strict=True):
        distance = float((theta - engine.theta).norm())
        rows_of_stages.append((judge.criterion(target, theta, data=data) - before, distance, left))
        answers.append(engine.loss.answers(judge.outputs(data, theta)))  # logits may be shifted
    stages = pd.DataFrame(rows_of_stages, index=list(STAGES), columns=["change", "distance", "left"])
    terms = pd.DataFrame(
        {
            "change": np.diff(stages["change"]),
            "outputs": [float((new - old).square().mean()) for old, new in pairwise(answers)],
            "meaning": [meaning.format(**facts) for meaning in TERMS.values()],
        },
        index=list(TERMS),
    )
    return Decomposition(
        criterion=target.name,
        retrained=float(stages["change"].iloc[0]),
        influence=float(stages["change"].iloc[-1]),
        predicted=float(gradient @ delta),
        terms=terms,
        stages=stages,
        fingerprint=project.fingerprint,
        diagnostics={
            **facts,
            "retraining": retraining.diagnostics,
            "unfinished": [name for name in STAGES[1:4] if stages["left"][name] > UNFINISHED],
            "seconds": time.perf_counter() - start,
        },
    )


def minimise(
    engine: Engine, of: Callable[[Tensor], Tensor], decay: float, proximity: float, message: str
) -> tuple[Tensor, float]:
    """theta (p,) where Q is least, by L-BFGS from theta_org, and the share of the gradient left there.

    Q = of(outputs of all training rows) + (decay/2) |theta|^2 + (proximity/2) |theta - theta_org|^2.

    Raises:
        ProjectError: Q has no minimum that could be found.
    """
    from scipy.optimize import minimize

    train, org, calls = engine.split("train"), engine.theta, 0

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        engine.tick(min(calls, ITERATIONS), ITERATIONS, message)
        calls += 1
        theta = torch.as_tensor(x).to(org)
        outputs = engine.outputs(train, theta).requires_grad_()
        value = of(outputs)
        (cotangents,) = torch.autograd.grad(value, outputs)
        move = theta - org
        gradient = engine.pullback(train, cotangents, theta) + decay * theta + proximity * move
        total = float(value.detach() + decay / 2 * theta @ theta + proximity / 2 * move @ move)
        return total, gradient.double().numpy(force=True)

    x = org.double().numpy(force=True)
    steepest = np.abs(value_and_gradient(x)[1]).max()
    if steepest == 0:
        return org, 0.0
    options = {
        "maxiter": ITERATIONS,
        "maxfun": 2 * ITERATIONS,
        "maxcor": 20,
        "ftol": 0.0,
        "gtol": FLAT * steepest,
    }
    found = minimize(value_and_gradient, x, jac=True, method="L-BFGS-B", options=options)
    if not (np.isfinite(found.fun) and np.isfinite(found.x).all()):
        raise ProjectError(
            f"expected the objective named {message!r} to have a minimum, but none was found; "
            "try removing fewer rows, or a larger damping."
        )
    return torch.as_tensor(found.x).to(org), float(np.abs(found.jac).max() / steepest)


def _check_size(engine: Engine) -> None:
    p, n = len(engine.theta), engine.n
    if p > LARGEST_MODEL or n > MOST_ROWS:
        raise ProjectError(
            f"expected at most {LARGEST_MODEL:,} parameters and {MOST_ROWS:,} training rows, since the model "
            f"is trained four times over, but got {p:,} and {n:,}; try a smaller model of the same kind."
        )
