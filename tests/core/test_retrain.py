"""Retraining keeps the factor 1/n and the weights; the recipe finds the minimum other solvers find."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import puma_dash as puma
from puma_dash.core.training import AdamRecipe, fresh

from .cases import CONVEX, Reference, case, flat

CROSS_ENTROPY = puma.LOSSES["cross_entropy"]()
REMOVED = tuple(range(3, 19))
W = np.where(np.isin(np.arange(30), REMOVED), 0.0, 1.0)
WD = 0.05


def recipe(loss="cross_entropy", batch_size=30, epochs=800):
    return AdamRecipe(puma.LOSSES[loss](), learning_rate=0.1, epochs=epochs, batch_size=batch_size)


def retrained(project, seed=0, **rows):
    return puma.patch(project, puma.PatchPlan(method="retrain", **rows), seed=seed)


@pytest.mark.parametrize("name", ["softmax", "one logit", "regression"])
def test_the_recipe_finds_the_minimum_with_the_factor_one_over_n(name):
    start = CONVEX[name].but(weight_decay=WD)
    exact = Reference(start).minimise(W)
    wrong = Reference(start).minimise(W * 30 / W.sum())  # what 1/(n - k) would give
    patch = retrained(start.project(trainer=recipe(start.loss)), remove=REMOVED)
    assert (exact - wrong).abs().max() > 0.03
    torch.testing.assert_close(flat(patch.model), exact, rtol=0, atol=2e-4)
    np.testing.assert_allclose(patch.weights, W)
    assert patch.strength == 1
    assert patch.predicted == {}
    torch.testing.assert_close(patch.delta, flat(patch.model) - flat(start.model))


def test_mini_batches_keep_the_factor_one_over_n():
    start = CONVEX["softmax"].but(weight_decay=WD)
    exact, wrong = Reference(start).minimise(W), Reference(start).minimise(W * 30 / W.sum())
    found = flat(retrained(start.project(trainer=recipe(batch_size=7, epochs=300)), remove=REMOVED).model)
    assert (found - exact).norm() < 0.25 * (found - wrong).norm()


def test_row_weights_upweights_and_labels_reach_the_objective():
    start = CONVEX["weighted softmax"].but(weight_decay=WD)
    relabelled = start.train[1].copy()
    relabelled[4] = (relabelled[4] + 1) % 3
    e = np.zeros(22)
    e[[1, 2, 6]] = -1, -1, 3.0
    exact = Reference(start.but(train=(start.train[0], relabelled))).minimise(start.weights * (1 + e))
    rows = {"remove": (1, 2), "upweight": {6: 3.0}, "relabel": {4: int(relabelled[4])}}
    patch = retrained(start.project(trainer=recipe()), **rows)
    torch.testing.assert_close(flat(patch.model), exact, rtol=0, atol=3e-4)
    np.testing.assert_allclose(patch.weights, start.weights * (1 + e))


def test_class_weights_and_smoothing_reach_the_objective():
    start = CONVEX["smoothed softmax"].but(weight_decay=WD)
    exact = Reference(start).minimise(np.where(np.arange(22) < 3, 0.0, start.weights))
    wrong = Reference(start.but(loss="cross_entropy")).minimise(
        np.where(np.arange(22) < 3, 0.0, start.weights)
    )
    patch = retrained(start.project(trainer=None), remove=(0, 1, 2))
    assert "label_smoothing=0.1" in patch.diagnostics["trainer"]
    ours = AdamRecipe(start.loss, learning_rate=0.1, epochs=800, batch_size=30)
    patch = retrained(start.project(trainer=ours), remove=(0, 1, 2))
    assert (exact - wrong).abs().max() > 0.03
    torch.testing.assert_close(flat(patch.model), exact, rtol=0, atol=3e-4)


@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_balanced_class_weights_are_those_of_pytorch(smooth):
    """Trained by PyTorch's mean over the weights, a model is at the minimum of our J."""
    start = CONVEX["softmax"].rows([*np.flatnonzero(CONVEX["softmax"].train[1])[:17].tolist(), 0, 5])
    x, y = (torch.as_tensor(part) for part in start.train)
    weights = tuple((len(y) / (3 * torch.bincount(y))).tolist())
    model = nn.Linear(3, 3).double()
    criterion = nn.CrossEntropyLoss(torch.tensor(weights).double(), label_smoothing=smooth)
    solver = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-12)

    def closure():
        solver.zero_grad()
        decay = sum(p.square().sum() for p in model.parameters())
        value = criterion(model(x), y) + WD / 2 * decay
        value.backward()
        return value

    solver.step(closure)
    loss = puma.SoftmaxCrossEntropy(label_smoothing=smooth, class_weights=weights)
    project = start.but(model=model, weight_decay=WD).project(loss=loss)
    findings = {finding.check: finding for finding in puma.health(project)}
    assert findings["stationarity"].value < 1e-8
    assert findings["weight decay"].status == "ok"


