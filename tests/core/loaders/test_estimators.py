"""scikit-learn's classifiers: the probabilities that scikit-learn gives."""

import numpy as np
import pytest
import skops.io
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import puma_dash as puma

from .makers import read

DATA = {"two classes": load_breast_cancer(return_X_y=True), "three classes": load_wine(return_X_y=True)}
ESTIMATORS = {
    "logistic": lambda: LogisticRegression(max_iter=50),
    "no intercept": lambda: LogisticRegression(fit_intercept=False, solver="newton-cg", max_iter=5),
    "perceptron": lambda: MLPClassifier((7, 5), max_iter=3, random_state=0),
    "by gradient descent": lambda: MLPClassifier(
        (7,), "tanh", solver="sgd", early_stopping=True, max_iter=3, random_state=0
    ),
    "logistic units": lambda: MLPClassifier((7,), "logistic", solver="lbfgs", max_iter=3, random_state=0),
    "linear units": lambda: MLPClassifier((7,), "identity", max_iter=3, random_state=0),
    "scaled": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "scaled in parts": lambda: make_pipeline(
        StandardScaler(with_mean=False),
        "passthrough",
        StandardScaler(with_std=False),
        MLPClassifier((4,), max_iter=3, random_state=0),
    ),
}


def probabilities(logits):
    """As scikit-learn has them: a column for each class."""
    if logits.shape[1] > 1:
        return logits.softmax(1).numpy()
    p = torch.sigmoid(logits)
    return torch.cat([1 - p, p], 1).numpy()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_probabilities(make, data, dtype, tmp_path):
    x, y = DATA[data]
    x = ((x - x.mean(0)) / x.std(0) + 0.5).astype(dtype)
    estimator = make().fit(x, y)
    skops.io.dump(estimator, tmp_path / "m.skops")
    for outputs in (1, 2) if data == "two classes" else (3,):
        model = read(tmp_path / "m.skops", torch.tensor(x[:9]), outputs).model
        with torch.no_grad():
            found = probabilities(model(torch.tensor(x).to(next(model.parameters()).dtype)))
        exact = dtype is np.float64
        np.testing.assert_allclose(found, estimator.predict_proba(x), rtol=0, atol=1e-9 if exact else 1e-5)
        assert all(p.requires_grad for p in model.parameters())


def fitted(labels, dtype=None):
    """A logistic regression of the wine data under other labels."""
    x, y = DATA["three classes"]
    x = (x - x.mean(0)) / x.std(0)
    return LogisticRegression().fit(x, np.array(labels, dtype=dtype)[y]), torch.tensor(x)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("classes", [["no", "yes"], ["yes", "no"]])
def test_two_classes_in_the_order_of_the_project(classes, outputs, tmp_path):
    estimator, x = fitted(["yes", "no", "no"])
    skops.io.dump(estimator, tmp_path / "m.skops")
    model = read(tmp_path / "m.skops", x, outputs, classes=classes).model
    expected = estimator.predict_proba(x.numpy())[:, [["no", "yes"].index(name) for name in classes]]
    np.testing.assert_allclose(probabilities(model(x).detach()), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [None, object])
@pytest.mark.parametrize("classes", [["a", "b", "c"], ["c", "a", "b"]])
def test_three_classes_in_the_order_of_the_project(classes, dtype, tmp_path):
    estimator, x = fitted(["b", "a", "c"], dtype)
    skops.io.dump(estimator, tmp_path / "m.skops")
    model = read(tmp_path / "m.skops", x, 3, classes=classes).model
    expected = estimator.predict_proba(x.numpy())[:, ["abc".index(name) for name in classes]]
    np.testing.assert_allclose(probabilities(model(x).detach()), expected, atol=1e-12)


def test_whole_numbers_as_classes(tmp_path):
    estimator, x = fitted([1, 2, 1])
    skops.io.dump(estimator, tmp_path / "m.skops")
    model = read(tmp_path / "m.skops", x, 2, classes=[2, 1]).model
    np.testing.assert_allclose(
        probabilities(model(x).detach()), estimator.predict_proba(x.numpy())[:, ::-1], atol=1e-12
    )


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_fitted_regression_is_at_its_minimum(outputs, tmp_path):
    """Its gradient vanishes: 1 / (C n) is the weight decay of one logit, twice that of two."""
    x, y = DATA["two classes"]
    x = (x - x.mean(0)) / x.std(0)
    estimator = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-12, max_iter=1000).fit(x, y)
    skops.io.dump(estimator, tmp_path / "m.skops")
    model = read(tmp_path / "m.skops", torch.tensor(x), outputs).model
    layer, logits = model[-1], model(torch.tensor(x))
    if outputs == 1:
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor(y).double())
    else:
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(y))
    decay = outputs / (0.5 * len(x))
    (losses + decay / 2 * layer.weight.square().sum()).backward()
    assert layer.weight.grad.abs().max() < 1e-6


def test_in_a_project(tmp_path):
    x, y = DATA["three classes"]
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    skops.io.dump(estimator, tmp_path / "m.skops")
    model = read(tmp_path / "m.skops", torch.tensor(x), 3).model
    split = puma.Split(x, y)
    project = puma.Project(name="wine", model=model, train=split, validation=split, weight_decay=1 / len(x))
    assert np.isfinite(puma.value(project).scores).all()
    patch = puma.patch(project, puma.PatchPlan(remove=(1,), method="influence"))
    assert torch.equal(patch.model[1].mean, model[1].mean)


def test_warnings_of_other_versions_are_no_news(tmp_path, monkeypatch):
    estimator, x = fitted([0, 1, 2])
    monkeypatch.setattr("sklearn.base.__version__", "1.5.0")
    skops.io.dump(estimator, tmp_path / "m.skops")
    monkeypatch.undo()
    assert read(tmp_path / "m.skops", x).model(x).shape == (len(x), 3)
