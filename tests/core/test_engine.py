"""The engine's sums and products against loops over rows and dense matrices."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.curvature.dense import gauss_newton_matrix, hessian_matrix
from puma_dash.core.engine import Engine

from .cases import CASES, Reference

close = torch.testing.assert_close


@pytest.fixture(params=CASES, scope="module")
def reference(request):
    return Reference(CASES[request.param])


@pytest.fixture(scope="module")
def engine(reference):
    return Engine(reference.case.project(), batch_size=7)


@pytest.fixture(params=["trained", "elsewhere"], scope="module")
def theta(request, reference):
    noise = torch.linspace(-0.3, 0.3, len(reference.theta)).double().roll(5)
    return reference.theta if request.param == "trained" else reference.theta + noise


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_theta_and_outputs(reference, engine, theta):
    close(engine.theta, reference.theta)
    close(engine.outputs("validation", theta), reference.outputs(reference.case.validation[0], theta))


def test_weighted_gradient(reference, engine, theta):
    w = vectors(reference.n) * (torch.arange(reference.n) % 3 > 0)
    close(engine.weighted_gradient(w, theta=theta), reference.gradients(theta).T @ w)


def test_weighted_gradient_of_chosen_rows_and_other_labels(reference, engine):
    rows, targets = torch.tensor([9, 2, 3, 2]), reference.y.flip(0)
    w = torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    expected = reference.gradients(targets=targets)[rows].T @ w
    close(engine.weighted_gradient(w, rows, targets=targets[rows]), expected)


def test_directional_scores(reference, engine, theta):
    s = vectors(2, len(reference.theta))
    close(engine.directional_scores(s, theta=theta), s @ reference.gradients(theta).T)


def test_directional_scores_of_chosen_rows_and_other_labels(reference, engine):
    rows, targets, s = torch.tensor([9, 2, 3]), reference.y.flip(0), vectors(1, len(reference.theta))
    expected = s @ reference.gradients(targets=targets)[rows].T
    close(engine.directional_scores(s, rows, targets=targets[rows]), expected)


def test_pullback_and_pushforward(reference, engine, theta):
    split = engine.split("validation")
    jacobians = reference.jacobians(reference.case.validation[0], theta)
    v, s = vectors(*jacobians.shape[:2]), vectors(len(reference.theta))
    close(engine.pullback(split, v, theta), torch.einsum("mcp,mc->p", jacobians, v))
    z, dz = engine.pushforward(split, s, theta)
    close(z, reference.outputs(reference.case.validation[0], theta))
    close(dz, jacobians @ s)


def test_gauss_newton(reference, engine, theta):
    g, v = reference.ggn(theta), vectors(3, len(reference.theta))
    product = engine.gauss_newton_product(theta=theta)
    close(product(v), v @ g)
    close(product(2 * v), 2 * v @ g)  # a second call reuses the graphs
    close(gauss_newton_matrix(engine, theta), g)


def test_gauss_newton_of_chosen_rows(reference, engine):
    rows, v = torch.tensor([1, 2, 9, 15, 21]), vectors(1, len(reference.theta))
    weights = torch.tensor([1.0, 0.0, 2.0, 3.0, 0.5]).double()
    expected = sum(w * reference.ggn(rows=[int(j)]) for w, j in zip(weights, rows, strict=True)) / reference.n
    close(engine.gauss_newton_product(rows, weights)(v), v @ expected)


def test_exact_hessian(reference, engine, theta):
    h, v = reference.hessian(theta), vectors(3, len(reference.theta))
    close(engine.hessian_product(theta)(v), v @ h)
    close(hessian_matrix(engine, theta), h)


@pytest.mark.parametrize("rows", [None, (2, 5, 11)])
def test_criterion_and_its_gradient(reference, engine, rows):
    regression = reference.case.loss == "squared_error"
    chosen = slice(None) if rows is None else list(rows)
    for key in ("squared_error",) if regression else ("cross_entropy", "brier"):
        criterion = puma.CRITERIA[key](rows=rows)
        value, gradient = engine.criterion_gradient(criterion)
        assert value == pytest.approx(float(reference.criterion(key, rows=chosen)))
        assert value == pytest.approx(engine.criterion(criterion))
        close(gradient, reference.criterion_gradient(key, chosen))


CURVATURES = {
    "dense": puma.Dense(damping=0.03),
    "conjugate gradient": puma.ConjugateGradient(damping=0.03, tolerance=1e-11),
}


@pytest.mark.parametrize("curvature", CURVATURES.values(), ids=CURVATURES)
def test_psi_and_patch(reference, curvature):
    """The whole way: criterion, curvature with weight decay and damping, 1/n, sign, row weights."""
    key = "squared_error" if reference.case.loss == "squared_error" else "cross_entropy"
    project = reference.case.project()
    psi = reference.psi(key, damping=0.03)
    scores = puma.value(project, criterion=key, curvature=curvature).scores
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, psi, rtol=1e-7, atol=1e-9)

    e = np.zeros(reference.n)
    e[[2, 6, 7]] = -1, -1, 0.5
    plan = puma.PatchPlan(remove=(6, 2), upweight={7: 0.5}, hold=(key,), method="influence", strength=0.8)
    patch = puma.patch(project, plan, curvature=curvature)
    close(patch.delta, 0.8 * reference.delta(e, damping=0.03), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(patch.weights, reference.a.numpy() * (1 + e))
    assert patch.predicted[key] == pytest.approx(-0.8 / reference.n * e @ psi, rel=1e-7)
    moved = reference.criterion(key, reference.theta + patch.delta) - reference.criterion(key)
    assert patch.measured[key] == pytest.approx(float(moved), rel=1e-7)


@pytest.mark.parametrize("key", ["gradient_dot", "loss"])
def test_baselines(reference, key):
    criterion = "squared_error" if reference.case.loss == "squared_error" else "cross_entropy"
    expected = {
        "gradient_dot": reference.gradients() @ reference.criterion_gradient(criterion),
        "loss": -reference.plain_losses(reference.x, reference.y),
    }[key]
    scores = puma.value(reference.case.project(), key, criterion).scores
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)
