"""The objectives of several steps, value and gradient, against their formulas in full."""

import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.unlearning.base import Change, chosen_change
from puma_dash.core.unlearning.steps import FORGOTTEN, OBJECTIVES, Forget, Reweighted, Unseen

from .cases import CASES, Reference, another, bregman, ignorance

close = torch.testing.assert_close
DAMPING = 0.05
REMOVED, RAISED, RELABELLED = (1, 2, 6, 11, 13), {7: 0.5, 9: 3.0}, (10, 16)


class Written:
    """Q of both intents with everything in one place."""

    def __init__(self, name, tau, relabelled=RELABELLED, **changes):
        self.reference = Reference(CASES[name].but(**changes))
        r, self.tau = self.reference, tau
        self.classes = max(2, r.outputs(r.x).shape[1])
        self.relabel = {row: another(r.y, row, self.classes) for row in relabelled}
        self.plan = puma.PatchPlan(remove=REMOVED, upweight=RAISED, relabel=self.relabel, strength=tau)
        self.gone = [*REMOVED, *self.relabel]
        self.before = r.outputs(r.x).detach()
        self.slope = jacobian(r.objective, r.theta)
        self.wd = r.case.weight_decay

    def caps(self):
        """(n,): a_j times the loss at theta_org and what may come on top."""
        r = self.reference
        room = FORGOTTEN * ignorance(r.case.loss, r.y, self.classes)
        return r.a * (r.losses(r.x, r.y).detach() + room)

    def raised(self, losses):
        return sum(e * losses[row] for row, e in RAISED.items())

    def arrivals(self, theta):
        r = self.reference
        return sum(
            r.a[row] * r.losses(r.x[row : row + 1], torch.tensor([label], dtype=r.y.dtype), theta)[0]
            for row, label in self.relabel.items()
        )

    def unseen(self, theta):
        """Up to the whole, removed rows simply weigh less; what is beyond it pushes them, up to the cap."""
        r, tau = self.reference, self.tau
        losses, move = r.a * r.losses(r.x, r.y, theta), theta - r.theta
        left = losses if tau <= 1 else torch.minimum(losses, self.caps())
        changed = tau * (self.raised(losses) + self.arrivals(theta) - left[self.gone].sum())
        near = 0.0 if self.wd > 0 else DAMPING / 2 * move @ move
        decay = self.wd / 2 * theta @ theta
        return (losses.sum() + changed) / r.n + decay + near - self.slope @ move

    def forget(self, theta):
        r = self.reference
        losses, move = r.a * r.losses(r.x, r.y, theta), theta - r.theta
        stay = np.setdiff1d(np.arange(r.n), self.gone)
        held = (r.a * bregman(r.case.loss, self.before, r.outputs(r.x, theta), r.y))[stay].sum()
        pushed = torch.minimum(losses, self.caps())[self.gone].sum()
        changed = self.tau * (self.raised(losses) + self.arrivals(theta) - pushed)
        return (held + changed) / r.n + (self.wd + DAMPING) / 2 * move @ move

    def objective(self, intent):
        engine = Engine(self.reference.case.project(), batch_size=6)
        return OBJECTIVES[intent].of(engine, chosen_change(engine, self.plan), self.tau, DAMPING)


NAMES = ["softmax", "smoothed softmax", "one logit", "smoothed one logit", "regression"]


