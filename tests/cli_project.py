"""A project folder for the command line: a logistic regression at its minimum, found by scikit-learn.

Without an intercept but with a column of ones, so that every parameter is under the weight decay, as in J.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).parents[1]
N, WRONG, DECAY = 160, 12, 0.02
COLUMNS = ["age", "income", "debt", "one"]
TOML = f"""
name = "Loans"
loss = "binary_cross_entropy"
class_names = ["paid", "default"]
weight_decay = {DECAY}

[model]
weights = "model.safetensors"

[data]
train = "train.csv"
validation = "validation.csv"
test = "test.csv"
target = "outcome"
id = "customer"
groups = ["sex"]
columns = ["age", "income", "debt", "one"]
"""


def table(seed, n, wrong=0):
    """Rows whose label follows a line, the first ``wrong`` of them with the other label."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    right = (x @ [1.5, -1.0, 0.5] + 0.4 * rng.standard_normal(n) > 0.2).astype(int)
    right[:wrong] = 1 - right[:wrong]
    frame = pd.DataFrame(x, columns=COLUMNS[:3]).assign(one=1.0)
    names = [f"k{seed}-{i}" for i in rng.permutation(n)]
    sex = np.where(rng.random(n) < 0.4, "Female", "Male")
    return frame.assign(customer=names, sex=sex, outcome=np.array(["paid", "default"])[right])


def fitted(frame):
    """The coefficients (4,) at the minimum of the mean loss plus (wd / 2) |theta|^2 n_train / n."""
    model = LogisticRegression(C=1 / (N * DECAY), fit_intercept=False, tol=1e-10, max_iter=10_000)
    return model.fit(frame[COLUMNS], frame["outcome"] == "default").coef_[0]


def loans(path):
    """The folder, with its three tables."""
    tables = {"train": table(1, N, WRONG), "validation": table(2, 120), "test": table(3, 120)}
    for name, frame in tables.items():
        frame.to_csv(path / f"{name}.csv", index=False)
    save_file({"0.weight": fitted(tables["train"])[None]}, path / "model.safetensors")
    (path / "project.toml").write_text(TOML)
    return tables


def losses(theta, frame):
    """Cross-entropies (m,) of the rows of ``frame``, written out."""
    z, y = frame[COLUMNS].to_numpy() @ theta, (frame["outcome"] == "default").to_numpy()
    return np.logaddexp(0, z) - y * z


def psi(theta, train, held):
    """grad C^T B^-1 grad l_j (n,) of the mean cross-entropy on ``held``, densely."""

    def rows(frame):
        x, y = frame[COLUMNS].to_numpy(), (frame["outcome"] == "default").to_numpy()
        p = 1 / (1 + np.exp(-x @ theta))
        return x, p, (p - y)[:, None] * x

    x, p, gradients = rows(train)
    hessian = x.T @ (x * (p * (1 - p))[:, None]) / N + DECAY * np.eye(len(theta))
    return gradients @ np.linalg.solve(hessian, rows(held)[2].mean(0))
