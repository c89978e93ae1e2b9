"""How psi and a one-step patch grow: with the number of rows, and with the number of parameters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

import puma_dash as puma
from benchmarks.problems import DAMPING, DATA, descend, flip, mnist, network

ROWS = (1_000, 4_000, 16_000, 60_000)
WIDTHS = (16, 64, 256, 1_024)
CURVATURE = puma.ConjugateGradient(damping=DAMPING, fidelity=0.99)


def measure() -> Iterator[tuple[str, pd.DataFrame]]:
    """Two tables, on real MNIST."""
    if not os.environ.get(DATA):
        print(f"\ngrowth: needs MNIST in the folder that {DATA} names; left out")
        return
    by_rows = [line(f"{n:,}", n, network()) for n in ROWS]
    yield (
        "Growth with the rows: MNIST, network of 56 970 parameters, fidelity .99",
        pd.DataFrame(by_rows).rename(columns={"size": "rows"}),
    )
    by_width = []
    for width in WIDTHS:
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        by_width.append(line(f"{sum(p.numel() for p in model.parameters()):,}", 4_000, model))
    yield (
        "Growth with the parameters: 4 000 MNIST images, one hidden layer, fidelity .99",
        pd.DataFrame(by_width).rename(columns={"size": "parameters"}),
    )


def line(size: str, n: int, model: nn.Module) -> dict[str, str]:
    """Seconds of psi, of a second criterion and of a patch, after three epochs on ``n`` rows."""
    _, x, y, test_x, test_y = mnist(n, 2_000)
    y, flipped = flip(y)
    torch.manual_seed(0)
    batches = iter([rows for _ in range(3) for rows in torch.randperm(n).split(100)])

    def objective() -> torch.Tensor:
        rows = next(batches)
        return nn.functional.cross_entropy(model(x[rows]), y[rows])

    descend(torch.optim.SGD(model.parameters(), lr=0.05), objective, 3 * n // 100)
    project = puma.Project(
        name=size, model=model, train=puma.Split(x, y), validation=puma.Split(test_x, test_y)
    )
    plan = puma.PatchPlan(remove=tuple(np.flatnonzero(flipped.numpy()).tolist()))
    options = {"curvature": CURVATURE, "device": "cpu"}
    first, valuation = timed(lambda: puma.value(project, **options))
    second, _ = timed(lambda: puma.value(project, criterion="brier", **options))
    puma.patch(project, puma.PatchPlan(remove=(0,)), **options)
    patched, _ = timed(lambda: puma.patch(project, plan, **options))
    facts = valuation.diagnostics
    return {
        "size": size,
        "psi, s": f"{first:.2f}",
        "second criterion, s": f"{second:.2f}",
        "one-step patch, s": f"{patched:.2f}",
        "curvature rows": f"{facts['rows']:,}",
        "products": str(facts["iterations"]),
        "fidelity": f"{facts['fidelity']:.3f}",
    }


def timed(call: Callable[[], puma.Valuation]) -> tuple[float, puma.Valuation]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found
