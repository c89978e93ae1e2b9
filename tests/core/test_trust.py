"""The five terms: against closed forms of ridge regression, Newton's method, and the other calls."""

import dataclasses
import functools
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian

import puma_dash as puma
from puma_dash.core.evaluation import trust

from .cases import CASES, CONVEX, Reference, case, converged, flat, mlp, trained
from .test_ridge import WD, N, Ridge

EXACT = puma.Dense(damping=0.0)
REMOVED = (1, 4)
DAMPING = 0.05


def newton(start):
    """A trainer that solves convex problems exactly."""

    def trainer(model, split, weights, weight_decay, seed):
        again = start.but(train=(split.inputs.numpy(), split.targets.numpy()), weight_decay=weight_decay)
        reference = Reference(again)
        return reference.model_at(reference.minimise(weights))

    return trainer


def kept(n, removed=REMOVED):
    return np.where(np.isin(np.arange(n), removed), 0.0, 1.0)


def change(found, stage):
    return found.stages["change"][stage]


# --- ridge regression: everything has a closed form ---------------------------------------------


class Solved(Ridge):
    """With a trainer that solves, and the criterion as a function of beta."""

    def __post_init__(self):
        super().__post_init__()

        def trainer(model, split, weights, weight_decay, seed):
            return self.model_of(self.solve(weights.numpy()))

        self.project = dataclasses.replace(self.project, trainer=trainer)

    def model_of(self, beta):
        model = mlp(3, self.k)
        with torch.no_grad():
            model[0].weight.copy_(torch.as_tensor(beta[:-1].T))
            model[0].bias.copy_(torch.as_tensor(beta[-1]))
        return model

    def criterion(self, beta):
        return ((self.xv @ beta - self.yv) ** 2).mean()


@pytest.fixture(params=[1, 3], ids=["one output", "three outputs"], scope="module")
def ridge(request):
    return Solved(request.param)


def test_at_a_ridge_optimum_only_the_leverage_is_left(ridge):
    """Sherman-Morrison: the straight step is (1 - h) of leaving one out, and nothing else differs."""
    found = puma.decompose(ridge.project, [7], criterion="squared_error", curvature=EXACT)
    leverage = 2 / (N * ridge.k) * ridge.x[7] @ np.linalg.solve(ridge.a, ridge.x[7])
    exact = ridge.solve(kept(N, [7])) - ridge.beta
    np.testing.assert_allclose(found.terms["change"].drop("linearisation"), 0, atol=1e-10)
    np.testing.assert_allclose(found.terms["outputs"].drop("linearisation"), 0, atol=1e-16)
    missed = ((ridge.xv @ (leverage * exact)) ** 2).mean()
    assert found.terms["outputs"]["linearisation"] == pytest.approx(missed, rel=1e-5)
    parted = ridge.criterion(ridge.beta + (1 - leverage) * exact) - ridge.criterion(ridge.beta + exact)
    assert found.terms["change"]["linearisation"] == pytest.approx(parted, abs=1e-10)
    distance = found.stages["distance"]
    assert distance["Bregman"] == pytest.approx(np.linalg.norm(exact), rel=1e-6)
    assert distance["influence"] == pytest.approx((1 - leverage) * np.linalg.norm(exact), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["at the optimum", "beside it"])
