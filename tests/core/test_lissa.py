"""LiSSA against dense solutions: its limit, its damping, its noise, and what it does when it diverges."""

import threading

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import puma_dash as puma
from puma_dash.core.engine import Engine

from .cases import CASES, Reference, case, mlp, trained

close = torch.testing.assert_close


def vectors(p, k=3):
    return torch.randn(k, p, generator=torch.Generator().manual_seed(1)).double()


def error(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.fixture(scope="module")
def reference():
    return Reference(CASES["weighted softmax"])


@pytest.fixture
def engine(reference):
    return Engine(reference.case.project())


@pytest.mark.parametrize(("damping", "scale"), [(0.3, "auto"), (0.4, 3.0)])
@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_the_dense_solution(name, damping, scale):
    """All rows in a batch: to rounding, with the true damping whatever the scale is."""
    reference = Reference(CASES[name])
    v = vectors(len(reference.theta))
    lissa = puma.LiSSA(damping=damping, rows=22, depth=200, scale=scale)
    solution = lissa(Engine(reference.case.project()))(v)
    close(solution.x, torch.linalg.solve(reference.b(damping), v.T).T, rtol=1e-9, atol=1e-10)
    assert solution.residual < 1e-10
    assert solution.iterations == 200


def test_each_term_is_one_of_the_series(reference, engine):
    """(1 / scale) sum_t (I - B / scale)^t v, written out."""
    v, b = vectors(len(reference.theta)), reference.b(0.1)
    step = torch.eye(len(b)).double() - b / 3.0
    expected = sum(torch.linalg.matrix_power(step, t) for t in range(6)) / 3.0
    solution = puma.LiSSA(damping=0.1, rows=22, depth=6, scale=3.0)(engine)(v)
    close(solution.x, v @ expected)
    missed = (solution.x @ b - v).norm(dim=1) / v.norm(dim=1)
    assert solution.residual == pytest.approx(float(missed.max()))


def test_depth_and_batch_bring_it_closer():
    some = trained(n=200)
    reference, engine = Reference(some), Engine(some.project())
    v = vectors(len(reference.theta))
    exact = torch.linalg.solve(reference.b(0.05), v.T).T

    def missed(**fields):
        return error(puma.LiSSA(damping=0.05, **fields)(engine)(v).x, exact)

    depths = [missed(rows=200, depth=depth) for depth in (3, 20, 100)]
    assert depths == sorted(depths, reverse=True)
    batches = [missed(rows=rows, depth=150) for rows in (5, 50, 200)]
    assert batches == sorted(batches, reverse=True)
    assert missed(rows=5, depth=150, samples=4) < 0.8 * missed(rows=5, depth=150)


def test_mini_batches_have_the_mean_of_all_rows():
    """Rows all alike: any of them has the curvature of all."""
    some = CASES["regression"].rows(np.repeat(5, 22))
    reference = Reference(some)
    v = vectors(len(reference.theta))
    for theta in (reference.theta, reference.theta + 0.3):
        solution = puma.LiSSA(damping=0.5, rows=3, depth=300)(Engine(some.project()), theta)(v)
        b = reference.ggn(theta) + 0.52 * torch.eye(len(theta)).double()
        close(solution.x, torch.linalg.solve(b, v.T).T, rtol=1e-9, atol=1e-10)


def test_mini_batches_are_drawn_by_the_seed(engine, reference):
    v = vectors(len(reference.theta))
    first, again, other = (puma.LiSSA(rows=5, depth=30, seed=seed)(engine)(v).x for seed in (0, 0, 1))
    close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


def test_batch_size_of_the_engine_does_not_matter(reference):
    v = vectors(len(reference.theta))
    whole, small = (
        puma.LiSSA(rows=9, depth=50)(Engine(reference.case.project(), batch_size=size))(v).x
        for size in (100, 4)
    )
    close(small, whole, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_scale_is_the_largest_eigenvalue(reference, engine, damping):
    facts = puma.LiSSA(damping=damping)(engine).facts
    largest = float(torch.linalg.eigvalsh(reference.b(damping)).max())
    assert 0.8 * largest < facts["largest_eigenvalue"] <= largest * (1 + 1e-9)
    assert facts["scale"] == facts["largest_eigenvalue"]
    assert facts["batch_rows"] == facts["residual_rows"] == 22


def test_a_scale_that_diverges_is_refused(reference, engine):
    v, largest = vectors(len(reference.theta)), float(torch.linalg.eigvalsh(reference.b(0.1)).max())
    with pytest.raises(puma.ProjectError, match=r"scale.*auto"):
        puma.LiSSA(damping=0.1, scale=0.45 * largest, depth=300)(engine)(v)
    assert puma.LiSSA(damping=0.1, scale=0.55 * largest, depth=300)(engine)(v).residual < 1e-6


def uneven():
    """One row carries the curvature: batches without it say nothing of it, those with it too much."""
    x, y = case(mlp(3, 3), (3,), 3, "squared_error", n=64).train
    x[7] *= 30
    return case(mlp(3, 3), (3,), 3, "squared_error", n=64).but(train=(x, y))


def test_an_automatic_scale_grows_with_the_noise_of_the_batches():
    engine = Engine(uneven().project())
    inverse = puma.LiSSA(damping=0.1, rows=4, depth=200)(engine)
    solution = inverse(vectors(len(engine.theta)))
    assert inverse.facts["scale"] >= 2 * inverse.facts["largest_eigenvalue"]
    assert solution.residual <= 1


def test_nothing_diverges_silently(monkeypatch):
    monkeypatch.setattr("puma_dash.core.curvature.lissa.ENLARGEMENTS", 0)
    engine = Engine(uneven().project())
    with pytest.raises(puma.ProjectError, match=r"worse than none.*more rows or a larger damping"):
        puma.LiSSA(damping=0.1, rows=4, depth=200)(engine)(vectors(len(engine.theta)))


def test_nothing_is_solved_by_nothing(engine):
    solution = puma.LiSSA(depth=10)(engine)(torch.zeros(2, len(engine.theta)).double())
    assert not solution.x.any()
    assert solution.residual == 0


def test_elsewhere_and_the_last_layer(reference):
    project, theta = reference.case.project(), reference.theta + 0.3
    v = vectors(len(theta))
    lissa = puma.LiSSA(damping=0.05, depth=500)
    shift = 0.07 * torch.eye(len(theta)).double()
    exact = torch.linalg.solve(reference.ggn(theta) + shift, v.T).T
    close(lissa(Engine(project), theta)(v).x, exact, rtol=1e-8, atol=1e-9)
    last = slice(20, 38)
    exact = torch.linalg.solve(reference.b(0.05)[last, last], v[:, last].T).T
    close(lissa(Engine(project, parameters="last"))(v[:, last]).x, exact, rtol=1e-8, atol=1e-9)


def test_single_precision(reference, engine):
    v = vectors(len(reference.theta))
    engine.dtype, engine.theta, engine.model = torch.float32, engine.theta.float(), engine.model.float()
    solution = puma.LiSSA(damping=0.05, depth=400)(engine)(v.float())
    assert solution.x.dtype == torch.float32
    assert error(solution.x.double(), torch.linalg.solve(reference.b(0.05), v.T).T) < 1e-4


def test_psi_is_ordered_like_the_exact_one():
    some = trained()
    scores = puma.value(some.project(), curvature=puma.LiSSA(damping=0.05, rows=20)).scores
    assert spearmanr(scores, Reference(some).psi(damping=0.05)).statistic > 0.95


def test_progress_and_cancellation(reference):
    ticks, stop = [], threading.Event()
    engine = Engine(reference.case.project()).listen(lambda *told: ticks.append(told), stop)
    inverse = puma.LiSSA(damping=0.01, depth=30)(engine)
    assert {message for *_, message in ticks} == {"Largest eigenvalue"}
    inverse(vectors(len(reference.theta)))
    assert ticks[-1] == (29, 30, "LiSSA")
    stop.set()
    with pytest.raises(puma.Cancelled):
        inverse(vectors(len(reference.theta)))
