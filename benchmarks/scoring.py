"""psi on the digits network: conjugate gradients against the dense truth, in seconds and in rank."""

from __future__ import annotations

import pandas as pd
from scipy.stats import spearmanr

import puma_dash as puma
from benchmarks.clock import seconds
from puma_dash.core.engine import engine_of


def measure():
    """Title and table."""
    project = puma.load("digits")
    engine = engine_of(project, "cpu")
    criterion = puma.CrossEntropy()
    truth = puma.value(project, curvature=puma.Dense(damping=0.01)).scores
    bare = seconds(lambda: engine.outputs("train"))
    rows = []
    for name, curvature in {
        "dense Cholesky, cold": puma.Dense(damping=0.01),
        "conjugate gradient to 1e-1": puma.ConjugateGradient(damping=0.01, tolerance=1e-1),
        "conjugate gradient to 1e-2": puma.ConjugateGradient(damping=0.01, tolerance=1e-2),
        "conjugate gradient to 1e-3": puma.ConjugateGradient(damping=0.01, tolerance=1e-3),
        "conjugate gradient to 1e-6": puma.ConjugateGradient(damping=0.01, tolerance=1e-6),
    }.items():

        def cold(curvature=curvature):
            engine.memo.clear()
            return puma.VALUATIONS["psi"]()(engine, criterion, curvature)

        scores, facts = cold()
        took = seconds(cold, 1 if "dense" in name else 5)
        rows.append(
            {
                "psi by": name,
                "seconds": f"{took:.3f}",
                "bare forward passes": f"{took / bare:.0f}",
                "Spearman to dense": f"{spearmanr(scores.numpy(), truth).statistic:.4f}",
                "largest error / spread": f"{abs(scores.numpy() - truth).max() / truth.std():.4f}",
                "products": facts["iterations"],
            }
        )
    direction = engine.criterion_gradient(criterion)[1][None]
    took = seconds(lambda: engine.directional_scores(direction))
    rows.append(
        {
            "psi by": "(the scoring pass alone)",
            "seconds": f"{took:.4f}",
            "bare forward passes": f"{took / bare:.1f}",
            "Spearman to dense": "",
            "largest error / spread": "",
            "products": "",
        }
    )
    yield "psi of all 1 000 rows, digits network, 2 410 parameters, float64", pd.DataFrame(rows)
