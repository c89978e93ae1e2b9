"""Relinearised steps against objectives written out anew: where they end, the gradient is zero."""

import functools

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

import puma_dash as puma
from puma_dash.core.plan import INTENTS

from .cases import CASES, CONVEX, Reference, another, bregman, converged, flat

DAMPING = 0.05
CURVATURE = puma.Dense(damping=DAMPING)
REMOVED, RAISED = (1, 6), {7: 0.5}


@functools.cache
def near_minimum(name):
    """A network a little beside a minimum of J."""
    start = Reference(CASES[name])
    theta = start.descend()
    aside = 0.02 * torch.linspace(-1, 1, len(theta)).double().roll(5)
    assert gradient_of(start.objective, theta + aside).norm() > 1e-4
    return start.case.but(model=start.model_at(theta + aside))


def gradient_of(value, theta):
    return jacobian(value, theta)


def changed_labels(reference, relabel):
    labels = reference.y.clone()
    for row, label in relabel.items():
        labels[row] = torch.tensor(label, dtype=labels.dtype)
    return labels


def changed_loss(reference, e, relabel, labels, theta):
    """sum_j e_j a_j l_j over the changed rows; a relabelled row leaves as it was and comes as it will be."""
    losses = reference.losses(reference.x, reference.y, theta)
    changed = (e * reference.a) @ losses
    for row in relabel:
        fresh = reference.losses(reference.x[row : row + 1], labels[row : row + 1], theta)[0]
        changed = changed + reference.a[row] * (fresh - losses[row])
    return changed


def unseen(reference, e, relabel, tau):
    """Q: the re-weighted objective, flat at theta_org without the change."""
    own = gradient_of(reference.objective, reference.theta)
    labels = changed_labels(reference, relabel)

    def value(theta):
        move, changed = theta - reference.theta, changed_loss(reference, e, relabel, labels, theta)
        return reference.objective(theta) + tau / reference.n * changed - own @ move

    return value


def forget(reference, e, relabel, tau):
    """Q: the retained rows' predictions stay, the removed rows' losses rise."""
    before = reference.outputs(reference.x).detach()
    kept = reference.a * (e >= 0)
    kept[list(relabel)] = 0
    labels = changed_labels(reference, relabel)

    def value(theta):
        move, changed = theta - reference.theta, changed_loss(reference, e, relabel, labels, theta)
        now = reference.outputs(reference.x, theta)
        held = kept @ bregman(reference.case.loss, before, now, reference.y) / reference.n
        near = (reference.case.weight_decay + DAMPING) / 2 * move @ move
        return held + near + tau / reference.n * changed

    return value


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("intent", [unseen, forget])
@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "smoothed one logit"])
def test_many_steps_end_where_the_objective_is_flat(name, intent, tau):
    ends_flat(near_minimum(name), intent, tau)


@pytest.mark.parametrize("intent", [unseen, forget])
def test_steps_of_a_regression_end_where_the_objective_is_flat(intent):
    """Squared errors rise fast: at a third of the strength no removed row reaches its cap."""
    ends_flat(near_minimum("regression"), intent, 0.3)


def ends_flat(case, intent, tau):
    """At a model that is not quite at its minimum: nothing but the change may move it."""
    reference = Reference(case)
    classes = max(2, reference.outputs(reference.x).shape[1])
    relabel = {10: another(reference.y, 10, classes)}
    e = torch.zeros(reference.n).double()
    e[list(REMOVED)], e[7] = -1, 0.5
    value = intent(reference, e, relabel, tau)
    plan = puma.PatchPlan(
        remove=REMOVED, upweight=RAISED, relabel=relabel, intent=intent.__name__, strength=tau, steps=100
    )
    patch = puma.patch(case.project(), plan, curvature=CURVATURE)
    start, end = (gradient_of(value, theta) for theta in (reference.theta, reference.theta + patch.delta))
    assert end.norm() < 2e-3 * start.norm()
    assert value(reference.theta + patch.delta) < value(reference.theta)


@pytest.mark.parametrize("name", CONVEX)
def test_unseen_is_retraining_for_convex_models(name):
    case = converged(name)
    reference = Reference(case)
    e = np.zeros(reference.n)
    e[list(REMOVED)], e[7] = -1, 0.5
    plan = puma.PatchPlan(remove=REMOVED, upweight=RAISED, steps=30)
    patch = puma.patch(case.project(), plan, curvature=puma.Dense(damping=0.0))
    exact = reference.minimise(reference.a.numpy() * (1 + e))
    torch.testing.assert_close(flat(patch.model), exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("intent", INTENTS)
def test_a_first_full_step_is_the_straight_patch(intent):
    """The objective of a tiny change is its own quadratic: one step does, the second has nothing to add."""
    case = CONVEX["softmax"]  # not at its minimum
    plans = [puma.PatchPlan(upweight={3: 1e-6}, intent=intent, steps=steps) for steps in (1, 2)]
    one, two = (puma.patch(case.project(), plan, curvature=puma.Dense(damping=0.0)) for plan in plans)
    torch.testing.assert_close(one.delta, Reference(case).delta(1e-6 * np.eye(30)[3]))
    torch.testing.assert_close(two.delta, one.delta, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("steps", [2, 8])
@pytest.mark.parametrize("intent", INTENTS)
def test_a_little_moves_a_little_however_many_steps(intent, steps):
    """Of a network far from any minimum too: steps must not go on training it, or run down a slope."""
    project = CASES["softmax"].project()
    plans = [puma.PatchPlan(upweight={3: 1e-4}, intent=intent, steps=many) for many in (1, steps)]
    one, more = (puma.patch(project, plan, curvature=CURVATURE).delta for plan in plans)
    assert more.norm() < 25 * one.norm()


@pytest.mark.parametrize("intent", INTENTS)
def test_rails_measure_the_model_that_is_handed_out(intent):
    reference = Reference(near_minimum("softmax"))
    valuable = np.argsort(reference.psi(damping=DAMPING))[-3:].tolist()
    held = {"cross_entropy": 1e-3}
    plan = puma.PatchPlan(
        remove=valuable,
        hold=tuple(held),
        tolerance=held,
        steps=4,
        intent=intent,
        method=puma.Puma(weight_max=0.0),
    )
    patch = puma.patch(reference.case.project(), plan, curvature=CURVATURE)
    change = reference.criterion(theta=flat(patch.model)) - reference.criterion()
    assert patch.measured["cross_entropy"] == pytest.approx(float(change))
    assert 0 < patch.strength < 1
    assert change <= 1e-3
    assert patch.diagnostics["binding"] == "cross_entropy"
