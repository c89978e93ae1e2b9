"""Ridge regression: everything has a closed form.

J = (1/n) sum_i |x_i beta - y_i|^2 / k + (wd/2) |beta|^2, so B = A x I with A = (2 / nk) X^T X + wd I.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import puma_dash as puma

from .cases import case, mlp

N, WD = 25, 0.1
CURVATURES = {
    "dense": puma.Dense(damping=0.0),
    "conjugate gradient": puma.ConjugateGradient(damping=0.0, tolerance=1e-12),
    "exact Hessian": puma.Dense(damping=0.0, matrix="hessian"),
    "automatic": "auto",
}


@dataclass
class Ridge:
    """Data, the minimum and the formulas in the layout (d + 1, k)."""

    k: int

    def __post_init__(self):
        fitted = case(mlp(3, self.k), (3,), self.k, "squared_error", n=N, weight_decay=WD)
        self.x, self.xv = (
            np.c_[part[0], np.ones(len(part[0]))] for part in (fitted.train, fitted.validation)
        )
        self.y, self.yv = fitted.train[1], fitted.validation[1]
        self.beta = self.solve(np.ones(N))
        self.a = 2 / (N * self.k) * self.x.T @ self.x + WD * np.eye(4)
        self.residuals = self.x @ self.beta - self.y
        self.slope = 2 / (len(self.xv) * self.k) * self.xv.T @ (self.xv @ self.beta - self.yv)  # grad C
        with torch.no_grad():
            fitted.model[0].weight.copy_(torch.as_tensor(self.beta[:-1].T))
            fitted.model[0].bias.copy_(torch.as_tensor(self.beta[-1]))
        self.project = fitted.project()

    def solve(self, w):
        """The minimum with row weights ``w`` and the factor 1/n of all rows."""
        c = 2 / (N * self.k)
        return np.linalg.solve(
            c * self.x.T @ (w[:, None] * self.x) + WD * np.eye(4), c * self.x.T @ (w[:, None] * self.y)
        )

    def first_order(self, j):
        """delta of removing row j: + (1/n) B^-1 grad l_j."""
        return 2 / (N * self.k) * np.outer(np.linalg.solve(self.a, self.x[j]), self.residuals[j])


@pytest.fixture(params=[1, 3], ids=["one output", "three outputs"], scope="module")
def ridge(request):
    return Ridge(request.param)


def beta_of(delta, k):
    """(d + 1, k) of a flat vector: weights (k, d), then biases (k,)."""
    weight, bias = np.split(np.asarray(delta), [3 * k])
    return np.vstack([weight.reshape(k, 3).T, bias])


@pytest.mark.parametrize("curvature", CURVATURES.values(), ids=CURVATURES)
def test_psi_is_the_closed_form(ridge, curvature):
    scores = puma.value(ridge.project, criterion="squared_error", curvature=curvature).scores
    projected = ridge.x @ np.linalg.solve(ridge.a, ridge.slope)
    expected = 2 / ridge.k * (projected * ridge.residuals).sum(1)
    np.testing.assert_allclose(scores, expected, rtol=2e-3 if curvature == "auto" else 1e-9, atol=1e-9)


def test_a_linear_model_with_weight_decay_needs_no_damping(ridge):
    assert puma.value(ridge.project, criterion="squared_error").diagnostics["damping"] == 0


@pytest.mark.parametrize("j", [0, 7, 24])
def test_removal_is_leave_one_out_times_one_minus_leverage(ridge, j):
    patch = puma.patch(
        ridge.project, puma.PatchPlan(remove=(j,), method="influence"), curvature=puma.Dense(damping=0.0)
    )
    leverage = 2 / (N * ridge.k) * ridge.x[j] @ np.linalg.solve(ridge.a, ridge.x[j])
    exact = ridge.solve(np.where(np.arange(N) == j, 0.0, 1.0)) - ridge.beta
    delta = beta_of(patch.delta, ridge.k)
    np.testing.assert_allclose(delta, ridge.first_order(j), atol=1e-12)
    np.testing.assert_allclose(delta, (1 - leverage) * exact, atol=1e-12)


def test_a_new_value_moves_by_the_difference_of_the_targets(ridge):
    """The curvature of a squared error does not know the target: one step is retraining on the new values."""
    values = {2: ridge.y[2] + 5.0, 7: ridge.y[7] - 1.5}
    plan = puma.PatchPlan(
        relabel={row: value if ridge.k > 1 else float(value[0]) for row, value in values.items()},
        hold=("squared_error",),
        method="influence",
    )
    patch = puma.patch(ridge.project, plan, curvature=puma.Dense(damping=0.0))
    y = ridge.y.copy()
    y[list(values)] = list(values.values())
    c = 2 / (N * ridge.k)
    exact = np.linalg.solve(c * ridge.x.T @ ridge.x + WD * np.eye(4), c * ridge.x.T @ y) - ridge.beta
    np.testing.assert_allclose(beta_of(patch.delta, ridge.k), exact, atol=1e-12)
    assert patch.predicted["squared_error"] == pytest.approx((ridge.slope * exact).sum(), abs=1e-12)
    after = puma.apply(ridge.project, patch)
    np.testing.assert_allclose(after.train.targets, y)
    assert puma.value(after, curvature=puma.Dense(damping=0.0)).criterion == "squared_error"


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_forgetting_is_a_quadratic_problem(ridge, damping):
    """(1/n) sum_kept |x d|^2 / k + ((wd + damping) / 2) |d|^2 - (tau/n) sum_gone |x (beta + d) - y|^2 / k."""
    gone, tau, c = [3, 11], 0.2, 2 / (N * ridge.k)
    kept = np.setdiff1d(np.arange(N), gone)
    plan = puma.PatchPlan(remove=tuple(gone), intent="forget", strength=tau, steps=30, hold=())
    patch = puma.patch(ridge.project, plan, curvature=puma.Dense(damping=damping))
    away, stays = ridge.x[gone], ridge.x[kept]
    matrix = c * stays.T @ stays - tau * c * away.T @ away + (WD + damping) * np.eye(4)
    exact = np.linalg.solve(matrix, tau * c * away.T @ ridge.residuals[gone])
    np.testing.assert_allclose(beta_of(patch.delta, ridge.k), exact, rtol=1e-4, atol=1e-6)


def test_a_quadratic_criterion_misses_its_prediction_by_its_second_order_term(ridge):
    plan = puma.PatchPlan(remove=(1, 4), upweight={9: 0.7}, hold=("squared_error",), method="influence")
    patch = puma.patch(ridge.project, plan, curvature=puma.Dense(damping=0.0))
    delta = ridge.first_order(1) + ridge.first_order(4) - 0.7 * ridge.first_order(9)
    predicted = (ridge.slope * delta).sum()
    curved = ((ridge.xv @ delta) ** 2).sum() / (len(ridge.xv) * ridge.k)
    assert patch.predicted["squared_error"] == pytest.approx(predicted, abs=1e-12)
    assert patch.measured["squared_error"] == pytest.approx(predicted + curved, abs=1e-12)


def test_puma_holds_the_error_of_a_regression(ridge):
    plan = puma.PatchPlan(remove=(2, 3), hold=("squared_error",), tolerance={"squared_error": 10.0})
    patch = puma.patch(ridge.project, plan)
    removed = 1 - patch.weights
    assert patch.strength == 1
    delta = sum(removed[j] * ridge.first_order(j) for j in range(N))
    np.testing.assert_allclose(beta_of(patch.delta, ridge.k), delta, atol=1e-9)
