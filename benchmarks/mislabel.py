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
    puma.value(puma.load("two-moons"))  # what is imported on first use
    found = []
    for seed in SEEDS:
        found.append(of_seed(seed))
        print(f"mislabel: seed {seed} done", flush=True)
    yield (
        "Flipped labels found by the lowest scores: digits, 1 000 rows, 10 % flipped, clean validation; "
        f"mean ± 95 % interval over {len(found)} seeds",
        table(found),
    )


def of_seed(seed: int) -> list[list[float]]:
    """Seconds, AUC and shares found of each method, on one draw of rows, flips and model."""
    project, found = puma.DEMOS["digits"](seed=seed)(), []
    for method in METHODS.values():
        fresh = project.with_model(project.model)  # knows nothing yet
        chosen = puma.VALUATIONS["random"](seed=seed) if method == "random" else method
        begin = time.perf_counter()
        scores = puma.value(fresh, chosen, device="cpu").scores
        found.append([time.perf_counter() - begin, *hits(project, scores)])
    return found


def table(found: list[list[list[float]]]) -> pd.DataFrame:
    """A line per method, the best AUC first, of what ``of_seed`` found."""
    values = np.array(found)  # (seeds, methods, 4)
    middle, half = values.mean(0), 1.96 * values.std(0, ddof=1) / len(values) ** 0.5
    rows = []
    for k, name in enumerate(METHODS):
        told = [f"{m:.3f} ± {h:.3f}" for m, h in zip(middle[k, 1:], half[k, 1:], strict=True)]
        shares = {f"found in {share:.0%}": text for share, text in zip(INSPECTED, told[1:], strict=True)}
        seconds = f"{np.median(values[:, k, 0]):.2f}"
        rows.append({"method": name, "AUC": told[0]} | shares | {"seconds": seconds})
    return pd.DataFrame([rows[k] for k in np.argsort(-middle[:, 1], kind="stable")])


def hits(project: puma.Project, scores: np.ndarray) -> list[float]:
    """AUC of the flips among all rows, and the share of them among the lowest scores."""
    flipped = project.train.meta["flipped"].to_numpy()
    order = np.argsort(scores, kind="stable")
    shares = [flipped[order[: round(part * len(order))]].sum() / flipped.sum() for part in INSPECTED]
    return [roc_auc_score(flipped, -scores), *shares]