def test_every_stage_of_a_ridge_regression(ridge, shift):
    c, w = 2 / (N * ridge.k), kept(N)
    org = ridge.beta + shift
    project = ridge.project.with_model(ridge.model_of(org))
    eye = np.eye(4)

    def curved(v):
        return c * ridge.x.T @ (v[:, None] * ridge.x)

    def pull(v):
        return c * ridge.x.T @ (v[:, None] * ridge.y)

    b = curved(np.ones(N)) + (WD + DAMPING) * eye
    gone = curved(1 - w) @ org - pull(1 - w)  # (1/n) sum of the removed rows' gradients
    expected = {
        "retrained": ridge.solve(w),
        "warm start": ridge.solve(w),
        "proximal": np.linalg.solve(curved(w) + (WD + DAMPING) * eye, pull(w) + DAMPING * org),
        "Bregman": org + np.linalg.solve(b - curved(1 - w), gone),
        "linearised": org + np.linalg.solve(b, gone),
        "influence": org + np.linalg.solve(b, gone),
    }
    found = puma.decompose(project, REMOVED, criterion="squared_error", curvature=puma.Dense(damping=DAMPING))
    for stage, beta in expected.items():
        now, distance = ridge.criterion(beta) - ridge.criterion(org), np.linalg.norm(beta - org)
        assert change(found, stage) == pytest.approx(now, abs=1e-9), stage
        assert found.stages["distance"][stage] == pytest.approx(distance, rel=1e-6), stage
    converged_there = abs(found.terms["change"]["non-convergence"]) < 1e-9
    assert converged_there == (shift == 0)


# --- softmax and networks: Newton's method on each objective ------------------------------------


def least(objective, theta):
    """The minimum of ``objective`` near ``theta``, by Newton's method."""
    for _ in range(50):
        step = torch.linalg.solve(hessian(objective, theta), jacobian(objective, theta))
        theta = theta - step
        if step.norm() < 1e-12:
            return theta
    raise AssertionError("Newton's method did not converge")


def stages_of(reference, w, damping):
    """The four answers in the middle, from formulas written out."""
    org, n, wd = reference.theta, reference.n, reference.case.weight_decay
    before = reference.outputs(reference.x).detach()
    gone = reference.a - torch.as_tensor(w) * reference.a

    def near(theta, strength):
        return strength / 2 * (theta - org) @ (theta - org)

    def reweighted(theta):
        return reference.objective(theta, torch.as_tensor(w) * reference.a)

    def bregman(theta):
        p, new = before.softmax(1), reference.outputs(reference.x, theta).log_softmax(1)
        held = reference.a @ (p * (p.log() - new)).sum(1)
        removed = gone @ reference.losses(reference.x, reference.y, theta)
        return (held - removed) / n + near(theta, wd + damping)

    return {
        "warm start": least(reweighted, org),
        "proximal": least(lambda theta: reweighted(theta) + near(theta, damping), org),
        "Bregman": least(bregman, org),
        "linearised": org + reference.delta(w - 1, damping),
    }


@pytest.mark.parametrize(
    "start",
    [converged("softmax"), CONVEX["softmax"], converged("weighted softmax"), trained()],
    ids=["softmax", "softmax, untrained", "weighted softmax", "network"],
)
def test_every_stage_of_a_classifier(start):
    reference, w = Reference(start), kept(len(start.train[0]))
    found = puma.decompose(
        start.project(trainer=lambda *_: start.model), REMOVED, curvature=puma.Dense(damping=DAMPING)
    )
    before = reference.criterion()
    for stage, theta in stages_of(reference, w, DAMPING).items():
        now = reference.criterion(theta=theta) - before
        assert change(found, stage) == pytest.approx(float(now), rel=1e-5, abs=1e-9), stage
        if stage != "warm start":  # the minimum of a network without proximity may be a valley
            moved = float((theta - reference.theta).norm())
            assert found.stages["distance"][stage] == pytest.approx(moved, rel=1e-4), stage
    assert found.diagnostics["unfinished"] == []


@pytest.mark.parametrize(("matrix", "name"), [("ggn", "Gauss-Newton matrix"), ("hessian", "exact Hessian")])
def test_the_matrix_in_use_belongs_to_the_linearisation(matrix, name):
    """An exact solve leaves nothing to the solver, whichever matrix makes up B."""
    start = trained()
    reference, gone = Reference(start), 1 - kept(60)
    step = torch.linalg.solve(
        reference.b(DAMPING, matrix), reference.gradients().T @ torch.as_tensor(gone) / 60
    )
    found = puma.decompose(
        start.project(trainer=lambda *_: start.model),
        REMOVED,
        curvature=puma.Dense(damping=DAMPING, matrix=matrix),
    )
    straight = reference.criterion(theta=reference.theta + step) - reference.criterion()
    assert change(found, "linearised") == pytest.approx(float(straight), rel=1e-6)
    assert found.stages["distance"]["linearised"] == pytest.approx(float(step.norm()), rel=1e-6)
    assert found.terms["change"]["solver"] == pytest.approx(0, abs=1e-9)
    assert found.terms["outputs"]["solver"] < 1e-15
    assert name in found.terms["meaning"]["linearisation"]


