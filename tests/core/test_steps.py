"""Relinearised steps: against retraining of a convex model, finite differences, and the one-step patch."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.engine import engine_of
from puma_dash.core.objective import LOSSES
from puma_dash.core.unlearning.base import chosen_change
from puma_dash.core.unlearning.steps import OBJECTIVES, relinearise

WD = 0.05


def fitted(model, inputs, targets, weights, weight_decay):
    """``model`` at the optimum of (1/n) sum w_i l_i + (wd/2) |theta|^2, by L-BFGS in float64."""
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(model(inputs), targets, reduction="none")
        penalty = sum(p.square().sum() for p in model.parameters())
        value = (weights * losses).mean() + weight_decay / 2 * penalty
        value.backward()
        return value

    optimizer.step(closure)
    return model


@pytest.fixture(scope="module")
def logistic():
    """A softmax regression at its optimum, with data of three overlapping classes."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(240, 5, generator=generator, dtype=torch.float64)
    scores = x @ torch.randn(5, 3, generator=generator, dtype=torch.float64)
    y = (scores + torch.randn(240, 3, generator=generator, dtype=torch.float64)).argmax(1)
    torch.manual_seed(0)
    model = fitted(torch.nn.Linear(5, 3).double(), x[:160], y[:160], torch.ones(160), WD)
    split = puma.Split
    return puma.Project(
        name="logistic",
        model=model,
        train=split(x[:160], y[:160]),
        validation=split(x[160:], y[160:]),
        weight_decay=WD,
    )


@pytest.fixture(scope="module")
def moons():
    return puma.load("two-moons")


