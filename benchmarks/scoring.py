"""psi of our own curvatures against the dense truth, and what the scoring pass costs in forward passes."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from scipy.stats import spearmanr

import puma_dash as puma
from benchmarks import ours, problems
from benchmarks.clock import seconds
from benchmarks.problems import DAMPING
from puma_dash.core.curvature.influence import scores
from puma_dash.core.engine import Engine, engine_of

CURVATURES = {
    "dense Cholesky": puma.Dense(damping=DAMPING),
    "conjugate gradient, fidelity .99": puma.ConjugateGradient(damping=DAMPING, fidelity=0.99),
    "conjugate gradient, fidelity .999": puma.ConjugateGradient(damping=DAMPING, fidelity=0.999),
    "conjugate gradient to 1e-6": puma.ConjugateGradient(damping=DAMPING, tolerance=1e-6),
    "the same without preconditioner": puma.ConjugateGradient(
        damping=DAMPING, tolerance=1e-6, preconditioner=0
    ),
    "K-FAC": puma.KFAC(damping=DAMPING),
    "EK-FAC": puma.EKFAC(damping=DAMPING),
    "LiSSA": puma.LiSSA(damping=DAMPING),
}
AT_ONCE = (1, 2, 6)


def measure() -> Iterator[tuple[str, pd.DataFrame]]:
    """Two tables."""
    yield "psi of all 1 000 rows of the digits demo, 2 410 parameters, float64, from cold", by_curvature()
    yield (
        "The scoring pass over all training rows, in bare forward passes per criterion",
        pd.DataFrame([passes(make()) for make in problems.PROBLEMS.values()]),
    )


def by_curvature() -> pd.DataFrame:
    """Seconds and fidelity of each curvature."""
    project = puma.load("digits")
    engine = engine_of(project, "cpu")
    bare = seconds(lambda: engine.outputs("train"))
    truth = puma.value(project, curvature=CURVATURES["dense Cholesky"], device="cpu").scores
    rows = []
    for name, curvature in CURVATURES.items():

        def cold(curvature=curvature):
            engine.memo.clear()
            return puma.value(project, curvature=curvature, device="cpu")

        found = cold()
        took = seconds(cold, 1 if name in ("dense Cholesky", "LiSSA") else 5)
        rows.append(
            {
                "psi by": name,
                "seconds": f"{took:.3f}",
                "bare forward passes": f"{took / bare:.0f}",
                "Spearman to dense": f"{spearmanr(found.scores, truth).statistic:.4f}",
                "slope": f"{found.scores @ truth / (truth @ truth):.3f}",
                "largest error / spread": f"{abs(found.scores - truth).max() / truth.std():.4f}",
                "products": found.diagnostics["iterations"],
            }
        )
    return pd.DataFrame(rows)


def passes(problem: problems.Problem) -> dict[str, str]:
    """What each of 1, 2 and 6 criteria costs."""
    engine = Engine(ours.project_of(problem), device="cpu")
    bare = seconds(lambda: engine.outputs("train"))
    found = {"problem": problem.title, "bare pass, s": f"{bare:.4f}"}
    for k in AT_ONCE:
        directions = torch.randn(k, len(engine.theta)).to(engine.theta)
        took = seconds(lambda directions=directions: scores(engine, directions))
        found[f"{k} at once"] = f"{took / bare / k:.2f}"
    return found
