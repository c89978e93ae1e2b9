"""Inverses: dense and by products, exact and Gauss-Newton, and what they say of themselves."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.curvature import inverse_of
from puma_dash.core.engine import Engine

from .cases import CASES, CONVEX, Reference, case, mlp

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def reference():
    return Reference(CASES["weighted softmax"])


@pytest.fixture
def engine(reference):
    return Engine(reference.case.project())


def right_hand_sides(p, k=3):
    return torch.randn(k, p, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_solutions(name, damping):
    """B = G + (wd + damping) I, for several right-hand sides at once."""
    reference = Reference(CASES[name])
    engine, b = Engine(reference.case.project()), reference.b(damping)
    v = right_hand_sides(len(b))
    for curvature in (puma.Dense(damping=damping), puma.ConjugateGradient(damping=damping, tolerance=1e-10)):
        solution = inverse_of(engine, curvature)(v)
        close(solution.x, torch.linalg.solve(b, v.T).T, rtol=1e-6, atol=1e-7)
        assert solution.residual <= 1e-10


@pytest.mark.parametrize("tolerance", [0.1, 1e-3])
def test_conjugate_gradients_stop_at_their_tolerance(engine, reference, tolerance):
    v = right_hand_sides(len(reference.theta))
    solution = puma.ConjugateGradient(damping=0.01, tolerance=tolerance)(engine)(v)
    missed = (solution.x @ reference.b(0.01) - v).norm(dim=1) / v.norm(dim=1)
    assert solution.residual == pytest.approx(float(missed.max()))
    assert missed.max() <= tolerance
    assert 0 < solution.iterations < len(reference.theta)


def test_unfinished_conjugate_gradients_say_so(engine, reference):
    v = right_hand_sides(len(reference.theta))
    solution = puma.ConjugateGradient(tolerance=1e-10, max_iterations=3)(engine)(v)
    assert solution.iterations == 3
    assert solution.residual > 1e-4


def test_the_residual_is_the_true_one_where_rounding_ends_progress(reference):
    """The recurrence of conjugate gradients goes on falling when |B x - v| no longer does."""
    hard = reference.case.but(weight_decay=1e-9)
    v = right_hand_sides(len(reference.theta), 1)
    solution = puma.ConjugateGradient(damping=0.0, tolerance=1e-12, max_iterations=2_000)(
        Engine(hard.project())
    )(v)
    true = float((solution.x @ Reference(hard).b() - v).norm() / v.norm())
    assert solution.residual == pytest.approx(true, rel=0.5)


@pytest.mark.parametrize("kind", [puma.Dense, puma.ConjugateGradient])
def test_zero_is_solved_by_zero(engine, kind):
    solution = kind(damping=0.1)(engine)(torch.zeros(1, len(engine.theta)).double())
    assert not solution.x.any()
    assert solution.residual == 0


def test_curvature_rows_are_averaged_over_themselves():
    """All rows alike: any number of them has the same mean."""
    alike = CASES["regression"].rows(np.repeat(5, 22))
    v = right_hand_sides(len(Reference(alike).theta))
    engine = Engine(alike.project())
    whole, few = (puma.ConjugateGradient(tolerance=1e-10, rows=rows)(engine)(v).x for rows in (None, 4))
    close(few, whole, rtol=1e-6, atol=1e-6)


def test_curvature_rows_are_drawn_by_the_seed(engine):
    v = right_hand_sides(len(engine.theta))
    first, again, other = (puma.ConjugateGradient(rows=8, seed=seed)(engine)(v).x for seed in (0, 0, 1))
    close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("name", CONVEX)
def test_exact_hessian_is_gauss_newton_for_linear_models(name):
    project = CONVEX[name].project()
    key = "squared_error" if CONVEX[name].loss == "squared_error" else "cross_entropy"
    kinds = [
        puma.Dense(damping=0.01),
        puma.Dense(damping=0.01, matrix="hessian"),
        puma.ConjugateGradient(damping=0.01, matrix="hessian", tolerance=1e-11),
    ]
    plain, *exact = (puma.value(project, criterion=key, curvature=kind).scores for kind in kinds)
    for scores in exact:
        np.testing.assert_allclose(scores, plain, rtol=1e-7, atol=1e-9)


def test_exact_hessian_with_enough_damping(reference):
    damping = 1 - float(torch.linalg.eigvalsh(reference.hessian()).min())
    expected = reference.psi(damping=damping, matrix="hessian")
    for kind in (puma.Dense, puma.ConjugateGradient):
        more = {} if kind is puma.Dense else {"tolerance": 1e-11}
        curvature = kind(damping=damping, matrix="hessian", **more)
        scores = puma.value(reference.case.project(), curvature=curvature).scores
        np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("kind", [puma.Dense, puma.ConjugateGradient])
def test_negative_curvature_is_refused(reference, kind):
    assert torch.linalg.eigvalsh(reference.b(0.0, "hessian")).min() < 0
    with pytest.raises(puma.ProjectError, match=r"curvature.*ggn.*damping"):
        puma.value(reference.case.project(), curvature=kind(damping=0.0, matrix="hessian"))


def test_a_singular_matrix_is_refused():
    """Softmax logits may all be shifted: without weight decay and damping B is singular."""
    project = CONVEX["softmax"].project(weight_decay=0.0)
    with pytest.raises(puma.ProjectError, match="damping"):
        puma.value(project, curvature=puma.Dense(damping=0.0))


def test_automatic_choice():
    small, large = CASES["softmax"], case(mlp(3, 90, 60, 3), (3,), 3)
    assert inverse_of(Engine(small.project()), "auto").facts["curvature"] == "dense Cholesky"
    assert inverse_of(Engine(large.project()), "auto").facts["curvature"] == "conjugate gradient"


def test_facts(engine, reference):
    facts = inverse_of(engine, puma.Dense(damping=0.05)).facts
    expected = {"damping": 0.05, "weight_decay": 0.02, "rows": 22, "parameters": len(reference.theta)}
    assert expected.items() <= facts.items()
    assert inverse_of(engine, puma.ConjugateGradient(rows=9)).facts["rows"] == 9