def test_many_unseen_steps_reach_the_retrained_model_of_a_convex_problem(logistic):
    plan = puma.PatchPlan(
        remove=tuple(range(40)),
        upweight={50: 2.0},
        relabel={60: int(logistic.train.targets[60] + 1) % 3},
        steps=20,
    )
    patched = puma.patch(logistic, plan, curvature=puma.Dense())
    x, y = logistic.train.inputs, logistic.train.targets.clone()
    y[60] = plan.relabel[60]
    weights = torch.ones(160, dtype=torch.float64)
    weights[:40], weights[50] = 0, 3
    exact = fitted(torch.nn.Linear(5, 3).double(), x, y, weights, WD)
    for got, want in zip(patched.model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    straight = puma.patch(
        logistic, puma.PatchPlan(remove=plan.remove, upweight=plan.upweight, relabel=plan.relabel)
    )
    target = engine_of(logistic).theta_of(exact) - engine_of(logistic).theta
    assert (straight.delta - target).norm() > 100 * (patched.delta - target).norm()


@pytest.mark.parametrize("intent", OBJECTIVES)
def test_the_objective_starts_with_the_gradient_of_the_patch(moons, intent):
    engine = engine_of(moons)
    plan = puma.PatchPlan(remove=(1, 5, 9), upweight={3: 0.5}, strength=0.7)
    change = chosen_change(engine, plan)
    objective = OBJECTIVES[intent].of(engine, change, plan.strength, 0.01)
    expected = 0.7 / engine.n * engine.weighted_gradient(change.e, change.rows)
    torch.testing.assert_close(objective.at(engine.theta, gradient=True)[1], expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("intent", OBJECTIVES)
def test_the_gradient_is_that_of_the_value(moons, intent):
    engine = engine_of(moons)
    plan = puma.PatchPlan(remove=(1, 5, 9), upweight={3: 0.5}, relabel={8: 1 - int(moons.train.targets[8])})
    objective = OBJECTIVES[intent].of(engine, chosen_change(engine, plan), 1.0, 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        theta = engine.theta + 0.05 * torch.randn(len(engine.theta), generator=generator, dtype=torch.float64)
        way = torch.randn(len(engine.theta), generator=generator, dtype=torch.float64)
        way /= way.norm()
        step = 1e-5
        up, down = (objective.at(theta + t * way, gradient=False)[0] for t in (step, -step))
        slope = (up - down) / (2 * step)
        assert objective.at(theta, gradient=True)[0] == objective.at(theta, gradient=False)[0]
        assert float(objective.at(theta, gradient=True)[1] @ way) == pytest.approx(slope, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("intent", OBJECTIVES)
def test_steps_never_raise_the_objective_and_keep_removing(moons, intent):
    rows = puma.value(moons).harmful(60)
    removed = []
    for steps in (1, 2, 4):
        patched = puma.patch(moons, puma.PatchPlan(remove=rows, steps=steps, intent=intent))
        engine = engine_of(moons)
        objective = OBJECTIVES[intent].of(engine, chosen_change(engine, patched.plan), 1.0, 0.01)
        removed.append(objective.at(engine.theta_of(patched.model), gradient=False)[0])
    if intent == "unseen":
        assert removed[0] >= removed[1] - 1e-9 >= removed[2] - 2e-9
    assert removed[2] < objective.at(engine.theta, gradient=False)[0]


def test_a_few_steps_come_closer_to_retraining_than_one(moons):
    rows = puma.value(moons).harmful(80)
    nll = {}
    for name, plan in {
        "before": None,
        "one": puma.PatchPlan(remove=rows),
        "three": puma.PatchPlan(remove=rows, steps=3),
        "retrained": puma.PatchPlan(remove=rows, method="retrain"),
    }.items():
        if plan is not None:
            nll[name] = puma.compare(moons, puma.patch(moons, plan), "test").metrics.loc["nll", "after"]
    assert nll["three"] < nll["one"]
    assert abs(nll["three"] - nll["retrained"]) < 0.03


def test_forgetting_leaves_the_retained_rows_as_they_are():
    project = puma.load("radial")
    cluster = np.flatnonzero(project.train.meta["cluster"] == 0)
    plan = puma.PatchPlan(remove=cluster, intent="forget", steps=6, strength=3.0)
    patched = puma.patch(project, plan)
    right = {}
    for name, model in (("before", project.model), ("after", patched.model)):
        predicted = model(project.train.inputs).argmax(1) == project.train.targets
        marked = torch.tensor((project.train.meta["cluster"] == 0).tolist())
        right[name] = (float(predicted[marked].double().mean()), float(predicted[~marked].double().mean()))
    assert right["before"][0] > 0.95
    assert right["after"][0] < 0.5
    assert right["after"][1] > 0.95


@pytest.mark.parametrize("name", LOSSES)
def test_divergences_are_zero_flat_and_curved_like_the_loss(name):
    loss = LOSSES[name]()
    generator = torch.Generator().manual_seed(0)
    width, targets = 1 if name == "binary_cross_entropy" else 4, torch.zeros(6, dtype=torch.long)
    reference = torch.randn(6, width, generator=generator, dtype=torch.float64)
    vector = torch.randn(6, width, generator=generator, dtype=torch.float64)
    step = 1e-4

    def along(t):
        return loss.divergence(reference, reference + t * vector, targets)

    assert along(0.0).abs().max() < 1e-14
    slope = (along(step) - along(-step)) / (2 * step)
    assert slope.abs().max() < 1e-6
    curvature = (along(step) - 2 * along(0.0) + along(-step)) / step**2
    expected = (vector * loss.hessian_product(reference, targets, vector)).sum(-1)
    torch.testing.assert_close(curvature, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trains", [True, False])
def test_only_steps_that_might_train_are_bounded_by_the_first(moons, trains):
    """A bowl whose minimum is far from where a short first step goes."""
    engine = engine_of(moons)
    far = engine.theta + 1.0

    class Bowl:
        def at(self, theta, gradient):
            return float((theta - far) @ (theta - far)) / 2, theta - far

    Bowl.trains = trains
    slope = engine.theta - far
    theta, lengths, _ = relinearise(engine, Bowl(), puma.Dense(damping=1.0), -1e-3 * slope, slope, 3)
    moved = float((theta - engine.theta).norm() / (far - engine.theta).norm())
    assert len(lengths) == 3
    assert (moved < 0.2) == trains
