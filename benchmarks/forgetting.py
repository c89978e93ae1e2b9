"""A style of 4 forgotten (MNIST): how much of it is still read as 4, and what the others pay, on test.

K-means on the pixels of the training 4s makes the styles; the one whose centre lies farthest from the others
is marked. Test images of 4 take the style of the nearest centre. Everything that can be set was chosen on
validation images.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from torch.nn.functional import cross_entropy

import puma_dash as puma
from benchmarks.problems import DATA, mnist, network

ROWS, VALIDATION, TEST = 12_000, 5_000, 10_000
STYLES = 5
SEEDS = range(3)
WEIGHT_DECAY = 5e-4
PARTS = ("the marked style", "other 4s", "other digits")
HELD = {
    puma.CrossEntropy(group=("style", PARTS[1])): 0.05,
    puma.CrossEntropy(group=("style", PARTS[2])): 0.02,
}
"""Criteria on validation, and by how much each may rise, in nats."""
NEW_LABEL = 6
SMALL = puma.ConjugateGradient(damping=1e-4, fidelity=0.9, rows=3_000)
ALL_ROWS = puma.ConjugateGradient(damping=0.01, tolerance=0.1)


def ways(project):
    """Name -> the plan's settings and the curvature, by which the marked style is to go."""
    style = project.train.meta["style"]
    marked, others = (np.flatnonzero(style == part).tolist() for part in PARTS[:2])
    forget = {"remove": marked, "intent": "forget", "strength": 3.0}
    held = {
        "hold": tuple(HELD),
        "tolerance": {criterion.name: most for criterion, most in HELD.items()},
        "method": puma.Puma(weight_max=0.0),  # rails only: what compensates is chosen below, by hand
    }
    relabel = {"relabel": dict.fromkeys(marked, NEW_LABEL), "upweight": dict.fromkeys(others, 0.5)}
    return {
        "forget, strength 3, one straight step": (forget, SMALL),
        "forget, strength 3, ten steps": (forget | {"steps": 10}, SMALL),
        "the same, the others held": (forget | held | {"steps": 10}, SMALL),
        f"relabelled as {NEW_LABEL}, other 4s count 1.5 times, ten steps, the others held": (
            relabel | held | {"steps": 10},
            ALL_ROWS,
        ),
        "retrained without them": ({"remove": marked, "method": "retrain"}, SMALL),
    }


def measure():
    """Title and table; nothing, with a line that says so, where MNIST is not at hand."""
    if not os.environ.get(DATA):
        print(f"forgetting: left out, since {DATA} names no folder with the files of MNIST in mnist/")
        return
    splits = styled_splits()
    found: dict[str, list] = {}
    for seed in SEEDS:
        project = trained_project(splits, seed)
        found.setdefault("before", []).append((0.0, 0.0, *rates(project, project.model)))
        for way, (settings, curvature) in ways(project).items():
            plan = puma.PatchPlan(**settings)
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


def styled_splits():
    """The three splits; column ``style`` of their meta says which of ``PARTS`` a row belongs to."""
    _, x, y, test_x, test_y = mnist(ROWS + VALIDATION, TEST)
    drawn = {
        "train": (x[:ROWS], y[:ROWS]),
        "validation": (x[ROWS:], y[ROWS:]),
        "test": (test_x, test_y),
    }
    means = KMeans(STYLES, n_init=10, random_state=0).fit(pixels_of_4s(*drawn["train"]))
    marked = cdist(means.cluster_centers_, means.cluster_centers_).sum(1).argmax()
    splits = {}
    for name, (images, labels) in drawn.items():
        style = np.full(len(labels), PARTS[2], dtype=object)
        in_style = means.predict(pixels_of_4s(images, labels)) == marked
        style[(labels == 4).numpy()] = np.where(in_style, PARTS[0], PARTS[1])
        splits[name] = puma.Split(images, labels, meta=pd.DataFrame({"style": style}))
    return splits


def pixels_of_4s(images, labels):
    """The 4s among ``images`` (n, 1, 28, 28) as rows (m, 784)."""
    return images[labels == 4].flatten(1).numpy()


def trained_project(splits, seed):
    """The project around a network trained on all rows."""
    everything = torch.ones(ROWS)
    model = train(None, splits["train"], everything, WEIGHT_DECAY, seed)
    return puma.Project(name="a style of 4", model=model, **splits, weight_decay=WEIGHT_DECAY, trainer=train)


def train(_model, split, weights, weight_decay, seed):
    """A new convolutional network after 12 epochs of SGD on the rows of weight 1; 1/n stays 1/n."""
    torch.manual_seed(seed)
    model = network()
    used, epochs, batch = weights.nonzero().ravel(), 12, 128
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(used) // batch))
    for _ in range(epochs):
        for rows in used[torch.randperm(len(used))].split(batch)[: len(used) // batch]:
            loss = cross_entropy(model(split.inputs[rows]), split.targets[rows])
            optimizer.zero_grad()
            (len(used) / len(weights) * loss).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def rates(project, model, split="test"):
    """The share of each of ``PARTS`` that ``model`` reads rightly."""
    data = project.split(split)
    read = torch.cat([model(rows) for rows in data.inputs.split(2_000)]).argmax(1)
    right = (read == data.targets).numpy()
    return [right[data.meta["style"] == part].mean() for part in PARTS]
