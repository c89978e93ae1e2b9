"""Valuations that refit or retrain: closed forms, scikit-learn, row by row; jobs, cancelling, costs."""

import dataclasses
import threading
import time

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from torch import nn

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.retraining import Training, alone, results
from puma_dash.core.training import AdamRecipe
from puma_dash.core.valuation.representer import representer_points

from .cases import CASES, CONVEX, WEIGHTS, Reference, case, converged, mlp, trained

WD = 0.1


def ridge(model, split, weights, weight_decay, seed):
    """A trainer of one's own: the minimum of J of a linear model of squared errors, in closed form."""
    x = torch.cat([split.inputs, torch.ones(len(split), 1)], 1).double()
    k, n = split.targets.shape[1], len(split)
    b = 2 / (k * n) * x.T @ (weights[:, None] * x) + weight_decay * torch.eye(x.shape[1]).double()
    w = torch.linalg.solve(b, 2 / (k * n) * x.T @ (weights[:, None] * split.targets))
    with torch.no_grad():
        model[0].weight.copy_(w[:-1].T)
        model[0].bias.copy_(w[-1])
    return model


class Logistic:
    """A trainer of one's own: scikit-learn's logistic regression on the rows it is given."""

    def __call__(self, model, split, weights, weight_decay, seed):
        theirs = LogisticRegression(C=1 / (weight_decay * len(split)), tol=1e-10, max_iter=5_000)
        theirs.fit(split.inputs.numpy(), split.targets.numpy(), weights.numpy())
        with torch.no_grad():
            both = torch.tensor([[-0.5], [0.5]]).double() if len(theirs.coef_) == 1 else torch.eye(3).double()
            model[0].weight.copy_(both @ torch.as_tensor(theirs.coef_))
            model[0].bias.copy_(both @ torch.as_tensor(theirs.intercept_))
        return model


# --- leave one out ------------------------------------------------------------


def test_leave_one_out_of_ridge_is_sherman_and_morrisons():
    """theta without j = theta + B^-1 g_j / n / (1 - h_j), exactly, with the factor 1/n kept."""
    start = CONVEX["regression"].but(weight_decay=WD)
    x, y = (torch.as_tensor(part) for part in start.train)
    far, truth = (torch.as_tensor(part) for part in start.validation)
    x, far = (torch.cat([part, torch.ones(len(part), 1)], 1).double() for part in (x, far))
    n, k = y.shape
    b = torch.linalg.inv(2 / (k * n) * x.T @ x + WD * torch.eye(4).double())
    w = b @ (2 / (k * n) * x.T @ y)
    before = ((far @ w - truth) ** 2).mean()
    expected = []
    for j in range(n):
        h = 2 / (k * n) * x[j] @ b @ x[j]
        moved = w + torch.outer(b @ x[j], 2 / (k * n) * (x[j] @ w - y[j])) / (1 - h)
        expected.append(float(n * (((far @ moved - truth) ** 2).mean() - before)))
    found = puma.value(start.project(trainer=ridge), "leave_one_out")
    np.testing.assert_allclose(found.scores, expected, atol=5e-6)  # targets are in single precision
    assert found.diagnostics["retrainings"] == n + 1


def test_leave_one_out_of_a_minimum_is_what_psi_predicts():
    project = converged("regression").project(trainer=ridge)
    exact, psi = puma.value(project, "leave_one_out").scores, puma.value(project, puma.Psi(leverage=True))
    assert np.corrcoef(exact, psi.scores)[0, 1] > 0.95
    assert np.polyfit(psi.scores, exact, 1)[0] == pytest.approx(1, abs=0.2)