def test_a_trainer_of_ones_own_against_scikit_learn():
    torch.manual_seed(0)
    start = case(nn.Sequential(nn.Linear(3, 3, bias=False)).double(), (3,), 3, n=30, weight_decay=WD)

    def newton(model, split, weights, weight_decay, seed):
        again = start.but(
            model=model, train=(split.inputs.numpy(), split.targets.numpy()), weight_decay=weight_decay
        )
        reference = Reference(again)
        return reference.model_at(reference.minimise(weights))

    patch = retrained(start.project(trainer=newton), remove=REMOVED, upweight={0: 1.0})
    weights = W + np.eye(30)[0]
    solver = LogisticRegression(C=1 / (30 * WD), fit_intercept=False, tol=1e-10, max_iter=10_000)
    solver.fit(*start.train, sample_weight=weights)
    np.testing.assert_allclose(patch.model[0].weight.detach(), solver.coef_, atol=1e-5)


def test_what_a_trainer_is_given():
    start, seen = CONVEX["weighted softmax"], {}

    def spy(model, split, weights, weight_decay, seed):
        seen.update(model=model, split=split, weights=weights, weight_decay=weight_decay, seed=seed)
        return model

    project = start.project(trainer=spy)
    new = int(start.train[1][4] + 1) % 3
    patch = retrained(project, seed=11, remove=(1,), relabel={4: new})
    assert seen["seed"] == 11
    assert seen["weight_decay"] == start.weight_decay
    np.testing.assert_allclose(seen["weights"], np.where(np.arange(22) == 1, 0, start.weights))
    assert len(seen["split"]) == 22
    np.testing.assert_array_equal(seen["split"].inputs, start.train[0])
    assert seen["split"].targets[4] == new
    assert project.train.targets[4] != new
    assert flat(seen["model"]).shape == flat(start.model).shape
    assert (flat(seen["model"]) - flat(start.model)).abs().max() > 1e-3
    assert not patch.model.training


def test_a_trainer_of_ones_own_may_build_a_model_that_cannot_reset_itself():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3).double())

        def forward(self, x):
            return x @ self.weight

    start = case(Bare(), (3,), 3)
    with pytest.raises(puma.ProjectError, match="trainer of your own"):
        retrained(start.project(), remove=(1,))
    patch = retrained(start.project(trainer=lambda *_: Bare()), remove=(1,))
    assert torch.equal(patch.model.weight, torch.ones(3, 3).double())


@pytest.mark.parametrize("batch_size", [5, 30])
def test_rows_of_weight_zero_never_matter(batch_size):
    """Batch statistics included: the model normalises over the batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    start = case(model, (3,), 3, n=30)
    x, y = (part.copy() for part in start.train)
    x[list(REMOVED)] = 1e3
    spoilt = start.but(train=(x, np.where(W == 0, 0, y)))
    plain, other = (
        retrained(variant.project(trainer=recipe(batch_size=batch_size, epochs=3)), remove=REMOVED).model
        for variant in (start, spoilt)
    )
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_seeds():
    project = CONVEX["softmax"].project(trainer=recipe(batch_size=7, epochs=2))
    first, again, other = (retrained(project, seed=seed, remove=(1,)).delta for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_fresh_model_is_drawn_by_the_seed():
    model = CONVEX["softmax"].model
    before = copy.deepcopy(model.state_dict())
    first, again, other = (flat(fresh(model, seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_default_recipe_is_named_as_ours():
    project = CONVEX["softmax"].project()
    assert "not the author's" in retrained(project, remove=(1,)).diagnostics["trainer"]
    mine = CONVEX["softmax"].project(trainer=recipe(epochs=1))
    assert "not the author's" not in retrained(mine, remove=(1,)).diagnostics["trainer"]


def test_batch_normalisation_survives_a_last_batch_of_one_row():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    start = case(model, (3,), 3, n=22)
    patch = retrained(start.project(trainer=recipe(batch_size=10, epochs=1)), remove=(5,))  # 10 + 10 + 1
    assert torch.isfinite(patch.delta).all()
