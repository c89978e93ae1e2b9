"""Leverage and single removals: closed forms, and dense algebra of the quadratic model."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

import puma_dash as puma

from .cases import CASES, CONVEX, Case, Reference, case, converged, mlp, written
from .test_architectures import ARCHITECTURES
from .test_ridge import N, Ridge

DENSE = puma.Dense(damping=0.05)
SAMPLED = puma.ConjugateGradient(damping=0.05, tolerance=1e-11)
BOTH = pytest.mark.parametrize("curvature", [DENSE, SAMPLED], ids=["dense", "sample space"])


def own_curvature(reference, j):
    """a_j J_j^T H_j J_j / n (p, p)."""
    z = reference.outputs(reference.x).detach()
    h = hessian(lambda row: written(reference.case.loss)(row[None], reference.y[j : j + 1])[0], z[j])
    jacobian = reference.jacobians(reference.x[j : j + 1])[0]
    return reference.a[j] * jacobian.T @ h @ jacobian / reference.n


def key_of(reference):
    return "squared_error" if reference.case.loss == "squared_error" else "cross_entropy"


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_dense_algebra(name, curvature):
    """tr(B^-1 G_j), and over all rows the effective number of parameters tr(B^-1 G)."""
    reference = Reference(CASES[name])
    b = reference.b(0.05)
    expected = [float(torch.linalg.solve(b, own_curvature(reference, j)).trace()) for j in range(reference.n)]
    found = puma.leverage(CASES[name].project(), curvature=curvature)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert found.sum() == pytest.approx(float(torch.linalg.solve(b, reference.ggn()).trace()))
    assert ((found >= 0) & (found < reference.outputs(reference.x).shape[1])).all()


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_removals_are_exact_in_the_quadratic_model(name, curvature):
    """The row's gradient and its curvature leave together."""
    reference = Reference(CASES[name])
    key = key_of(reference)
    b, slope, gradients = reference.b(0.05), reference.criterion_gradient(key), reference.gradients()
    expected = [
        float(slope @ torch.linalg.solve(b - own_curvature(reference, j), gradients[j]))
        for j in range(reference.n)
    ]
    scores = puma.value(CASES[name].project(), puma.Psi(leverage=True), key, curvature=curvature).scores
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["layer norm", "transformer", "embedding"])
def test_architectures(name):
    start = ARCHITECTURES[name]()
    reference = Reference(start)
    expected = [
        float(torch.linalg.solve(reference.b(0.05), own_curvature(reference, j)).trace())
        for j in range(reference.n)
    ]
    np.testing.assert_allclose(puma.leverage(start.project(), curvature=SAMPLED), expected, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_ridge_regression_leave_one_out(k):
    """Sherman & Morrison: the corrected psi is the slope of C along the change on retraining."""
    ridge = Ridge(k)
    leverage = puma.leverage(ridge.project)
    inverse = np.linalg.inv(ridge.a)
    expected = 2 / N * (ridge.x @ inverse * ridge.x).sum(1)  # k outputs, each 2 / (n k)
    np.testing.assert_allclose(leverage, expected)
    scores = puma.value(ridge.project, puma.Psi(leverage=True), "squared_error").scores
    plain = puma.value(ridge.project, "psi", "squared_error").scores
    np.testing.assert_allclose(scores, plain / (1 - expected / k))
    for j in (0, 7, 24):
        exact = ridge.solve(np.where(np.arange(N) == j, 0.0, 1.0)) - ridge.beta
        assert scores[j] == pytest.approx(N * (ridge.slope * exact).sum(), rel=1e-9)
    hat = np.trace(ridge.x @ inverse @ ridge.x.T) * 2 / N
    assert leverage.sum() == pytest.approx(hat)


def test_one_logit_divides_by_one_minus_leverage():
    project = CASES["one logit"].project()
    h = puma.leverage(project, curvature=DENSE)
    plain, corrected = (
        puma.value(project, method, curvature=DENSE).scores
        for method in (puma.Psi(), puma.Psi(leverage=True))
    )
    np.testing.assert_allclose(corrected, plain / (1 - h))


@pytest.mark.parametrize("name", ["softmax", "one logit"])
def test_closer_to_leave_one_out_retraining(name):
    start = converged(name)
    reference, project = Reference(start), start.project()
    before = float(reference.criterion())
    keep = [reference.a * (torch.arange(reference.n) != j) for j in range(reference.n)]
    truth = [reference.n * (float(reference.criterion(theta=reference.minimise(w))) - before) for w in keep]
    exact = puma.Dense(damping=0.0)
    error = {
        corrected: np.abs(
            puma.value(project, puma.Psi(leverage=corrected), curvature=exact).scores - truth
        ).sum()
        for corrected in (False, True)
    }
    assert error[True] < error[False]


def test_a_flipped_row_has_self_influence_above_n_and_small_leverage():
    x, y = CONVEX["one logit"].train
    x, y = np.concatenate([x, [[9.0, -4.5, 0.0]]]), np.append(y, 0)  # far on the other side
    start = CONVEX["one logit"].but(train=(x, y), weight_decay=1e-3)
    with torch.no_grad():
        start.model[0].weight.copy_(torch.tensor([[2.0, -1.0, 0.0]]))
    project, exact = start.project(), puma.Dense(damping=0.0)
    own = -puma.value(project, "self_influence", curvature=exact).scores / len(x)
    h = puma.leverage(project, curvature=exact)
    assert own[-1] > 1
    assert h[-1] < 0.1


@BOTH
def test_chosen_rows(curvature):
    project = CASES["weighted softmax"].project()
    every = puma.leverage(project, curvature=curvature)
    np.testing.assert_allclose(puma.leverage(project, [7, 2], curvature=curvature), every[[7, 2]])


@pytest.fixture(scope="module")
def large() -> Case:
    return case(mlp(6, 16, 3, seed=1), (6,), 3, n=400, weight_decay=0.002)


def test_a_sample_of_the_gradients_comes_close(large):
    """Drawn rows and others alike: a drawn row's own weight in the sample is taken out."""
    exact = puma.leverage(large.project(), curvature=puma.Dense(damping=0.01))
    found = puma.leverage(large.project(), curvature=puma.ConjugateGradient(damping=0.01), sampled=300)
    assert np.corrcoef(np.log(found), np.log(exact))[0, 1] > 0.95
    assert np.median(found / exact) == pytest.approx(1, abs=0.2)
    assert found.sum() == pytest.approx(exact.sum(), rel=0.2)
