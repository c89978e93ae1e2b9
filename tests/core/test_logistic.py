"""Convex models at their minimum: psi is the derivative of retraining, up to the factor -1/n."""

import numpy as np
import pytest
import torch

import puma_dash as puma

from .cases import CONVEX, Reference, converged

EXACT = puma.Dense(damping=0.0)


@pytest.fixture(params=CONVEX, scope="module")
def convex(request):
    case = converged(request.param)
    return Reference(case), case.project()


def criterion_of(reference):
    return "squared_error" if reference.case.plain == "squared_error" else "cross_entropy"


def retrained(reference, e, key):
    """C after retraining with weights a (1 + e)."""
    return float(reference.criterion(key, reference.minimise(reference.a * (1 + torch.as_tensor(e)))))


def test_psi_is_the_slope_of_retraining(convex):
    reference, project = convex
    for key in {criterion_of(reference), "squared_error" if "squared" in reference.case.plain else "brier"}:
        psi = puma.value(project, criterion=key, curvature=EXACT).scores
        for j in (0, 5, 11):
            e = 1e-4 * np.eye(reference.n)[j]
            slope = (retrained(reference, e, key) - retrained(reference, -e, key)) / 2e-4
            assert slope == pytest.approx(-psi[j] / reference.n, rel=1e-5, abs=1e-9)


def test_prediction_error_is_of_second_order(convex):
    reference, project = convex
    key = criterion_of(reference)
    psi = puma.value(project, criterion=key, curvature=EXACT).scores
    e = np.where(np.arange(reference.n) < 8, np.linspace(-1, 0.6, reference.n), 0)
    before = float(reference.criterion(key))

    def error(scale):
        return retrained(reference, scale * e, key) - before + scale / reference.n * e @ psi

    assert error(0.1) / error(0.01) == pytest.approx(100, rel=0.2)


def test_removing_raises_the_removed_loss(convex):
    reference, project = convex
    for j in (1, 4, 10):
        patch = puma.patch(project, puma.PatchPlan(remove=(j,), method="influence"), curvature=EXACT)
        x, y = reference.x[j : j + 1], reference.y[j : j + 1]
        before = reference.losses(x, y)
        assert reference.losses(x, y, reference.theta + patch.delta) > before


def test_the_sign_sentence(convex):
    """psi < 0: removing the row improves the criterion (harmful); psi > 0: the row is valuable."""
    reference, project = convex
    key = criterion_of(reference)
    valuation = puma.value(project, criterion=key, curvature=EXACT)
    before = float(reference.criterion(key))
    harmful, valuable = valuation.harmful(1)[0], np.argmax(valuation.scores)
    assert valuation.scores[harmful] < 0 < valuation.scores[valuable]
    assert retrained(reference, -np.eye(reference.n)[harmful], key) < before
    assert retrained(reference, -np.eye(reference.n)[valuable], key) > before


def test_psi_vanishes_for_the_training_loss_at_its_minimum():
    case = converged("softmax").but(weight_decay=0.0, model=CONVEX["softmax"].model)
    reference = Reference(case)
    theta = reference.descend(500)  # without weight decay the minimum is a line: Newton's matrix is singular
    project = case.but(model=reference.model_at(theta)).project()
    curvature = puma.Dense(damping=0.1)
    zero = puma.value(project, criterion=puma.CrossEntropy(split="train"), curvature=curvature).scores
    usual = puma.value(project, criterion=puma.CrossEntropy(), curvature=curvature).scores
    assert np.abs(zero).max() < 1e-4 * np.abs(usual).max()
