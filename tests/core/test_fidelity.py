"""Conjugate gradients to a stated fidelity: the correlation of psi with that of the dense matrix."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

import puma_dash as puma
from puma_dash.core.curvature import PATCH_FIDELITY, PATCH_ROWS, Auto, for_patches
from puma_dash.core.curvature import conjugate_gradient as solver
from puma_dash.core.curvature.dense import gauss_newton_matrix
from puma_dash.core.curvature.sampling import sample_rows
from puma_dash.core.engine import Engine

from .cases import Case, Reference, mlp

close = torch.testing.assert_close
DAMPING = 0.002
N = 4_000


@functools.cache
def sure(n=N) -> Case:
    """A network with labels drawn from its own predictions: its Gauss-Newton matrix is that of its losses."""
    model, rng = mlp(4, 8, 3, seed=2), np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)

    def drawn(m):
        x = rng.standard_normal((m, 4))
        p = model(torch.as_tensor(x)).softmax(1).detach().numpy()
        return x, (p.cumsum(1) < rng.random((m, 1))).sum(1)

    return Case(model, "cross_entropy", drawn(n), drawn(400), weight_decay=0.01)


class Exact:
    """B, grad C and psi of ``sure``, all rows at once."""

    def __init__(self, n=N):
        reference = Reference(sure(n))
        self.n, self.theta = n, reference.theta
        self.jacobians = vmap(
            jacrev(lambda t, x: reference.outputs(x[None], t)[0]), (None, 0)
        )(reference.theta, reference.x)  # fmt: skip
        p = reference.outputs(reference.x).softmax(1).detach()
        self.h = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        errors = p - torch.eye(3).double()[reference.y]
        self.v = reference.criterion_gradient()
        self.b = self.on(torch.arange(n), torch.ones(n).double())
        self.x = torch.linalg.solve(self.b, self.v)
        self.psi = torch.einsum("ncp,nc,p->n", self.jacobians, errors, self.x).numpy()

    def on(self, rows, weights):
        """B of weighted rows."""
        part = torch.einsum(
            "n,ncp,ncd,ndq->pq", weights, self.jacobians[rows], self.h[rows], self.jacobians[rows]
        )
        return part / self.n + (0.01 + DAMPING) * torch.eye(len(self.theta)).double()

    def error(self, x):
        """|x - B^-1 v|^2 / |B^-1 v|^2 in the norm of B."""
        missed = x - self.x
        return float(missed @ self.b @ missed / (self.x @ self.v))


@pytest.fixture(scope="module")
def exact():
    return Exact()


@pytest.fixture
def engine():
    return Engine(sure().project())


def asking(fidelity, **more):
    return puma.ConjugateGradient(damping=DAMPING, fidelity=fidelity, **more)


@pytest.mark.parametrize("preconditioner", [None, 20])
@pytest.mark.parametrize("fidelity", [0.8, 0.95, 0.99, 0.999])
def test_what_is_reported_is_the_correlation_with_exact_psi(exact, fidelity, preconditioner):
    valuation = puma.value(sure().project(), curvature=asking(fidelity, preconditioner=preconditioner))
    reported, correlation = valuation.diagnostics["fidelity"], np.corrcoef(valuation.scores, exact.psi)[0, 1]
    assert fidelity <= reported <= 1
    assert abs(reported - correlation) < 0.02
    assert abs(reported - correlation) < 0.75 * (1 - fidelity)


def test_all_rows_leave_the_error_of_the_solver(exact, engine):
    """Solves stop once the error in the norm of B is the one allowed: no earlier, and not much later."""
    for fidelity in (0.8, 0.95, 0.99, 0.999, 0.9999):
        inverse = asking(fidelity, preconditioner=20, rows=N)(engine)
        solution = inverse(exact.v[None])
        error = exact.error(solution.x[0])
        assert solution.facts["rows"] == N
        assert 0.2 * (1 - fidelity**2) < error < 1.5 * (1 - fidelity**2)


@pytest.mark.parametrize("preconditioner", [None, 20])
def test_a_sample_is_honest_on_average(monkeypatch, exact, engine, preconditioner):
    monkeypatch.setattr(solver, "ROWS_TIMES_ERROR", 60)
    reported, true = [], []
    for seed in range(0, 200, 10):  # seeds that follow share a sample
        inverse = asking(0.95, seed=seed, preconditioner=preconditioner)(engine)
        solution = inverse(exact.v[None])
        true.append(math.sqrt(1 - exact.error(solution.x[0])))
        reported.append(solution.facts["fidelity"])
        assert solution.facts["rows"] < N / 2
        assert 0.95 <= reported[-1] <= 1
    assert np.mean(reported) == pytest.approx(np.mean(true), abs=0.01)
    assert min(true) > 0.9


def test_the_error_on_two_other_samples_is_unbiased(exact, engine):
    """One sample would add its own noise, which is many times the error that is sought."""
    precondition = solver.preconditioner(engine, 0.01 + DAMPING)
    v, x = exact.v[None], exact.x[None] + 0.12 * exact.x.flip(0)
    size = (v * precondition(v)).sum(1)
    r = v - x @ exact.b
    expected = float((r * precondition(r)).sum() / size)
    crossed, own = [], []
    for seed in range(0, 3_000, 10):
        system = solver.System(asking(0.9, seed=seed, rows=320), engine, None, DAMPING)
        crossed.append(system._error_elsewhere(v, x))
        a = v - system._draw(80, seed + 1)(x) - system.shift * x
        own.append(float((a * precondition(a)).sum() / size))
    noise = np.std(crossed) / len(crossed) ** 0.5
    assert np.mean(crossed) == pytest.approx(expected, abs=4 * noise)
    assert noise < 0.1 * expected
    assert np.mean(own) > 2 * expected


def test_the_worst_of_several_systems_is_reported(exact, engine):
    v = torch.stack([exact.v, exact.v.flip(0)])
    x = torch.stack([exact.x, torch.zeros_like(exact.x)])  # one solved, one not at all
    system = solver.System(asking(0.9, rows=2_000), engine, None, DAMPING)
    assert system._error_elsewhere(v, x) == pytest.approx(1, abs=1e-9)


def test_rows_grow_until_they_are_enough(monkeypatch, exact):
    """By what is missing, at least twofold; the next question and the estimate start with what it took."""
    monkeypatch.setattr(solver, "ROWS_TIMES_ERROR", 2)
    curvature, engine, drawn = asking(0.99, preconditioner=40), Engine(sure().project()), []
    draw, allowed = solver.System._draw, 1 - 0.99**2
    errors = [share * allowed for share in (5.01, 1.1, 0.9, 0.9)]
    monkeypatch.setattr(
        solver.System, "_draw", lambda self, rows, seed: drawn.append(rows) or draw(self, rows, seed)
    )
    monkeypatch.setattr(solver.System, "_error_elsewhere", lambda *_: errors.pop(0))
    inverse = curvature(engine)
    found = inverse(exact.v[None])
    b = exact.on(*sample_rows(engine, 1_202, 0))
    missed = found.x[0] - torch.linalg.solve(b, exact.v)
    assert drawn == [100, 601, 1_202]
    assert found.facts["rows"] == 1_202
    assert found.facts["fidelity"] == pytest.approx(math.sqrt(1 - 0.9 * allowed))
    assert missed @ b @ missed < allowed * float(exact.v @ torch.linalg.solve(b, exact.v))
    curvature(engine)(exact.v[None])
    assert drawn[3:] == [1_202]
    assert "1,202 of" in curvature.estimate(engine).note


def test_all_rows_are_the_end_of_it(monkeypatch, exact, engine):
    monkeypatch.setattr(solver, "ROWS_TIMES_ERROR", 2)
    monkeypatch.setattr(solver.System, "_error_elsewhere", lambda *_: 1.0)
    inverse = asking(0.99)(engine)
    solution = inverse(exact.v[None])
    error = exact.error(solution.x[0])
    assert solution.facts["rows"] == N
    assert error < 1 - 0.99**2


@pytest.mark.parametrize("error", [-0.2, 0.0])
def test_an_estimated_error_below_zero_is_no_more_than_fidelity_one(monkeypatch, exact, engine, error):
    monkeypatch.setattr(solver, "ROWS_TIMES_ERROR", 2)
    monkeypatch.setattr(solver.System, "_error_elsewhere", lambda *_: error)
    inverse = asking(0.99)(engine)
    assert inverse(exact.v[None]).facts["fidelity"] == 1


def test_an_estimate_after_the_answer():
    """What the engine has kept of the answer is not taken for a number of rows."""
    project, curvature = sure(500).project(), asking(0.9)
    puma.value(project, curvature=curvature)
    assert puma.estimate(project, curvature).seconds > 0


@pytest.mark.parametrize("seed", [0, 5])
def test_rows_that_are_given_are_kept(exact, engine, seed):
    """Then the error is that on them, and no fidelity is claimed."""
    inverse = asking(0.999, rows=150, seed=seed)(engine)
    solution = inverse(exact.v[None])
    b = exact.on(*sample_rows(engine, 150, seed))
    missed = solution.x[0] - torch.linalg.solve(b, exact.v)
    assert solution.facts == {"rows": 150}
    assert missed @ b @ missed < 2 * (1 - 0.999**2) * float(exact.v @ torch.linalg.solve(b, exact.v))
    assert exact.error(solution.x[0]) > 20 * (1 - 0.999**2)


@pytest.mark.parametrize("fidelity", [0.6, 0.9999])
def test_without_a_preconditioner_the_tolerance_holds(exact, engine, fidelity):
    """Without one the error in the norm of B is not known."""
    inverse = asking(fidelity, preconditioner=0, tolerance=1e-3)(engine)
    plain = puma.ConjugateGradient(damping=DAMPING, preconditioner=0, tolerance=1e-3)(engine)
    solution = inverse(exact.v[None])
    close(solution.x, plain(exact.v[None]).x)
    assert solution.facts == {"rows": N}
    assert inverse.facts["preconditioner_rows"] == 0
    missed = float((solution.x[0] @ exact.b - exact.v).norm() / exact.v.norm())
    assert 1e-5 < missed <= 1e-3 * (1 + 1e-6)


def test_a_higher_fidelity_costs_more_products(exact, engine):
    needed = [
        asking(fidelity, preconditioner=20)(engine)(exact.v[None]).iterations
        for fidelity in (0.6, 0.99, 0.99999)
    ]
    assert needed == sorted(set(needed))


def test_elsewhere_no_fidelity_is_claimed(exact, engine):
    """The preconditioner is that of theta_org."""
    inverse = asking(0.9)(engine, engine.theta + 0.01)
    solution = inverse(exact.v[None])
    assert solution.facts["rows"] < N
    assert "fidelity" not in solution.facts


@functools.cache
def demo(name):
    """A demo without weight decay on the CPU, its Gauss-Newton matrix and grad C."""
    project = dataclasses.replace(puma.load(name), weight_decay=0.0)
    engine = Engine(project, device="cpu")
    return engine, gauss_newton_matrix(engine), engine.criterion_gradient(puma.CrossEntropy())[1]


@pytest.mark.parametrize("fidelity", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("damping", [1e-6, 1e-4, 1e-2, 1e-1])
@pytest.mark.parametrize("name", ["two-moons", "digits"])
def test_tiny_damping_claims_no_more_than_it_reaches(name, damping, fidelity):
    """There the preconditioner is far from B^-1, and samples of rows miss what matters."""
    engine, g, v = demo(name)
    solution = puma.ConjugateGradient(damping=damping, fidelity=fidelity)(engine)(v[None])
    x = torch.linalg.solve(g + damping * torch.eye(len(v)).to(g), v)
    missed = solution.x[0] - x
    true = math.sqrt(1 - float(missed @ (g @ missed + damping * missed)) / float(x @ v))
    psi = [engine.directional_scores(s[None])[0].numpy() for s in (x, solution.x[0])]
    reported = solution.facts["fidelity"]
    assert fidelity <= reported <= true + 0.3 * (1 - fidelity)
    assert reported <= np.corrcoef(*psi)[0, 1] + 0.3 * (1 - fidelity)
    assert (solution.facts["rows"] == engine.n) or damping > 1e-3


@pytest.mark.parametrize("seed", [0, 10])
def test_tiny_damping_takes_all_rows(seed):
    """On a sample the same question claims .64 and .82, where .20 and .55 are reached."""
    engine, _, v = demo("digits")
    curvature = puma.ConjugateGradient(damping=1e-4, fidelity=0.6, preconditioner=100, seed=seed)
    assert curvature(engine)(v[None]).facts["rows"] == engine.n


def test_a_system_that_is_not_finished_says_so():
    engine, _, v = demo("digits")
    curvature = puma.ConjugateGradient(damping=1e-6, fidelity=0.99, max_iterations=20)
    assert curvature(engine)(v[None]).facts["fidelity"] < 0.9


MANY, FEW = 2 * PATCH_ROWS + 1, 2 * PATCH_ROWS


def test_patches_ask_for_less():
    lowered = dataclasses.asdict(for_patches(asking(0.99, seed=3, preconditioner=7), MANY))
    kept = dataclasses.asdict(asking(PATCH_FIDELITY, seed=3, preconditioner=7))
    assert lowered == kept | {"rows": PATCH_ROWS}
    assert for_patches("auto", MANY) == Auto(fidelity=PATCH_FIDELITY, rows=PATCH_ROWS)
    assert for_patches("auto", FEW) == Auto(fidelity=PATCH_FIDELITY)
    assert for_patches(asking(0.99), FEW) == asking(PATCH_FIDELITY)


@pytest.mark.parametrize("n", [FEW, MANY])
def test_patches_leave_what_was_said(n):
    for curvature in (
        puma.ConjugateGradient(tolerance=1e-3),
        puma.ConjugateGradient(tolerance=1e-3, rows=500),
        puma.Dense(),
    ):
        assert for_patches(curvature, n) is curvature
    assert for_patches(asking(0.7, rows=500), n) == asking(0.7, rows=500)
    assert for_patches(asking(0.99, rows=8_000), n) == asking(PATCH_FIDELITY, rows=8_000)


def test_a_patch_of_fewer_rows_than_patches_usually_take():
    """And its forecast: both move along the direction of the dense matrix, to the fidelity of patches."""
    project, plan = sure(500).project(), puma.PatchPlan(remove=(1, 2, 3), method="influence")
    exact = puma.patch(project, plan, curvature=puma.Dense(damping=DAMPING)).delta
    delta = puma.patch(project, plan, curvature=asking(0.99)).delta
    b = Exact(500).b
    assert (delta - exact) @ b @ (delta - exact) < 1.5 * (1 - PATCH_FIDELITY**2) * float(exact @ b @ exact)
    predicted = puma.forecast(project, plan, ("brier",), curvature=asking(0.99)).refined["brier"]
    moved = puma.forecast(project, plan, ("brier",), curvature=puma.Dense(damping=DAMPING)).refined["brier"]
    assert predicted == pytest.approx(moved, rel=0.5)


def test_what_an_answer_says_of_itself_stays(engine):
    """Another question to the same inverse does not rewrite the diagnostics of the first."""
    project, options = engine.project, {"curvature": asking(0.9)}
    first = puma.value(project, **options).diagnostics["fidelity"]
    puma.value(project, criterion="brier", **options)
    assert puma.value(project, **options).diagnostics["fidelity"] == first
