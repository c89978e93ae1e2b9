"""Figure 5: flipped labels found against rows inspected, for every method of valuation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core import api
from puma_dash.core.demos.digits import Digits
from puma_dash.core.experiments.base import Experiment, Result, summary, told_value, verdict

if TYPE_CHECKING:
    from puma_dash.core.engine import CancelEvent, Progress

METHODS = (
    "psi influence self_influence tracin gradient_dot representer knn_shapley confident_learning loss random"
)
POINTS = 101
"""Fractions inspected at which curves are kept, from 0 to 1."""


def found_curve(scores: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """The fraction of flips (POINTS,) found among the rows of lowest score, at even fractions inspected."""
    hits = np.concatenate([[0], np.cumsum(flipped[np.argsort(scores, kind="stable")])])
    at = np.linspace(0, len(scores), POINTS)
    return np.interp(at, np.arange(len(hits)), hits) / flipped.sum()


@dataclass(frozen=True)
class Mislabels(Experiment):
    """Digits with 10 % flipped labels: rows in the order of each method, most suspicious first."""

    label = "Figure 5: flipped labels found"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figure 5"

    methods: str = field(default=METHODS, metadata={"help": "Keys of VALUATIONS, with blanks between."})

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """AUC, what is found at 10 % and 20 % inspected, seconds; the mean curve of each method."""
        from sklearn.metrics import roc_auc_score

        from puma_dash.core.valuation import VALUATIONS

        chosen = [key for key in self.methods.split() if key in VALUATIONS]
        found = []
        curves: dict[str, list[np.ndarray]] = {key: [] for key in chosen}
        for seed in self.over_seeds(progress, cancel):
            project = Digits(seed=seed)()
            assert project.train.meta is not None
            flipped = project.train.meta["flipped"].to_numpy()
            for key in chosen:
                start = time.perf_counter()
                scores = api.value(project, key, cancel=cancel).scores
                took = time.perf_counter() - start
                curve = found_curve(scores, flipped)
                curves[key].append(curve)
                line = {"method": VALUATIONS[key].label, "AUC": float(roc_auc_score(flipped, -scores))}
                line |= {f"found at {at} %": curve[at] for at in (10, 20)}
                found.append({**line, "seconds": took})
        table = summary(found, ["method"]).sort_values(
            "AUC", ascending=False, kind="stable", ignore_index=True
        )
        arrays = {key: np.stack(each) for key, each in curves.items()}
        labels = (VALUATIONS["psi"].label, table["method"][0])
        psi, best = (told_value(table, {"method": label}, "AUC") for label in labels)
        told = (
            f"psi of the validation loss has an AUC of {psi}; the best is {labels[1]} with {best}. "
            f"{verdict(labels[0] == labels[1])}, where PUMA's values find the most flips. psi says which "
            "rows move the chosen number, which is another question than which labels are wrong."
        )
        return Result({"Flipped labels, 10 % of 1 000 rows": table}, arrays, told)