def thetas(written, count=4):
    """theta_org, and points ever farther from it, where more and more removed rows are beyond their cap."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, len(written.reference.theta), generator=generator).double()
    return [
        written.reference.theta + size * way for size, way in zip((0.0, 0.1, 1.0, 4.0), noise, strict=True)
    ]


@pytest.mark.parametrize("tau", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("intent", OBJECTIVES)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(name, intent, tau):
    written = Written(name, tau)
    objective, expected = written.objective(intent), getattr(written, intent)
    start = float(expected(written.reference.theta))
    for theta in thetas(written):
        value, gradient = objective.at(theta, gradient=True)
        assert value == pytest.approx(float(expected(theta)), rel=1e-9, abs=1e-12)
        close(gradient, jacobian(expected, theta), rtol=1e-8, atol=1e-11)
        alone, nothing = objective.at(theta, gradient=False)
        assert alone == pytest.approx(value, rel=1e-12, abs=1e-15)
        assert len(nothing) == 0
    assert objective.at(objective.engine.theta, gradient=False)[0] == pytest.approx(start, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_some_rows_are_beyond_their_cap_and_some_are_not(name):
    """Else the tests above would not see the cap."""
    written = Written(name, 2.5)
    r = written.reference
    beyond = []
    for theta in thetas(written):
        losses = (r.a * r.losses(r.x, r.y, theta))[written.gone]
        beyond.append((losses > written.caps()[written.gone]).sum())
    assert beyond[0] == 0
    assert 0 < max(beyond) < len(written.gone)


@pytest.mark.parametrize("tau", [1.0, 2.5])
@pytest.mark.parametrize("intent", OBJECTIVES)
def test_without_weight_decay(intent, tau):
    """What holds theta near then is the damping."""
    written = Written("softmax", tau, weight_decay=0.0)
    for theta in thetas(written):
        value, gradient = written.objective(intent).at(theta, gradient=True)
        assert value == pytest.approx(float(getattr(written, intent)(theta)), rel=1e-9, abs=1e-12)
        close(gradient, jacobian(getattr(written, intent), theta), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("tau", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("intent", OBJECTIVES)
@pytest.mark.parametrize("name", NAMES)
def test_at_the_start_the_slope_is_that_of_the_change(name, intent, tau):
    """(tau / n) sum_j e_j a_j grad l_j: one full step is the patch, and no change is none."""
    written = Written(name, tau)
    r = written.reference
    e = torch.zeros(r.n).double()
    e[written.gone] = -1
    for row, extra in RAISED.items():
        e[row] = extra
    expected = r.gradients().T @ e + jacobian(written.arrivals, r.theta)
    objective = written.objective(intent)
    close(objective.at(r.theta, gradient=True)[1], tau / r.n * expected, rtol=1e-8, atol=1e-12)
    rows, none = torch.arange(r.n), torch.zeros(r.n).double()
    nothing = OBJECTIVES[intent].of(objective.engine, Change(rows, r.y, none), tau, DAMPING)
    assert nothing.at(r.theta, gradient=True)[1].abs().max() < 1e-14


def test_a_cap_is_in_the_units_of_its_row():
    """A row of weight a may lose a times what another may."""
    engine = Engine(CASES["weighted softmax"].project())
    rows, r = torch.arange(22), Reference(CASES["weighted softmax"])
    change = Change(rows, engine.split("train").targets, torch.where(rows % 2 == 0, -1.0, 0.5).double())
    cap = Reweighted.of(engine, change, 1.0).cap
    close(cap[::2], (r.a * (r.losses(r.x, r.y).detach() + FORGOTTEN * math.log(3)))[::2])
    assert (cap[1::2] == math.inf).all()


def test_only_what_is_beyond_the_whole_is_capped():
    """Intent "unseen": up to there the rows just weigh less, which is bounded by itself."""
    plain, beyond = (Written("weighted softmax", tau).objective("unseen") for tau in (1.0, 1.5))
    assert isinstance(plain, Unseen)
    assert sorted(plain.changed.change.rows.tolist()) == sorted(RELABELLED)
    assert (plain.changed.change.e > 0).all()
    assert sorted(beyond.changed.change.rows.tolist()) == sorted([*REMOVED, *RELABELLED, *RELABELLED])
    assert (plain.weights[list(REMOVED)] == 0).all()
    assert (beyond.weights[list(REMOVED)] == 1).all()
    assert plain.weights[9] == 4
    assert beyond.weights[9] == pytest.approx(5.5)


def test_up_weighted_rows_are_retained():
    objective = Written("weighted softmax", 1.0).objective("forget")
    assert isinstance(objective, Forget)
    assert set(objective.retained.tolist()) == set(range(22)) - set(REMOVED) - set(RELABELLED)
