"""Which valuation finds flipped labels: the digits demo, 10 % of 1 000 training labels flipped, all methods.

A method that retrains is given few orders or rounds, which the table names; more of them bring more.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import puma_dash as puma

SEEDS = range(10)
INSPECTED = (0.1, 0.2)
METHODS = {
    "random": "random",
    "training loss": "loss",
    "psi of the validation loss": "psi",
    "influence functions, CG": puma.Influence(),
    "influence functions, LiSSA": puma.Influence(solver="lissa"),
    "gradient dot product": "gradient_dot",
    "self-influence": "self_influence",
    "representer points": "representer",
    "KNN-Shapley, 5 neighbours": "knn_shapley",
    "KNN-Shapley, on the pixels": puma.KnnShapley(space="inputs"),
    "confident learning, 5 folds": puma.ConfidentLearning(jobs=1),
    "Data Shapley, TMC, 20 orders, linear model": puma.DataShapleyTMC(orders=20, jobs=1),
    "Data Shapley, gradient, 20 orders": puma.DataShapleyG(orders=20),
    "DVRL, 1 000 rounds": puma.DVRL(),
}
"""Leave-one-out needs 1 001 trainings, about a quarter of an hour a seed, and is left out."""


def measure():
    """Title and table."""
    found: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    puma.value(puma.load("two-moons"))  # what is imported on first use
    for seed in SEEDS:
        project = puma.DEMOS["digits"](seed=seed)()
        for name, method in METHODS.items():
            fresh = project.with_model(project.model)  # knows nothing yet
            if method == "random":
                method = puma.VALUATIONS["random"](seed=seed)
            begin = time.perf_counter()
            scores = puma.value(fresh, method, device="cpu").scores
            found[name].append([time.perf_counter() - begin, *hits(project, scores)])
        print(f"mislabel: seed {seed} done", flush=True)
    rows = []
    for name, values in found.items():
        seconds, *quality = np.transpose(values)
        middle, half = np.mean(quality, 1), 1.96 * np.std(quality, 1, ddof=1) / len(SEEDS) ** 0.5
        told = [f"{m:.3f} ± {h:.3f}" for m, h in zip(middle, half, strict=True)]
        row = {"method": name, "AUC": told[0]}
        row |= {f"found in {share:.0%}": text for share, text in zip(INSPECTED, told[1:], strict=True)}
        rows.append((middle[0], row | {"seconds": f"{np.median(seconds):.2f}"}))
    table = pd.DataFrame([row for _, row in sorted(rows, key=lambda pair: -pair[0])])
    yield (
        "Flipped labels found by the lowest scores: digits, 1 000 rows, 10 % flipped, clean validation; "
        f"mean ± 95 % interval over {len(SEEDS)} seeds",
        table,
    )


def hits(project: puma.Project, scores: np.ndarray) -> list[float]:
    """AUC of the flips among all rows, and the share of them among the lowest scores."""
    flipped = project.train.meta["flipped"].to_numpy()
    order = np.argsort(scores, kind="stable")
    shares = [flipped[order[: round(part * len(order))]].sum() / flipped.sum() for part in INSPECTED]
    return [roc_auc_score(flipped, -scores), *shares]
