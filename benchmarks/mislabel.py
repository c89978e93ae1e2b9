"""Which valuation finds flipped labels, of all there are: on the demos digits and MNIST, 10 % flipped.

A method that retrains is given few orders or rounds, which the table names; more of them bring more.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pandas as pd

import puma_dash as puma
from benchmarks.seeds import CLOCK, ROWS, demo, kept, told
from puma_dash.core.evaluation.flips import AT, known_flips, placed
from puma_dash.core.experiments.base import summary


class Way(NamedTuple):
    """How a line of the table is found."""

    method: Any
    criterion: Any = "cross_entropy"
    seeds: int | None = None
    """Fewer than the others get."""


CHEAP = {
    "random": Way("random"),
    "training loss": Way("loss"),
    "psi of the validation loss": Way("psi"),
    "influence functions, CG": Way(puma.Influence()),
    "influence functions, LiSSA": Way(puma.Influence(solver="lissa")),
    "gradient dot product": Way("gradient_dot"),
    "TracIn, 10 checkpoints": Way("tracin"),
    "TracIn, self-influence": Way(puma.VALUATIONS["tracin"](self_influence=True)),
    "self-influence": Way("self_influence"),
    "representer points": Way("representer"),
    "KNN-Shapley, 5 neighbours": Way("knn_shapley"),
    "KNN-Shapley, on the pixels": Way(puma.KnnShapley(space="inputs")),
    "confident learning, 5 folds": Way(puma.ConfidentLearning(jobs=1)),
    "DVRL, 1 000 rounds": Way(puma.DVRL()),
}
DIGITS = {
    **CHEAP,
    "Data Shapley, TMC, 20 orders, linear model": Way(puma.DataShapleyTMC(orders=20, jobs=1)),
    "Data Shapley, gradient, 20 orders": Way(puma.DataShapleyG(orders=20)),
}
MNIST = {
    **CHEAP,
    "Data Shapley, TMC, 5 orders, linear model": Way(puma.DataShapleyTMC(orders=5, jobs=1)),
    "Data Shapley, gradient, 5 orders at rate .01, 200 validation rows": Way(
        puma.DataShapleyG(orders=5, learning_rate=0.01), puma.CrossEntropy(rows=tuple(range(200))), 1
    ),
}
TABLES = {"digits": (DIGITS, range(10)), "mnist": (MNIST, range(3))}
LEFT_OUT = {
    "digits": "Leave-one-out needs 1 001 trainings, a quarter of an hour a seed, and is left out.",
    "mnist": "Leave-one-out needs 10 001 trainings, more than a day a seed, and is left out.",
}


def measure() -> Iterator[tuple]:
    """Title, table and sentences of each demo; of MNIST where it is at hand."""
    puma.value(puma.load("two-moons"))  # what is imported on first use
    for key, (ways, seeds) in TABLES.items():
        try:
            found = [line for seed in seeds for line in of_seed(key, seed, ways)]
        except puma.ProjectError as missing:
            print(f"mislabel on {key}: left out, {missing}")
            continue
        yield (
            f"Flipped labels found by the lowest scores: {key}, {ROWS[key]:,} rows, 10 % flipped, clean "
            "validation; mean ± 95 % t-interval over seeds",
            table(found),
            f"{LEFT_OUT[key]} {CLOCK}",
        )


def of_seed(key: str, seed: int, ways: dict[str, Way]) -> list[dict[str, Any]]:
    """A line for each way that this seed is for: AUC, shares found and seconds on one draw of the demo."""
    project = cache(lambda: demo(key, seed))  # made where something is left to measure
    return [
        kept(f"mislabel {key} {name} {seed}", lambda name=name, way=way: line(project(), name, way, seed))
        for name, way in ways.items()
        if way.seeds is None or seed < way.seeds
    ]


def line(project: puma.Project, name: str, way: Way, seed: int) -> dict[str, Any]:
    """What ``way`` finds in ``project``, which knows nothing yet."""
    method = puma.VALUATIONS["random"](seed=seed) if way.method == "random" else way.method
    fresh = dataclasses.replace(project)
    assert fresh.fingerprint == project.fingerprint  # and is known before the clock starts
    begin = time.process_time()
    scores = puma.value(fresh, method, way.criterion, device="cpu").scores
    seconds = time.process_time() - begin
    auc, *curve = placed(scores, known_flips(project, "flipped")).mean(0).tolist()
    found = {f"found in {part} %": curve[part] for part in AT}
    return {"method": name, "AUC": auc, **found, "CPU seconds": seconds}


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per method, the best AUC first."""
    means = summary(found, ["method"]).sort_values("AUC", ascending=False, kind="stable")
    shown = told(means, {"AUC": 3, "found in 10 %": 3, "found in 20 %": 3, "CPU seconds": 2})
    seeds = pd.DataFrame(found)["method"].value_counts()
    return shown.assign(seeds=shown["method"].map(seeds))