def test_layers_taken_one_by_one_belong_to_the_solver():
    start = trained()
    project = start.project(trainer=lambda *_: start.model)
    exact, blocks = (
        puma.decompose(project, REMOVED, curvature=kind(damping=DAMPING)) for kind in (puma.Dense, puma.KFAC)
    )
    assert change(blocks, "linearised") == pytest.approx(change(exact, "linearised"), rel=1e-6)
    assert abs(blocks.terms["change"]["solver"]) > 1e-4


def test_one_logit_has_its_own_divergence():
    """A model linear in its parameters, at its optimum, is one that was trained to the end."""
    start = converged("one logit")
    found = puma.decompose(
        start.project(trainer=newton(start)), REMOVED, curvature=puma.Dense(damping=DAMPING)
    )
    assert found.terms["change"]["non-convergence"] == pytest.approx(0, abs=1e-9)
    assert found.terms["change"]["warm start"] == pytest.approx(0, abs=1e-9)
    assert abs(found.terms["change"]["proximity"]) > 1e-3


def test_the_straight_step_is_the_limit_of_the_bregman_minimum():
    """The smaller the weight of the removed rows, the better the line: its error falls with the square."""
    parted = []
    for weight in (1e-1, 1e-2):
        weights = np.ones(60)
        weights[list(REMOVED)] = weight
        project = trained().but(weights=weights).project(trainer=lambda *_: trained().model)
        found = puma.decompose(project, REMOVED, curvature=puma.Dense(damping=DAMPING))
        parted.append(abs(found.terms["change"]["linearisation"]))
    assert parted[0] / parted[1] == pytest.approx(100, rel=0.15)


# --- the whole ------------------------------------------------------------


@functools.cache
def of_a_network():
    project = trained().project(trainer=short_recipe())
    curvature = puma.ConjugateGradient(damping=DAMPING, tolerance=0.1)
    return project, curvature, puma.decompose(project, REMOVED, curvature=curvature, seed=3)


def short_recipe():
    from puma_dash.core.training import AdamRecipe

    return AdamRecipe(puma.LOSSES["cross_entropy"](), learning_rate=0.05, epochs=40, batch_size=20)


def test_the_terms_add_up():
    found = of_a_network()[2]
    assert found.terms["change"].sum() == pytest.approx(found.influence - found.retrained, abs=1e-15)
    assert list(found.terms.index) == [
        "warm start", "proximity", "non-convergence", "linearisation", "solver",
    ]  # fmt: skip
    assert (found.terms["change"].abs() > 1e-9).all()
    assert found.terms["meaning"].str.len().min() > 10


def test_both_ends_are_what_patches_measure():
    project, curvature, found = of_a_network()
    plan = puma.PatchPlan(remove=REMOVED, hold=("cross_entropy",), method="influence")
    naive = puma.patch(project, plan, curvature=curvature)
    assert found.influence == pytest.approx(naive.measured["cross_entropy"], rel=1e-9)
    assert found.predicted == pytest.approx(naive.predicted["cross_entropy"], rel=0.2)  # a loose solver
    assert found.stages["distance"]["influence"] == pytest.approx(float(naive.delta.norm()), rel=1e-9)
    again = puma.patch(project, dataclasses.replace(plan, method="retrain"), seed=3)
    assert found.retrained == pytest.approx(again.measured["cross_entropy"], rel=1e-9)
    assert found.fingerprint == project.fingerprint


