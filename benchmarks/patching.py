"""Patch against retraining, on test: seconds, accuracy, NLL and ECE, over seeds."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import puma_dash as puma

SEEDS = range(10)
WAYS = {
    "one step": {},
    "three steps": {"steps": 3},
    "eight steps": {"steps": 8},
    "retrained": {"method": "retrain"},
}


def measure():
    """Title and table."""
    rows = []
    for demo, k in (("digits", 100), ("two-moons", 80)):
        found: dict[str, list] = {}
        for seed in SEEDS:
            project = puma.DEMOS[demo](seed=seed)()
            valuation = puma.value(project)
            auc = roc_auc_score(project.train.meta["flipped"], -valuation.scores)
            for way, settings in WAYS.items():
                plan = puma.PatchPlan(remove=tuple(valuation.harmful(k).tolist()), **settings)
                start = time.perf_counter()
                patched = puma.patch(project, plan)
                took = time.perf_counter() - start
                table = puma.compare(project, patched, "test").metrics
                found.setdefault("before", []).append(
                    (auc, 0.0, *table["before"][["accuracy", "nll", "ece"]])
                )
                found.setdefault(way, []).append((auc, took, *table["after"][["accuracy", "nll", "ece"]]))
        for way, values in found.items():
            mean, error = np.mean(values, 0), 1.96 * np.std(values, 0, ddof=1) / len(SEEDS) ** 0.5
            rows.append(
                {
                    "demo": f"{demo}, {k} lowest psi removed",
                    "way": way,
                    "AUC of psi": f"{mean[0]:.3f}",
                    "seconds": "" if way == "before" else f"{np.median(values, 0)[1]:.2f}",
                    "accuracy": f"{mean[2]:.4f} ± {error[2]:.4f}",
                    "NLL": f"{mean[3]:.4f} ± {error[3]:.4f}",
                    "ECE": f"{mean[4]:.4f} ± {error[4]:.4f}",
                }
            )
    yield (
        f"Patch against retraining on test, mean ± 95 % interval over {len(SEEDS)} seeds",
        pd.DataFrame(rows),
    )
