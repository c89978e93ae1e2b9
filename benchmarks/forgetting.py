"""A style of 4 forgotten (MNIST), in several ways: how much of it is still read as 4, and what others pay.

The data, the training and the relabelling are those of figure 7 (``puma_dash.core.experiments.style``).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import puma_dash as puma
from benchmarks.problems import DATA
from puma_dash.core.experiments.style import (
    ALL_ROWS,
    NEW_LABEL,
    PARTS,
    ROWS,
    relabelling,
    rows_of,
    styled_splits,
    trained,
)

SEEDS = range(3)
SMALL = puma.ConjugateGradient(damping=1e-4, fidelity=0.9, rows=3_000)


def ways(project):
    """Name -> the plan and the curvature, by which the marked style is to go."""
    marked, others = (rows_of(project.train, part).tolist() for part in PARTS[:2])
    again = relabelling(marked, others)
    held = {name: getattr(again, name) for name in ("hold", "tolerance", "method")}
    forget = {"remove": marked, "intent": "forget", "strength": 3.0}
    return {
        "forget, strength 3, one straight step": (puma.PatchPlan(**forget), SMALL),
        "forget, strength 3, ten steps": (puma.PatchPlan(**forget, steps=10), SMALL),
        "the same, the others held": (puma.PatchPlan(**forget, **held, steps=10), SMALL),
        f"relabelled as {NEW_LABEL}, other 4s count 1.5 times, ten steps, the others held": (again, ALL_ROWS),
        "retrained without them": (puma.PatchPlan(remove=marked, method="retrain"), SMALL),
    }


def measure():
    """Title and table; nothing, with a line that says so, where MNIST is not at hand."""
    if not os.environ.get(DATA):
        print(f"forgetting: left out, since {DATA} names no folder with the files of MNIST in mnist/")
        return
    splits = styled_splits(Path(os.environ[DATA]) / "mnist")
    found: dict[str, list] = {}
    for seed in SEEDS:
        project = trained(splits, seed)
        found.setdefault("before", []).append((0.0, 0.0, *rates(project, project.model)))
        for way, (plan, curvature) in ways(project).items():
            start = time.perf_counter()
            patched = puma.patch(project, plan, curvature=curvature, seed=seed)
            took, applied = time.perf_counter() - start, patched.strength / plan.strength
            found.setdefault(way, []).append((took, applied, *rates(project, patched.model)))
    rows = []
    for way, values in found.items():
        took, applied, *right = np.transpose(values)
        lost = [100 * (np.transpose(found["before"])[k] - np.array(values)[:, k]) for k in (3, 4)]
        row = {"way": way, "marked still read as 4": percent(right[0])}
        row |= {part: percent(rate) for part, rate in zip(PARTS[1:], right[1:], strict=True)}
        row |= {
            f"points that {part} lose": f"{gone.mean():.2f} ± {gone.std(ddof=1):.2f}"
            for part, gone in zip(PARTS[1:], lost, strict=True)
        }
        patched = way != "before"
        row["strength applied / asked for"] = ", ".join(f"{part:g}" for part in applied) if patched else ""
        row["seconds"] = f"{np.median(took):.0f}" if patched else ""
        rows.append(row)
    counts = splits["train"].meta["style"].value_counts()
    yield (
        f"A style of 4, {counts[PARTS[0]]} of the {counts[PARTS[0]] + counts[PARTS[1]]} 4s among {ROWS:,} "
        "MNIST images, CNN of 56 970 parameters; share of test images read rightly in %, "
        f"mean ± standard deviation over {len(SEEDS)} trainings",
        pd.DataFrame(rows),
    )


def percent(rates):
    """Mean and standard deviation of ``rates``, in %."""
    return f"{100 * rates.mean():.1f} ± {100 * rates.std(ddof=1):.1f}"


@torch.no_grad()
def rates(project, model, split="test"):
    """The share of each of ``PARTS`` that ``model`` reads rightly."""
    data = project.split(split)
    read = torch.cat([model(rows) for rows in data.inputs.split(2_000)]).argmax(1)
    right = (read == data.targets).numpy()
    return [right[data.meta["style"] == part].mean() for part in PARTS]