def test_the_forecast_is_the_sum_of_psi():
    start, exact = trained(), puma.Dense(damping=DAMPING)
    project = start.project(trainer=lambda *_: start.model)
    criterion = puma.CrossEntropy(rows=(2, 5))
    found = puma.decompose(project, REMOVED, criterion=criterion, curvature=exact)
    psi = puma.value(project, criterion=criterion, curvature=exact).scores
    assert found.predicted == pytest.approx(psi[list(REMOVED)].sum() / 60, rel=1e-9)
    assert found.criterion == criterion.name
    assert found.terms["change"]["solver"] == pytest.approx(0, abs=1e-9)


def test_retraining_is_judged_with_its_own_statistics(monkeypatch):
    """Running means of the retrained model are its own: they are not parameters."""
    monkeypatch.setattr(trust, "ITERATIONS", 1)
    start = CASES["convolution"]

    def trainer(model, split, weights, weight_decay, seed):
        model.load_state_dict(start.model.state_dict())
        model[1].running_mean.add_(1.0)
        return model

    project = start.project(trainer=trainer)
    found = puma.decompose(project, REMOVED)
    again = puma.patch(project, puma.PatchPlan(remove=REMOVED, hold=("cross_entropy",), method="retrain"))
    assert found.stages["distance"]["retrained"] == 0
    assert found.retrained == pytest.approx(again.measured["cross_entropy"])
    assert abs(found.retrained) > 1e-3


def test_outputs_are_compared_as_probabilities():
    """Logits shifted by a constant are the same answer."""
    start = converged("softmax")

    def trainer(model, split, weights, weight_decay, seed):
        solved = newton(start)(model, split, weights, weight_decay, seed)
        with torch.no_grad():
            solved[0].bias += 1.0
        return solved

    found = puma.decompose(start.project(trainer=trainer), REMOVED, curvature=EXACT)
    assert found.terms["outputs"]["warm start"] < 1e-12
    assert found.stages["distance"]["retrained"] > 1


def test_the_project_stays_as_it_was():
    project = trained().project(trainer=lambda *_: trained().model)
    before = flat(project.model).clone()
    puma.decompose(project, puma.Selection([4, 1]))
    assert torch.equal(flat(project.model), before)


def test_what_did_not_reach_its_minimum_is_named(monkeypatch):
    monkeypatch.setattr(trust, "ITERATIONS", 1)
    project = CONVEX["softmax"].project(trainer=lambda *_: CONVEX["softmax"].model)
    found = puma.decompose(project, REMOVED, curvature=puma.ConjugateGradient(damping=DAMPING, tolerance=0.1))
    assert found.diagnostics["unfinished"] == ["warm start", "proximal", "Bregman"]


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (case(mlp(3, 3000, 3), (3,), 3), "at most 4,000 parameters .* but got 21,003 and 22"),
        (case(mlp(3, 3), (3,), 3, n=5001), "and 5,000 training rows, .* but got 12 and 5,001"),
    ],
)
def test_large_projects_are_refused(start, sentence):
    with pytest.raises(puma.ProjectError, match=sentence):
        puma.decompose(start.project(), REMOVED)


@pytest.mark.parametrize("rows", [[99], [], [0.5]])
def test_rows_are_checked(rows):
    with pytest.raises(puma.ProjectError):
        puma.decompose(CASES["softmax"].project(), rows)


def test_cancel():
    stop = threading.Event()

    def progress(done, total, message):
        if message == "Bregman objective":
            stop.set()

    project = CASES["softmax"].project(trainer=lambda *_: CASES["softmax"].model)
    with pytest.raises(puma.Cancelled):
        puma.decompose(project, REMOVED, progress=progress, cancel=stop)


def test_an_objective_without_a_minimum_is_refused():
    class Cubic(nn.Linear):
        """Outputs that grow faster than any proximity holds."""

        def forward(self, x):
            return super().forward(x) ** 3

    start = case(Cubic(3, 1).double(), (3,), 1, "binary_cross_entropy")
    project = start.project(trainer=lambda *_: start.model)
    with pytest.raises(puma.ProjectError, match="to have a minimum"):
        puma.decompose(project, np.flatnonzero(start.train[1])[1:].tolist())
