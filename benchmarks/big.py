"""Large projects, prepared for the pages in seconds: ``python -m benchmarks.big 1000000`` and serve it.

Each row is one of scikit-learn's 1 797 digits with noise of its own; one label in twenty is wrong. The model
is linear and fitted to a few thousand rows; everything the pages show (predictions, psi, map) is computed as
for any other project.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import puma_dash as puma

VALIDATION, FITTED = 1_000, 4_000
NOISE, WRONG, DECAY = 2.0, 0.05, 0.02
SCANNERS = ("north", "south", "mobile")


def __getattr__(name: str) -> Callable[[], puma.Project]:
    """``rows_N``: what makes the project of N training rows."""
    kind, _, count = name.partition("_")
    if kind != "rows" or not count.isdigit():
        raise AttributeError(name)
    return functools.partial(project, int(count))


def source(n: int) -> str:
    """What the server is started on to open the project of ``n`` rows."""
    return f"benchmarks.big:rows_{n}"


def project(n: int) -> puma.Project:
    """The project of ``n`` training rows, the same each time."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    splits = [
        split(np.random.default_rng(seed), images, labels, rows)
        for seed, rows in enumerate((n, VALIDATION, VALIDATION, FITTED))
    ]
    fitted = splits[3]
    regression = LogisticRegression(C=1 / (DECAY * FITTED), max_iter=500)
    regression.fit(fitted.inputs.flatten(1).numpy(), fitted.targets.numpy())
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():  # rounded: the same whatever the number of threads
        model[1].weight.copy_(torch.from_numpy(regression.coef_.round(3)))
        model[1].bias.copy_(torch.from_numpy(regression.intercept_.round(3)))
    return puma.Project(
        name=f"Noisy digits, {n:,} rows",
        model=model,
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        weight_decay=DECAY,
    )


def split(random: np.random.Generator, images: np.ndarray, labels: np.ndarray, n: int) -> puma.Split:
    """``n`` noisy digits, with where each was scanned and how bright it is."""
    drawn = np.arange(n) % len(images)
    inputs = images[drawn].astype(np.float32)
    inputs += NOISE / 16 * random.standard_normal(inputs.shape, np.float32)
    wrong = random.random(n) < WRONG
    targets = np.where(wrong, random.integers(0, 10, n), labels[drawn])
    scanner = pd.Categorical.from_codes(random.integers(0, len(SCANNERS), n), SCANNERS)
    meta = pd.DataFrame({"scanner": scanner, "brightness": inputs.mean(axis=1)})
    return puma.Split(inputs.reshape(n, 8, 8), targets, meta=meta)


def prepare(n: int) -> None:
    """Prepares the project of ``n`` rows in PUMA_DASH_HOME as the server would, unless it has been."""
    from puma_dash.workspace import tasks
    from puma_dash.workspace.index import Index
    from puma_dash.workspace.store import home

    if not Index.of(home(), source(n), None).embeddings:
        tasks.prepare({"source": source(n), "version": None}, lambda *_: None, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.big", description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="+")
    for rows in parser.parse_args().rows:
        prepare(rows)
        print(f"puma-dash serve {source(rows)}")