def test_leave_one_out_by_newton():
    """Our recipe, weights of rows, and another criterion."""
    start = CONVEX["weighted softmax"].but(weight_decay=WD)
    recipe = AdamRecipe(puma.SoftmaxCrossEntropy(), learning_rate=0.1, epochs=300, batch_size=30)
    found = puma.value(start.project(trainer=recipe), puma.LeaveOneOut(jobs=1), "brier").scores
    reference = Reference(start)
    before = reference.criterion("brier", reference.minimise(start.weights))
    for j in (0, 2, 3):
        w = np.where(np.arange(22) == j, 0.0, start.weights)
        expected = 22 * float(reference.criterion("brier", reference.minimise(w)) - before)
        assert found[j] == pytest.approx(expected, abs=2e-2)
    assert (found[WEIGHTS == 0] == 0).all()


def test_leave_one_out_refuses_what_takes_too_long():
    project = CONVEX["regression"].project(trainer=ridge)
    with pytest.raises(puma.ProjectError, match=r"31 retrainings .* at most 0 minutes"):
        puma.value(project, puma.LeaveOneOut(most_minutes=0.0))


# --- confident learning ------------------------------------------------------------


@pytest.mark.parametrize("score", ["self_confidence", "normalized_margin"])
def test_confident_learning_by_scikit_learn(score):
    """Probabilities by cross_val_predict; both scores as cleanlab defines them."""
    from sklearn.model_selection import StratifiedKFold

    start = CONVEX["softmax"].but(weight_decay=WD)
    found = puma.value(
        start.project(trainer=Logistic()), puma.ConfidentLearning(folds=3, score=score, seed=2)
    )
    x, y = start.train
    folds = StratifiedKFold(3, shuffle=True, random_state=2)
    theirs = LogisticRegression(C=1 / (WD * 20), tol=1e-10, max_iter=5_000)
    p = cross_val_predict(theirs, x, y, cv=folds, method="predict_proba")
    own = p[np.arange(30), y]
    expected = own
    if score == "normalized_margin":
        others = np.where(np.eye(3, dtype=bool)[y], -np.inf, p).max(1)
        expected = (own - others + 1) / 2
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)
    assert found.diagnostics["accuracy"] == pytest.approx((p.argmax(1) == y).mean())


def test_a_row_never_judges_itself():
    """With one row in each fold, the model that judges a row has not seen it: as leaving it out by hand."""
    start = CONVEX["softmax"].but(weight_decay=WD)
    x, y = start.train
    found = puma.value(start.project(trainer=Logistic()), puma.ConfidentLearning(folds=30)).scores
    for j in (0, 7, 29):
        rest = np.arange(30) != j
        theirs = LogisticRegression(C=1 / (WD * 29), tol=1e-10, max_iter=5_000).fit(x[rest], y[rest])
        assert found[j] == pytest.approx(theirs.predict_proba(x[j : j + 1])[0, y[j]], abs=1e-4)


def test_confident_learning_refuses_values_and_too_many_folds():
    with pytest.raises(puma.ProjectError, match="classification"):
        puma.value(CASES["regression"].project(), "confident_learning")
    with pytest.raises(puma.ProjectError, match="at most 22 folds"):
        puma.value(CASES["softmax"].project(), puma.ConfidentLearning(folds=23))


# --- representer points ------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_representer_points_add_up_to_the_outputs_of_the_refitted_layer(name):
    start = CASES[name]
    points = representer_points(Engine(start.project()), 0.05)
    together = points.features @ points.features.T @ points.alpha
    torch.testing.assert_close(together, points.outputs, atol=1e-6, rtol=1e-5)


def test_the_refitted_layer_is_scikit_learns():
    start = CASES["softmax"]
    points = representer_points(Engine(start.project()), 0.05)
    f, y = points.features.numpy(), start.train[1]
    with torch.no_grad():
        np.testing.assert_allclose(f[:, :-1], start.model[:2](torch.as_tensor(start.train[0])), atol=1e-6)
    assert (f[:, -1] == 1).all()
    theirs = LogisticRegression(C=1 / (0.05 * 22), fit_intercept=False, tol=1e-12, max_iter=9_000).fit(f, y)
    np.testing.assert_allclose(points.outputs.softmax(1), theirs.predict_proba(f), atol=1e-5)
    alpha = (np.eye(3)[y] - theirs.predict_proba(f)) / (0.05 * 22)
    np.testing.assert_allclose(points.alpha, alpha, atol=1e-3)
    found = puma.value(start.project(), puma.Representer(l2=0.05))
    expected = -np.linalg.norm(alpha, axis=1) * (f**2).sum(1)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-3)
    assert found.diagnostics["faithful"] > 1 - 1e-6


