"""Every way to unlearn, on the demos digits and MNIST: their flipped rows go, and how near is retraining?

All start from the same model, whose training was recorded, and from an ensemble for SISA trained ahead.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import puma_dash as puma
from benchmarks.seeds import CLOCK, ROWS, demo, in_words, kept, told
from puma_dash.core.experiments.base import mean_of, summary

REFERENCES = {"digits": 8, "mnist": 4}
"""Retrained models of each kind: on MNIST each takes ten seconds and more."""
BEFORE, EXACT, FLOOR = "before", "retraining from scratch", "another retraining"
YARDSTICKS = (BEFORE, EXACT, FLOOR)


def ways(ascent: float) -> dict[str, dict[str, Any]]:
    """What is asked for, by name; steps of gradient ascent that are too large end in no finite model."""
    held = {"hold": ("cross_entropy",)}
    return {
        "PUMA, one step": held,
        "PUMA, three steps": {**held, "steps": 3},
        "PUMA, eight steps": {**held, "steps": 8},
        "naive influence removal": {"method": "influence"},
        "fine-tuning, 5 epochs": {"method": "fine_tune"},
        "SISA, 5 shards of 3 slices": {"method": "sisa"},
        "Amnesiac ML": {"method": "amnesiac"},
        "unrolled SGD": {"method": "unrolled_sgd"},
        f"gradient ascent, 10 steps of {ascent:g}": {
            "method": puma.UNLEARNERS["gradient_ascent"](learning_rate=ascent)
        },
        EXACT: {"method": "retrain"},
    }


WAYS = {"digits": ways(0.05), "mnist": ways(0.01)}
SEEDS = {"digits": range(10), "mnist": range(3)}
DIGITS = {
    "CPU seconds": 2,
    "test accuracy": 4,
    "loss on removed rows": 2,
    "parameters apart": 2,
    "validation predictions apart": 4,
    "predictions on the rows apart": 4,
    "membership AUC": 3,
    "membership shift": 2,
}
"""The columns, and how many places they are told to."""
READ = (
    "Predictions apart: mean total variation to those of retraining; parameters apart: |theta - theta of "
    "retraining|, which says little where retrainings are as far from each other. Both are means over the "
    "references, models retrained without the rows; the last line is one of these against the others, the "
    "nearest that seeds allow. Membership: how well the removed rows' scores are told from those of "
    "retraining (AUC .5, shift 0: not at all). The flipped rows lie in every shard and every batch, so that "
    "SISA retrains its whole ensemble, trained ahead, and Amnesiac ML takes all of training back. Seconds of "
    "PUMA and of naive removal include calibrating the damping."
)


def measure() -> Iterator[tuple]:
    """Title, table and sentences of each demo; of MNIST where it is at hand."""
    puma.patch(puma.load("two-moons"), puma.PatchPlan(remove=(0,)))  # what is imported on first use
    for key, seeds in SEEDS.items():
        try:
            found = [line for seed in seeds for line in of_seed(key, seed)]
        except puma.ProjectError as missing:
            print(f"unlearning on {key}: left out, {missing}")
            continue
        means = summary(found, ["way"])
        yield (
            f"{ROWS[key] // 10:,} flipped rows of {ROWS[key]:,} removed: {key}, mean ± 95 % "
            f"t-interval over {len(seeds)} seeds, {REFERENCES[key]} references each",
            told(means, DIGITS),
            verdict(means),
            f"{READ} {CLOCK}",
        )


def of_seed(key: str, seed: int) -> list[dict[str, Any]]:
    """A line for each way and each yardstick, on one draw of the demo."""

    @cache  # made where something is left to measure
    def project() -> puma.Project:
        plain = demo(key, seed)
        return dataclasses.replace(plain, records=puma.train_shards(plain, seed=seed))

    def measured(name: str) -> list[dict[str, Any]]:
        return kept(f"unlearning {key} {name} {seed}", lambda: lines(project(), name, key))

    found = [line for name in WAYS[key] for line in measured(name)]
    order = [BEFORE, *WAYS[key], FLOOR]
    return sorted(found, key=lambda line: order.index(line["way"]))


def lines(project: puma.Project, name: str, key: str) -> list[dict[str, Any]]:
    """What one way does; from retraining also its two yardsticks, which do nothing."""
    rows = tuple(np.flatnonzero(project.train.meta["flipped"]).tolist())
    plan, fresh = puma.PatchPlan(remove=rows, **WAYS[key][name]), dataclasses.replace(project)
    assert fresh.fingerprint == project.fingerprint  # and is known before the clock starts
    begin = time.process_time()
    patch = puma.patch(fresh, plan, device="cpu")
    seconds = time.process_time() - begin
    evidence = puma.removal_evidence(project, patch, REFERENCES[key], jobs=1, device="cpu")

    def told_of(way: str, at: str, model: nn.Module | None, **more: float) -> dict[str, Any]:
        apart, membership = evidence.distances.loc[at], evidence.membership.loc[at]
        if model is not None:
            more["test accuracy"] = accuracy(model, project.test)
            more["loss on removed rows"] = loss(project, model, rows)
        return {
            "way": way,
            **more,
            "parameters apart": apart["parameters"],
            "validation predictions apart": apart["predictions on validation"],
            "predictions on the rows apart": apart["predictions on the rows"],
            "membership AUC": membership["auc"],
            "membership shift": membership["shift"],
        }

    found = [told_of(name, "after", patch.model, **{"CPU seconds": seconds})]
    if name == EXACT:
        found += [told_of(BEFORE, BEFORE, project.model), told_of(FLOOR, FLOOR, None)]
    return found


@torch.no_grad()
def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """(n, c), a few thousand rows at a time."""
    return torch.cat([model(part) for part in inputs.split(2_000)])


def accuracy(model: nn.Module, split: puma.Split) -> float:
    """The share of rows that ``model`` reads rightly."""
    return float((outputs(model, split.inputs).argmax(1) == split.targets).double().mean())


def loss(project: puma.Project, model: nn.Module, rows: tuple[int, ...]) -> float:
    """Mean loss of ``model`` on training rows, with the labels they have."""
    chosen = project.train.take(np.array(rows))
    return float(project.loss(outputs(model, chosen.inputs), chosen.targets).mean())


def verdict(means: pd.DataFrame) -> str:
    """Where PUMA is best among the ways but retraining, and where not, from the numbers."""
    ways = [way for way in means["way"] if way not in YARDSTICKS]
    targets = {"loss on removed rows": mean_of(means, {"way": EXACT}, "loss on removed rows")}
    targets |= {"membership AUC": 0.5, "membership shift": 0.0, "test accuracy": 1.0}
    won, lost = [], []
    for name, places in DIGITS.items():
        off = {way: abs(mean_of(means, {"way": way}, name) - targets.get(name, 0.0)) for way in ways}
        ranked = sorted((way for way in ways if not np.isnan(off[way])), key=lambda way: off[way])
        best, ours = ranked[0], next(way for way in ranked if way.startswith("PUMA"))
        shown = [
            f"{way} {in_words(*(mean_of(means, {'way': way}, of) for of in (name, f'{name} ±')), places)}"
            for way in dict.fromkeys([ours, best])
        ]
        (won if best == ours else lost).append(f"{name} ({' against '.join(shown)})")
    return (
        f"Of all ways but retraining from scratch, PUMA is best in {'; '.join(won) or 'nothing'}. "
        f"It is not best in {'; '.join(lost) or 'nothing'}. Best for the loss on removed rows is nearest to "
        "retraining."
    )
