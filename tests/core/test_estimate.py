"""Estimates before anything starts: what they grow with, what memory they name. Speed is never asserted."""

import dataclasses

import pytest
import torch

import puma_dash as puma
from puma_dash.core.curvature import CURVATURES, costs
from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.unlearning.estimate import patch_estimate

from .cases import CASES, case, convolution, mlp

KINDS = {
    **{key: kind() for key, kind in CURVATURES.items()},
    "dense hessian": puma.Dense(matrix="hessian"),
    "on some rows": puma.ConjugateGradient(rows=10),
    "to a fidelity": puma.ConjugateGradient(fidelity=0.9),
    "without preconditioner": puma.ConjugateGradient(preconditioner=0),
    "lissa on few rows": puma.LiSSA(rows=5, samples=2),
}
EVERY = pytest.mark.parametrize("curvature", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def _unit_costs(monkeypatch):
    """A forward pass costs 1 s per row and nothing per call, a multiplication 1 ns, on every machine."""
    monkeypatch.setattr(
        costs.Costs,
        "of",
        classmethod(lambda cls, engine: cls(engine, call=0.0, row=1.0, multiplication=1e-9)),
    )


def network(n=60, width=8, classes=3):
    return case(mlp(3, width, classes), (3,), classes, n=n)


@EVERY
def test_more_rows_and_parameters_cost_more(curvature):
    def found(**sizes):
        return curvature.estimate(Engine(network(**sizes).project()))

    small, rows, wide = found(), found(n=120), found(width=40)
    for estimate in (small, rows, wide):
        assert estimate.seconds > 0
        assert estimate.bytes > 0
        assert estimate.note
    assert rows.seconds >= small.seconds
    assert wide.bytes > small.bytes
    assert wide.seconds >= small.seconds


@EVERY
def test_nothing_is_factored_for_an_estimate(curvature, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", None)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)
    monkeypatch.setattr(Engine, "gauss_newton_product", None)
    engine = Engine(CASES["convolution"].project())
    assert curvature.estimate(engine) == curvature.estimate(engine)


def test_dense_memory_is_that_of_the_matrix():
    p = 3 * 2_000 + 2_000 + 2_000 * 3 + 3
    found = puma.Dense().estimate(Engine(network(width=2_000).project()))
    assert 3 * p * p * 8 <= found.bytes <= 4 * p * p * 8  # B, its factor, a copy at work


def test_dense_time_is_that_of_its_backward_passes_and_multiplications():
    engine = Engine(network(n=50).project())
    p, found = len(engine.theta), puma.Dense().estimate(engine)
    passes = 50 * (costs.RECORDED + 3 * costs.BACKWARD)
    assert found.seconds == pytest.approx(passes + 1e-9 * (50 * 3 * p**2 + p**3 / 3))


def test_conjugate_gradients_cost_their_products():
    engine = Engine(network(n=400).project())
    whole = puma.ConjugateGradient(preconditioner=0, tolerance=1e-2).estimate(engine)
    few = puma.ConjugateGradient(preconditioner=0, tolerance=1e-2, rows=40).estimate(engine)
    finer = puma.ConjugateGradient(preconditioner=0, tolerance=1e-3).estimate(engine)
    short = puma.ConjugateGradient(preconditioner=0, tolerance=1e-3, max_iterations=2).estimate(engine)
    assert whole.seconds == pytest.approx(10 * few.seconds, rel=0.01)
    assert 1.3 < finer.seconds / whole.seconds < 1.7
    assert short.seconds == pytest.approx(400 * (2 * costs.PRODUCT + costs.RECORDED), rel=0.01)
    assert few.bytes < whole.bytes


def test_fidelity_sets_the_rows():
    engine = Engine(network(n=10_000).project())
    coarse, fine = (puma.ConjugateGradient(fidelity=value).estimate(engine) for value in (0.9, 0.999))
    assert "1,578 of 10,000 rows" in coarse.note  # 300 / (1 - .9^2)
    assert "10,000 of 10,000 rows" in fine.note
    assert 4 * coarse.seconds < fine.seconds


def test_lissa_costs_its_depth():
    engine = Engine(network(n=400).project())
    deep, wide = puma.LiSSA(rows=10, depth=5_000), puma.LiSSA(rows=20, depth=5_000)
    once = deep.estimate(engine).seconds
    assert wide.estimate(engine).seconds == pytest.approx(2 * once, rel=0.2)
    twice = dataclasses.replace(deep, samples=2).estimate(engine).seconds
    assert twice == pytest.approx(2 * once, rel=0.2)


@pytest.mark.parametrize("kind", [puma.KFAC, puma.EKFAC])
def test_kronecker_factors_cost_their_sides(kind):
    """Memory grows with the squared sides, not with the number of parameters squared."""
    one, other = (kind().estimate(Engine(network(width=width).project())).bytes for width in (500, 2_000))
    assert 10 < other / one < 17
    assert other < 0.2 * puma.Dense().estimate(Engine(network(width=2_000).project())).bytes


@pytest.mark.parametrize(("kind", "times"), [(puma.KFAC, 1), (puma.EKFAC, 2)])
@pytest.mark.parametrize("c", [3, 12])
def test_kronecker_factors_cost_a_backward_pass_for_each_output(kind, times, c):
    found = kind().estimate(Engine(case(mlp(3, 8, c), (3,), c, n=60).project()))
    expected = times * (costs.RECORDED + c * costs.BACKWARD) + costs.RECORDED + costs.PRODUCT
    assert found.seconds == pytest.approx(60 * expected, rel=0.01)


def test_refitted_eigenvalues_cost_more():
    engine = Engine(case(convolution(), (1, 6, 6), 3).project())
    assert puma.EKFAC().estimate(engine).seconds > 1.5 * puma.KFAC().estimate(engine).seconds


def test_auto_estimates_what_it_takes():
    small, large = Engine(network().project()), Engine(case(mlp(3, 90, 60, 3), (3,), 3).project())
    assert CURVATURES["auto"]().estimate(small) == puma.Dense().estimate(small)
    assert CURVATURES["auto"]().estimate(large) == puma.ConjugateGradient(fidelity=0.99).estimate(large)


@EVERY
def test_of_one_criterion(curvature):
    """Curvature, gradient on validation, one pass over the training rows; only some parameters cost less."""
    project = network().project()
    settled = engine_of(project, "cpu").memo
    with_calibration = puma.estimate(project, curvature, device="cpu")
    settled["damping"] = 0.01
    whole, alone = puma.estimate(project, curvature, device="cpu"), curvature.estimate(Engine(project))
    assert (with_calibration.seconds > whole.seconds) == (curvature.damping == "auto")
    validation, training = 15 * (1 + costs.RECORDED + costs.BACKWARD), 60 * costs.FORWARD_MODE
    assert whole.seconds == pytest.approx(alone.seconds + validation + training)
    assert whole.bytes >= alone.bytes
    engine_of(project, "cpu", parameters="last").memo["damping"] = 0.01
    assert puma.estimate(project, curvature, device="cpu", parameters="last").bytes < whole.bytes


def test_by_name():
    project = network().project()
    for key, kind in CURVATURES.items():
        assert puma.estimate(project, key) == puma.estimate(project, kind())


def test_one_batch_is_timed_once(monkeypatch):
    monkeypatch.undo()
    project, rows = network(n=50).project(), []
    engine = engine_of(project)
    run = engine.forward
    engine.forward = lambda inputs, *more: rows.append(len(inputs)) or run(inputs, *more)
    engine.batch_size = 20
    first = puma.estimate(project)
    assert 0 < len(rows) <= 6
    assert max(rows) == 20
    assert 0 < first.seconds < 60
    assert puma.estimate(project) == first
    assert len(rows) <= 6


# --- patches ------------------------------------------------------------


def planned(project, **settings):
    return patch_estimate(
        project, puma.PatchPlan(**{"remove": (1, 2), "hold": ("cross_entropy",), **settings})
    )


def test_a_patch_costs_more_the_more_it_is_asked_for():
    project = network().project()
    plain = planned(project)
    assert plain.seconds > 0
    assert planned(project, steps=4).seconds > plain.seconds
    assert planned(project, hold=("cross_entropy", "brier")).seconds > plain.seconds
    assert planned(network(n=240).project()).seconds > plain.seconds


def test_what_is_known_is_not_counted_again():
    project = network().project()
    cold = planned(project)
    puma.value(project)
    warm = planned(project)
    assert warm.seconds < cold.seconds
    assert planned(project, hold="brier").seconds > warm.seconds
    puma.value(project, criterion="brier")
    assert planned(project, hold="brier").seconds == pytest.approx(warm.seconds)


def test_retraining_costs_its_epochs():
    project = network().project()

    def taking(epochs):
        recipe = puma.AdamRecipe(project.loss, epochs=epochs)
        return planned(dataclasses.replace(project, trainer=recipe), method="retrain").seconds

    assert taking(40) == pytest.approx(4 * taking(10))


def test_nobody_can_tell_how_long_a_trainer_of_ones_own_takes():
    project = dataclasses.replace(network().project(), trainer=lambda *_: None)
    with pytest.raises(puma.ProjectError, match="brings its own trainer"):
        planned(project, method="retrain")


def test_a_plan_that_does_not_fit_has_no_estimate():
    with pytest.raises(puma.ProjectError, match="training rows"):
        planned(network().project(), remove=(1_000,))