def test_rows_of_weight_zero_hold_up_nothing():
    found = puma.value(CASES["weighted softmax"].project(), "representer").scores
    np.testing.assert_array_equal(found == 0, WEIGHTS == 0)


def test_representer_points_need_a_linear_layer():
    folded = nn.Sequential(nn.Conv1d(1, 3, 3).double(), nn.Flatten())
    with pytest.raises(puma.ProjectError, match="linear last layer"):
        puma.value(case(folded, (1, 3), 3).project(), "representer")


# --- influence ------------------------------------------------------------


@pytest.mark.parametrize("solver", ["cg", "lissa"])
@pytest.mark.parametrize("name", ["softmax", "regression"])
def test_influence_is_the_dense_formula(name, solver):
    start = CASES[name]
    found = puma.value(start.project(), puma.Influence(solver=solver, damping=0.5))
    key = "squared_error" if name == "regression" else "cross_entropy"
    expected = Reference(start).psi(key, damping=0.5)
    np.testing.assert_allclose(found.scores, expected, atol=0.01 * np.abs(expected).max())


def test_influence_is_on_the_loss_of_the_criterions_rows():
    project, start = CASES["softmax"].project(), CASES["softmax"]
    found = puma.value(project, puma.Influence(damping=0.5), puma.Brier(rows=(2, 5)))
    expected = Reference(start).psi("cross_entropy", damping=0.5, rows=[2, 5])
    np.testing.assert_allclose(found.scores, expected, atol=0.01 * np.abs(expected).max())
    assert found.diagnostics["evaluated"] == puma.CrossEntropy(rows=(2, 5)).name


# --- reinforcement ------------------------------------------------------------


