"""PUMA's compensation against other solvers, and its guard rails against measurements of our own."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from sklearn.linear_model import ElasticNet

import puma_dash as puma
from puma_dash.core.unlearning.puma import compensation

from .cases import CASES, Reference, flat, trained

CURVATURE = puma.Dense(damping=0.05)
WIDE = {"cross_entropy": 1e3, "brier": 1e3}


# --- the weights --------------------------------------------------------------------------------------------


def problem(m, n, seed=0):
    """psi (m, n), what to compensate (m,), and the scale of each criterion."""
    rng = np.random.default_rng(seed)
    psi = rng.standard_normal((m, n)) * np.geomspace(1, 50, m)[:, None]
    return psi, np.abs(rng.standard_normal(m)) * psi.std(1), psi.std(1)


def coefficients(psi, target, scale, sparsity, ridge):
    """The problem |A x - b|^2 + lasso sum x + square |x|^2 that the fractions stand for."""
    a, b = psi / scale[:, None], target / scale
    return a, b, sparsity * 2 * (a.T @ b).max(), ridge * (a**2).sum()


@pytest.mark.parametrize("n", [5, 40, 120])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.6])
@pytest.mark.parametrize("weight_max", [1e6, 0.02])
def test_weights_solve_the_bounded_problem(m, n, sparsity, weight_max):
    """With R^T R = A^T A + square I the problem is |R x - R^-T (A^T b - lasso / 2)|^2 in a box."""
    data, ridge = problem(m, n), 1e-3
    a, b, lasso, square = coefficients(*data, sparsity, ridge)
    r = np.linalg.cholesky(a.T @ a + square * np.eye(n)).T
    truth = lsq_linear(r, np.linalg.solve(r.T, a.T @ b - lasso / 2), bounds=(0, weight_max), tol=1e-14)
    found = compensation(*data, sparsity=sparsity, ridge=ridge, weight_max=weight_max)
    np.testing.assert_allclose(found, truth.x, atol=1e-5 * max(truth.x.max(), 1e-3))
    assert found.min() >= 0
    assert found.max() <= weight_max


@pytest.mark.parametrize("m", [1, 3])
def test_weights_are_the_elastic_net_where_the_box_does_not_bind(m):
    data = problem(m, 40)
    a, b, lasso, square = coefficients(*data, 0.1, 1e-2)
    alpha = lasso / (2 * m) + square / m
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # centring is off on purpose
        net = ElasticNet(
            alpha,
            l1_ratio=lasso / (2 * m) / alpha,
            positive=True,
            fit_intercept=False,
            tol=1e-12,
            max_iter=10**6,
        ).fit(a, b)
    found = compensation(*data, sparsity=0.1, ridge=1e-2, weight_max=np.inf)
    np.testing.assert_allclose(found, net.coef_, atol=1e-6)


def test_weights_of_one_criterion_have_a_closed_form():
    psi, s = np.random.default_rng(0).uniform(0.1, 3, (1, 30)), np.array([4.0])
    alpha = 0.2 * (psi**2).sum()
    found = compensation(psi, s, np.ones(1), sparsity=0.0, ridge=0.2, weight_max=np.inf)
    np.testing.assert_allclose(found, psi[0] * s / (alpha + psi[0] @ psi[0]), rtol=1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.05])
def test_weights_of_many_rows_meet_the_optimality_conditions(sparsity):
    data = problem(3, 5_000)
    a, b, lasso, square = coefficients(*data, sparsity, 1e-3)
    x = compensation(*data, sparsity=sparsity, ridge=1e-3, weight_max=0.001)
    gradient = (2 * a.T @ (a @ x - b) + lasso + 2 * square * x) / (2 * (a.T @ b).max())
    assert np.abs(gradient[(x > 0) & (x < 0.001)]).max(initial=0) < 1e-5
    assert gradient[x == 0].min(initial=0) > -1e-5
    assert gradient[x == 0.001].max(initial=0) < 1e-5


def test_units_of_a_criterion_do_not_matter():
    psi, target, scale = problem(2, 30)
    unit = np.array([1.0, 1e4])
    options = {"sparsity": 0.05, "ridge": 1e-3, "weight_max": 1.0}
    plain = compensation(psi, target, scale, **options)
    other = compensation(psi * unit[:, None], target * unit, scale * unit, **options)
    np.testing.assert_allclose(other, plain, atol=1e-6)


def test_a_criterion_that_no_row_moves_is_left_out():
    psi, target, scale = problem(2, 30)
    dead = np.vstack([psi, np.zeros(30)]), np.append(target, 1.0), np.append(scale, 0.0)
    options = {"sparsity": 0.05, "ridge": 1e-3, "weight_max": 1.0}
    np.testing.assert_allclose(compensation(*dead, **options), compensation(psi, target, scale, **options))


@pytest.mark.parametrize("target", [0.0, -3.0])
def test_nothing_adverse_needs_no_weights(target):
    psi = np.random.default_rng(0).uniform(0, 1, (1, 9))
    weights = compensation(psi, np.array([target]), np.ones(1), sparsity=0.05, ridge=1e-3, weight_max=1.0)
    assert not weights.any()


# --- the patch ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return Reference(trained())


@pytest.fixture(scope="module")
def project():
    return trained().project()


@pytest.fixture(scope="module")
def psi(reference):
    """(2, n)"""
    return np.stack([reference.psi(key, damping=0.05) for key in ("cross_entropy", "brier")])


@pytest.fixture(scope="module")
def ranked(psi):
    """Rows by psi of the cross-entropy, harmful ones first."""
    return np.argsort(psi[0])


def patched(project, remove=(), hold=("cross_entropy",), tolerance=WIDE, method="puma", **more):
    held = {name: tolerance[name] for name in hold if name in tolerance}
    plan = puma.PatchPlan(
        remove=remove, hold=hold, method=method, tolerance=held, strength=more.pop("strength", 1.0), **more
    )
    return puma.patch(project, plan, curvature=CURVATURE)


@pytest.mark.parametrize("tolerance", [WIDE, {}], ids=["wide rails", "default rails"])
def test_the_patch_is_what_its_weights_say(project, reference, psi, ranked, tolerance):
    """delta and predictions from the reference and the weights a (1 + e) that the patch reports."""
    hold = ("cross_entropy", "brier")
    removed, raised = ranked[-4:].tolist(), {int(ranked[20]): 0.5}
    patch = patched(project, removed, hold, tolerance, upweight=raised, strength=0.7)
    tau = patch.strength
    e = patch.weights - 1
    torch.testing.assert_close(patch.delta, tau * reference.delta(e, damping=0.05), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(flat(patch.model), reference.theta + patch.delta)
    np.testing.assert_allclose(
        [patch.predicted[key] for key in hold], -tau / reference.n * psi @ e, rtol=1e-7
    )
    for key in hold:
        moved = reference.criterion(key, reference.theta + patch.delta) - reference.criterion(key)
        assert patch.measured[key] == pytest.approx(float(moved), rel=1e-7)
    np.testing.assert_allclose(patch.weights[removed], 0)
    assert patch.weights[ranked[20]] == 1.5
    others = np.delete(e, [*removed, ranked[20]])
    assert others.min() >= 0
    assert 0 < others.max() <= 1
    assert patch.diagnostics["compensating_rows"] == np.count_nonzero(others)
    assert patch.diagnostics["compensating_largest"] == pytest.approx(others.max())


@pytest.mark.parametrize("two_sided", [False, True])
def test_the_weights_of_a_patch_solve_the_problem_of_its_influences(project, psi, ranked, two_sided):
    """Criteria in their own standard deviations, over the rows that nobody touched."""
    removed = ranked[[-1, -5, 2]].tolist()
    free = np.setdiff1d(np.arange(len(ranked)), removed)
    target = psi[:, removed].sum(1) if two_sided else psi[:, removed].sum(1).clip(0)
    a, b, lasso, square = coefficients(psi[:, free], target, psi.std(1), 0.1, 1e-2)
    r = np.linalg.cholesky(a.T @ a + square * np.eye(len(free))).T
    truth = lsq_linear(r, np.linalg.solve(r.T, a.T @ b - lasso / 2), bounds=(0, 0.6), tol=1e-14)
    method = puma.Puma(sparsity=0.1, ridge=1e-2, weight_max=0.6, two_sided=two_sided)
    patch = patched(project, removed, ("cross_entropy", "brier"), method=method)
    np.testing.assert_allclose(patch.weights[free] - 1, truth.x, atol=1e-5)


@pytest.mark.parametrize("hold", [("cross_entropy",), ("cross_entropy", "brier")])
def test_compensation_cancels_most_of_an_adverse_change(project, ranked, hold):
    removed = ranked[-2:].tolist()  # the others hold three times what is lost
    held, naive = patched(project, removed, hold), patched(project, removed, hold, method="influence")
    for key in hold:
        assert naive.predicted[key] > 0
        assert abs(held.predicted[key]) < 0.2 * naive.predicted[key]
        assert abs(held.measured[key]) < 0.5 * naive.measured[key]


@pytest.mark.parametrize("removed", [slice(-1, None), slice(-2, None), slice(40, 45)])
def test_what_can_be_compensated_passes_its_rail_at_the_default_tolerance(project, ranked, removed):
    """The others hold three times what is lost or more: the criterion need not get worse."""
    patch = patched(project, ranked[removed].tolist(), tolerance={})
    assert patch.strength > 0
    assert patch.measured["cross_entropy"] <= 0


def test_improvements_are_kept_unless_the_paper_is_taken_literally(project, psi, ranked):
    removed = ranked[:4].tolist()
    one = patched(project, removed)
    both = patched(project, removed, method=puma.Puma(two_sided=True))
    gain = psi[0, removed].sum() / len(ranked)
    assert gain < 0
    assert one.diagnostics["compensating_rows"] == 0
    assert one.predicted["cross_entropy"] == pytest.approx(gain)
    assert abs(both.predicted["cross_entropy"]) < 0.2 * abs(gain)


def test_without_anything_held_puma_is_naive_removal(project, ranked):
    plain, naive = (patched(project, ranked[-3:].tolist(), (), method=key) for key in ("puma", "influence"))
    torch.testing.assert_close(plain.delta, naive.delta)
    assert plain.strength == 1


@pytest.mark.parametrize("halvings", [0, 1, 2, 4])
def test_strength_is_halved_until_the_measured_change_passes(project, reference, ranked, halvings):
    removed = ranked[-3:].tolist()
    e = np.isin(np.arange(reference.n), removed) * -1.0
    delta, before = reference.delta(e, damping=0.05), reference.criterion()
    changes = [float(reference.criterion(theta=reference.theta + 2.0**-h * delta) - before) for h in range(6)]
    assert all(np.diff(changes) < 0)
    just = {"cross_entropy": (changes[halvings] + changes[halvings + 1] * 1e-3)}
    patch = patched(project, removed, tolerance=just, method=puma.Puma(weight_max=0.0))
    assert patch.strength == 2.0**-halvings
    assert patch.measured["cross_entropy"] == pytest.approx(changes[halvings])
    torch.testing.assert_close(patch.delta, patch.strength * delta)
    assert patch.diagnostics["binding"] == (None if halvings == 0 else "cross_entropy")


def test_the_criterion_that_binds_is_named(project, ranked):
    for tight, loose in (("cross_entropy", "brier"), ("brier", "cross_entropy")):
        patch = patched(
            project,
            ranked[-4:].tolist(),
            ("cross_entropy", "brier"),
            {tight: 0.0, loose: 9.0},
            puma.Puma(weight_max=0.0),
        )
        assert (patch.strength, patch.diagnostics["binding"]) == (0, tight)


def test_an_impossible_plan_changes_nothing(project, reference, ranked):
    patch = patched(project, ranked[-4:].tolist(), tolerance={}, method=puma.Puma(weight_max=0.0))
    assert patch.strength == 0
    assert not patch.delta.any()
    assert torch.equal(flat(patch.model), reference.theta)
    assert patch.predicted == patch.measured == {"cross_entropy": 0}
    assert patch.diagnostics["binding"] == "cross_entropy"


def test_a_patch_that_breaks_the_outputs_is_refused(project, ranked):
    """Strength beyond all reason: outputs overflow, the rails fall back to one that is finite."""
    patch = patched(project, ranked[-4:].tolist(), hold=(), strength=1e308)
    assert torch.isfinite(patch.delta).all()
    assert torch.isfinite(Reference(trained()).outputs(project.validation.inputs, flat(patch.model))).all()


def test_a_criterion_that_is_no_number_does_not_pass():
    """Validation outputs stay finite, those of one test row do not: NaN is no improvement."""
    case = CASES["one logit"]
    x, y = (np.concatenate(parts) for parts in zip(case.validation, case.train, strict=True))
    x[30:32], y[30:32] = [[1e150] * 3, [-1e150] * 3], 1  # one logit becomes +inf: its loss is inf - inf
    model = torch.nn.Sequential(torch.nn.Linear(3, 1)).double()
    project = case.but(model=model).project(test=puma.Split(x, y))
    hold = puma.CrossEntropy(split="test", rows=range(20, 36))
    plan = puma.PatchPlan(remove=(1, 2), hold=(hold,), tolerance={hold.name: 9e299}, strength=1e161)
    patch = puma.patch(project, plan, curvature=CURVATURE)
    assert np.isfinite(patch.measured[hold.name])


@pytest.mark.parametrize("method", ["puma", "influence"])
def test_relabel_is_removal_and_the_row_with_its_new_label(project, reference, method):
    row = 7
    label = int(reference.y[row] + 1) % 3
    relabelled = reference.y.clone()
    relabelled[row] = label
    patch = patched(project, hold=("cross_entropy",), relabel={row: label}, method=method)
    moved = reference.gradients()[row] - reference.gradients(targets=relabelled)[row]
    others = patch.weights - 1
    assert others[row] == 0
    delta = torch.linalg.solve(reference.b(0.05), moved) / reference.n + reference.delta(others, damping=0.05)
    torch.testing.assert_close(patch.delta, delta)
    predicted = float(reference.criterion_gradient() @ delta)
    assert patch.predicted["cross_entropy"] == pytest.approx(predicted)


def test_relabelling_to_the_truth_helps():
    """A flipped label put right: the criterion falls, as it does by removing the row."""
    case = trained()
    y = case.train[1].copy()
    sure = int(Reference(case).losses(*case.train).argmin())
    y[sure] = (y[sure] + 1) % 3
    start = Reference(case.but(train=(case.train[0], y)))
    noisy = start.case.but(model=start.model_at(start.descend()))
    removed, mended = (
        puma.patch(
            noisy.project(),
            puma.PatchPlan(hold=("cross_entropy",), method="influence", **change),
            curvature=CURVATURE,
        )
        for change in ({"remove": (sure,)}, {"relabel": {sure: int(case.train[1][sure])}})
    )
    before = Reference(noisy).criterion()
    for patch in (removed, mended):
        assert Reference(noisy).criterion(theta=flat(patch.model)) < before


def test_what_the_whole_strength_would_have_cost_is_kept():
    """Weakened by its rails, the patch still says what each criterion measured at the strength asked for."""
    case = trained()
    project = case.project(validation=puma.Split(*(part[:12] for part in case.train)))
    hold = ("cross_entropy", "brier")
    plan = {"remove": range(12), "hold": hold, "tolerance": {"cross_entropy": 0.05}}
    weakened = puma.patch(
        project, puma.PatchPlan(**plan, method=puma.Puma(weight_max=0.0)), curvature=CURVATURE
    )
    whole = puma.patch(project, puma.PatchPlan(**plan, method="influence"), curvature=CURVATURE)
    assert weakened.strength < 1
    assert weakened.diagnostics["at_full_strength"] == pytest.approx(whole.measured)
