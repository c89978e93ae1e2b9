"""A patch against the retraining it replaces: real MNIST, the wrong labels removed, judged on test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import puma_dash as puma
from benchmarks.problems import DATA, flip, mnist, network
from puma_dash.core.evaluation.metrics import metrics

SIZES = (20_000, 60_000)
EPOCHS = 20
WEIGHT_DECAY = 5e-4
WAYS = {
    "first patch: damping, factor, one step": {},
    "one step": {},
    "three steps": {"steps": 3},
    "five steps": {"steps": 5},
    "retrained": {"method": "retrain"},
}


def train(model: nn.Module, split: puma.Split, weights: Tensor, weight_decay: float, seed: int) -> nn.Module:
    """``model`` after ``EPOCHS`` of SGD with momentum; rows of weight 0 are not drawn."""
    x, y, weights = split.inputs, split.targets, weights.float()
    used = weights.nonzero().ravel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=weight_decay)
    batches = -(-len(used) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    generator = torch.Generator().manual_seed(seed)
    share = len(used) / len(y)  # the mean keeps the factor 1/n
    for _ in range(EPOCHS):
        for rows in used[torch.randperm(len(used), generator=generator)].tensor_split(batches):
            losses = weights[rows] * cross_entropy(model(x[rows]), y[rows], reduction="none")
            optimizer.zero_grad()
            (share * losses.mean()).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def measure() -> Iterator[tuple[str, pd.DataFrame]]:
    """A title and a table for each size."""
    if not os.environ.get(DATA):
        print(f"\nretraining: needs MNIST in the folder that {DATA} names; left out")
        return
    for n in SIZES:
        yield (
            f"{n:,} MNIST images, {n // 10:,} wrong labels removed, network of 56 970 parameters, "
            f"{EPOCHS} epochs",
            table(n),
        )


def table(n: int) -> pd.DataFrame:
    """Seconds and test metrics of every way."""
    _, x, y, test_x, test_y = mnist(n, 10_000)
    noisy, flipped = flip(y)
    torch.manual_seed(0)
    everything = puma.Split(x, noisy)
    model = train(network(), everything, torch.ones(n), WEIGHT_DECAY, 0)
    project = puma.Project(
        name=f"MNIST {n}",
        model=model,
        train=everything,
        validation=puma.Split(test_x[:2_000], test_y[:2_000]),
        weight_decay=WEIGHT_DECAY,
        trainer=train,
    )
    plan = puma.PatchPlan(remove=tuple(np.flatnonzero(flipped.numpy()).tolist()))
    test = test_x[2_000:], test_y[2_000:]
    found = {"before": (0.0, judged(model, *test))}
    for way, settings in WAYS.items():
        start = time.perf_counter()
        patched = puma.patch(project, replace(plan, **settings), device="cpu", seed=1)
        found[way] = time.perf_counter() - start, judged(patched.model, *test)
    seconds, best = found["retrained"]
    gain = found["before"][1]["nll"] - best["nll"]
    return pd.DataFrame(
        {
            "way": way,
            "seconds": f"{took:.2f}" if took else "",
            "of retraining": f"{took / seconds:.3f}" if took else "",
            "accuracy": f"{reached['accuracy']:.4f}",
            "NLL": f"{reached['nll']:.4f}",
            "ECE": f"{reached['ece']:.4f}",
            "of its gain in NLL": f"{(found['before'][1]['nll'] - reached['nll']) / gain:.2f}",
        }
        for way, (took, reached) in found.items()
    )


@torch.no_grad()
def judged(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Metrics of ``model`` on rows that nothing was chosen by."""
    return metrics(model(x).softmax(1).numpy(), y.numpy())