def flipped_blobs(n=150):
    """Two blobs far apart, a fifth of the training labels wrong."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, 3)) + 3 * np.array([1.0, -1, 0]) * (2 * y[:, None] - 1)
    wrong = rng.random(n) < 0.2
    start = case(mlp(3, 4, 2), (3,), 2).but(
        train=(x, np.where(wrong, 1 - y, y)), validation=(x[::3] + 0.3, y[::3])
    )
    return start, wrong


def test_the_selector_learns_what_is_wrong():
    start, wrong = flipped_blobs()
    method = puma.DVRL(space="inputs", rounds=400, learning_rate=3e-3, hidden=20)
    found = puma.value(start.project(), method)
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(wrong, -found.scores) > 0.9
    assert found.diagnostics["value"] > found.diagnostics["baseline"]
    assert ((found.scores > 0) & (found.scores < 1)).all()
    assert 0.05 < found.scores.mean() < 0.95


@pytest.mark.parametrize("name", ["one logit", "regression", "weighted softmax", "convolution"])
def test_the_selector_works_on_every_task(name):
    method = puma.DVRL(rounds=3, batch=10)
    first = puma.value(CASES[name].project(), method).scores
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, puma.value(CASES[name].project(), method).scores)
    assert (first != puma.value(CASES[name].project(), dataclasses.replace(method, seed=1)).scores).any()


# --- side by side ------------------------------------------------------------


def slow(task, check):
    for _ in range(30 if task else 1):
        time.sleep(0.1)
        check()


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_jobs_change_nothing(backend):
    project = dataclasses.replace(
        trained(30).project(), trainer=AdamRecipe(puma.SoftmaxCrossEntropy(), epochs=2)
    )
    alone = puma.value(project, puma.ConfidentLearning(folds=4, jobs=1)).scores
    with joblib.parallel_config(backend=backend, n_jobs=2):
        np.testing.assert_array_equal(puma.value(project, puma.ConfidentLearning(folds=4)).scores, alone)


def test_a_configured_backend_is_used(monkeypatch):
    made, plain = [], joblib.Parallel

    def noted(**settings):
        made.append(plain(**settings))
        return made[-1]

    monkeypatch.setattr(joblib, "Parallel", noted)
    engine = Engine(CASES["softmax"].project())
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert list(results(engine, lambda task, check: task**2, range(7), None, "")) == [
            task**2 for task in range(7)
        ]
    assert type(made[0]._backend).__name__ == "ThreadingBackend"
    assert made[0].n_jobs == 2
    list(results(engine, lambda task, check: task, range(3), None, ""))
    assert len(made) == 1  # short work stays here


@pytest.mark.parametrize("jobs", [1, 2])
def test_cancelling_does_not_wait_for_what_is_under_way(jobs):
    event, told = threading.Event(), []
    engine = Engine(CASES["softmax"].project()).listen(lambda *now: told.append(now), event)
    threading.Timer(0.5, event.set).start()
    begin = time.perf_counter()
    with joblib.parallel_config(backend="threading"), pytest.raises(puma.Cancelled):
        list(results(engine, slow, range(9), jobs, "Slow"))
    assert time.perf_counter() - begin < 2
    assert told
    assert all(0 <= done <= total == 9 and message == "Slow" for done, total, message in told)


def test_cancelling_reaches_our_recipe_between_epochs():
    def stop():
        raise puma.Cancelled

    engine = Engine(CASES["softmax"].project())
    with pytest.raises(puma.Cancelled):
        Training.of(engine).without(0, 0, stop)


def test_each_task_has_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert alone(lambda task, check: torch.get_num_threads(), 0) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- costs ------------------------------------------------------------

TOLD = {
    "leave_one_out": "23 retrainings on 22 rows",
    "confident_learning": "5 retrainings on 18 rows",
    "data_shapley_tmc": "880 retrainings",
    "data_shapley_g": "180 retrainings",
    "dvrl": "1,002 retrainings",
    "influence": "products",
    "knn_shapley": "15 sorts of 22 rows",
    "representer": "a last layer",
}


@pytest.mark.parametrize("method", TOLD)
def test_the_cost_is_told_beforehand(method, monkeypatch):
    project = CASES["softmax"].project()
    monkeypatch.setattr(puma.VALUATIONS[method], "__call__", None)
    monkeypatch.setattr(AdamRecipe, "__call__", None)
    found = puma.estimate(project, method=method, device="cpu")
    assert found.seconds > 0
    assert found.bytes > 0
    assert TOLD[method] in found.note


def test_only_a_run_can_tell_what_a_trainer_of_ones_own_takes():
    project = CASES["softmax"].project(trainer=Logistic())
    for method in ("leave_one_out", puma.DataShapleyTMC(model="trainer")):
        with pytest.raises(puma.ProjectError, match="its own trainer"):
            puma.estimate(project, method=method)


@pytest.mark.parametrize("method", ["knn_shapley", "leave_one_out", "representer", "influence"])
def test_wrong_labels_come_first(method):
    start, wrong = flipped_blobs(60)
    fitted = start.but(model=mlp(3, 2), weight_decay=WD)
    fitted = fitted.but(model=Reference(fitted).model_at(Reference(fitted).minimise()))
    if method == "leave_one_out":
        fitted, extra = fitted, {"trainer": Logistic()}
    else:
        extra = {}
    if method == "knn_shapley":
        method = puma.KnnShapley(space="inputs")
    scores = puma.value(fitted.project(**extra), method).scores
    assert scores[wrong].mean() < scores[~wrong].mean()
