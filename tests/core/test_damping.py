"""Damping "auto": 0 where B is positive definite without it, else the least at which predictions hold."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.curvature import damping as settled
from puma_dash.core.curvature import inverse_of
from puma_dash.core.curvature.sampling import systematic
from puma_dash.core.engine import Engine

from .cases import CASES, CONVEX, Reference, ignorance, trained


def chosen(project):
    return inverse_of(Engine(project), "auto").facts["damping"]


@pytest.mark.parametrize("name", CONVEX)
def test_linear_models_with_weight_decay_need_none(name):
    assert chosen(CONVEX[name].project()) == 0


def scale_of(reference):
    """The variance of values, or what a row weighs by its class on average."""
    c = max(2, reference.outputs(reference.x).shape[1])
    return ignorance(reference.case.loss, reference.y, c) / (np.log(c) if reference.y.ndim == 1 else 1)


@pytest.mark.parametrize("case", [*CASES.values(), trained()], ids=[*CASES, "trained"])
def test_the_least_at_which_predictions_hold(case):
    """The rule written out with dense algebra; between two values of the grid the miss is interpolated."""
    reference = Reference(case)
    losses = reference.losses(reference.x, reference.y) * reference.a
    removals = [
        systematic(losses, round(settled.SHARE_REMOVED * reference.n), seed)[0]
        for seed in range(settled.PROBES)
    ]
    slope, now = reference.criterion_gradient(), reference.criterion()

    def miss(damping):
        total = scale = 0.0
        for rows in removals:
            e = torch.zeros(reference.n).double()
            e[rows] = -1
            move = reference.delta(e, damping)
            total += abs(float(reference.criterion(theta=reference.theta + move) - now - slope @ move))
            scale += abs(float(slope @ move))
        return total / scale

    found = chosen(case.project())
    assert miss(found) <= 1.2 * settled.LARGEST_MISS
    if found > 1.01 * settled.GRID[0] * scale_of(reference):
        assert miss(found) >= 0.8 * settled.LARGEST_MISS


def test_rows_of_a_large_loss_are_the_ones_removed():
    case = CASES["softmax"]
    reference = Reference(case)
    tried, engine = [], Engine(case.project())
    weighted_gradient = engine.weighted_gradient
    engine.weighted_gradient = lambda weights, rows: tried.append(rows) or weighted_gradient(weights, rows)
    settled.calibrate(engine)
    losses = reference.losses(reference.x, reference.y)
    assert len(tried) == settled.PROBES
    assert losses[torch.cat(tried)].mean() > 1.05 * losses.mean()


class Rescaled(torch.nn.Module):
    """Outputs in another unit, of the same parameters."""

    def __init__(self, model, unit):
        super().__init__()
        self.model, self.unit = model, unit

    def forward(self, x):
        return self.unit * self.model(x)


def test_it_goes_with_the_unit_of_the_targets():
    """In cents for euros, loss, curvature and weight decay are 10 000 times as large, and so is it."""
    (x, y), (xv, yv) = CASES["regression"].train, CASES["regression"].validation
    cents = CASES["regression"].but(
        model=Rescaled(CASES["regression"].model, 100.0),
        train=(x, 100 * y),
        validation=(xv, 100 * yv),
        weight_decay=1e4 * CASES["regression"].weight_decay,
    )
    assert chosen(cents.project()) == pytest.approx(1e4 * chosen(CASES["regression"].project()), rel=0.05)


def test_it_goes_with_the_class_weights():
    heavy = CASES["softmax"].but(
        loss=puma.SoftmaxCrossEntropy(class_weights=(10, 10, 10)),
        weight_decay=10 * CASES["softmax"].weight_decay,
    )
    assert chosen(heavy.project()) == pytest.approx(10 * chosen(CASES["softmax"].project()), rel=0.05)


def test_it_is_settled_once_for_all_questions():
    project = CASES["softmax"].project()
    first = puma.value(project, criterion="brier").diagnostics["damping"]
    patched = puma.patch(project, puma.PatchPlan(remove=(3,)))
    assert patched.diagnostics["damping"] == first


def test_a_store_keeps_it(monkeypatch):
    project, kept = CASES["softmax"].project(), {}

    def store(name, compute):
        return kept.setdefault(name, None) or kept.update({name: compute()}) or kept[name]

    project.memo["store"] = store
    first = chosen(project)
    assert any(name.startswith("damping") for name in kept)
    monkeypatch.setattr(settled, "calibrate", lambda engine: pytest.fail("calibrated again"))
    assert chosen(project) == first
    np.testing.assert_equal([v["value"] for k, v in kept.items() if k.startswith("damping")], [first])


def answering(miss):
    """The damping that is found where ``miss`` says how far predictions are off."""
    engine = Engine(CASES["softmax"].project())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(settled, "_miss", lambda engine, damping, *_: miss(damping))
        return settled.calibrate(engine)


@pytest.mark.parametrize("least", [2e-4, 2e-3, 0.01, 0.024, 0.5, 8.1])
def test_between_two_values_the_miss_is_a_power_of_the_damping(least):
    assert answering(lambda d: settled.LARGEST_MISS * (least / d) ** 0.7) == pytest.approx(least, rel=0.01)


@pytest.mark.parametrize(("factor", "end"), [(0.5, settled.GRID[0]), (2.0, settled.GRID[-1])])
def test_the_search_ends_with_the_grid(factor, end):
    assert answering(lambda d: factor * settled.LARGEST_MISS) == end


@pytest.mark.parametrize("most", [11, 10_000])
def test_probes_of_large_models_are_solved_on_some_rows(monkeypatch, most):
    engine = Engine(CASES["softmax"].project())
    assert isinstance(settled._probing(engine, 0.1), puma.Dense)
    exact = settled.calibrate(engine)
    monkeypatch.setattr("puma_dash.core.curvature.DENSE_PARAMETERS", 0)
    monkeypatch.setattr(settled, "PROBE_ROWS", most)
    solve = settled._probing(engine, 0.1)
    assert (solve.damping, solve.rows) == (0.1, min(most, engine.n))
    assert solve.max_iterations == settled.PROBE_PRODUCTS
    assert settled.calibrate(engine) == pytest.approx(exact, rel=0.3)


def test_probes_without_a_preconditioner_go_on(monkeypatch):
    engine = Engine(CASES["softmax"].project())
    monkeypatch.setattr("puma_dash.core.curvature.DENSE_PARAMETERS", 0)
    monkeypatch.setattr("puma_dash.core.curvature.sample_space.preconditioner", lambda *_: None)
    assert settled._probing(engine, 0.1).max_iterations > 100
