"""Two tables of scikit-learn as projects: a regression, and two classes with one logit and another loss."""

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.evaluation.trust import minimise


def split(x, y, rows, sex):
    frame = pd.DataFrame({"age": x[rows, 0]})
    return puma.Split(x[rows], y[rows], meta=frame, groups=pd.DataFrame({"sex": sex[rows]}))


def fitted(name, x, y, sex, cuts, loss, names, outputs=1):
    """A linear model at the minimum of its objective."""
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    parts = [split(x, y, rows, sex) for rows in np.split(np.arange(cuts[-1]), cuts[:-1])]
    torch.manual_seed(0)
    project = puma.Project(
        name=name,
        model=torch.nn.Linear(x.shape[1], outputs),
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        loss=loss,
        weight_decay=1e-2,
        class_names=names,
    )
    engine = Engine(project, device="cpu")
    targets = engine.split("train").targets
    theta, _ = minimise(engine, lambda z: engine.loss(z, targets).mean(), 1e-2, 0.0, "Training")
    return project.with_model(engine.model_at(theta))


def values(outputs=1):
    """Diabetes progression; fifteen training rows have a wrong target."""
    x, y = load_diabetes(return_X_y=True)
    sex = np.where(x[:, 1] > 0, "male", "female")
    y = y.astype(np.float32)
    y[:15] = 400 - y[:15]
    y = np.stack([y, y / 2 + x[:, 2]], 1)[:, :outputs].astype(np.float32)
    names = ("progression", "half of it")[:outputs]
    return fitted("Diabetes", x, y, sex, (200, 300, 442), "squared_error", names, outputs)


def two_values():
    """The same with a second output."""
    return values(2)


def one_logit():
    """Breast cancer; thirty training labels are wrong."""
    x, y = load_breast_cancer(return_X_y=True)
    y[:30] = 1 - y[:30]
    sex = np.resize(["a", "b", "b"], len(x))
    loss = puma.BinaryCrossEntropy(label_smoothing=0.05, class_weights=(1.5, 1.0))
    return fitted("Breast cancer", x[:, :6], y, sex, (250, 400, 569), loss, ("malignant", "benign"))
