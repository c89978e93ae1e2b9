"""TracIn against sums of written-out gradients at every checkpoint, and what the sum means."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

import puma_dash as puma
from puma_dash.core.valuation.tracin import TracIn

from .cases import CASES, Reference, flat

RATES = (0.3, 0.2, 0.1, 0.4, 0.05)
EPOCHS = (1, 2, 4, 5)


def recorded(name, **changes):
    """A project whose training had four checkpoints, made up: any will do."""
    case = CASES[name]
    theta = flat(case.model)
    noise = torch.randn(4, len(theta), generator=torch.Generator().manual_seed(1)).double()
    shapes = {name: tuple(p.shape) for name, p in case.model.named_parameters()}
    records = puma.Records(shapes, None, RATES, EPOCHS, theta + 0.3 * noise)
    return case, case.project(records=records, **changes)


def naive(case, project, which=(0, 1, 2, 3), entries=slice(None), alone=False):
    """Sum over checkpoints of lr grad C . grad l_j, row by row, in reverse mode."""
    reference, total = Reference(case), 0
    for k in which:
        theta = project.records.checkpoints[k]
        rate = RATES[EPOCHS[k] - 1]
        gradients = reference.gradients(theta)[:, entries]
        of = jacobian(lambda t: reference.criterion("cross_entropy", t), theta)[entries]
        total = total + rate * (-(gradients**2).sum(1) if alone else gradients @ of)
    return total.numpy()


NAMES = ["softmax", "weighted softmax", "one logit", "regression", "smoothed softmax", "convolution"]


@pytest.mark.parametrize("name", NAMES)
def test_the_definition(name):
    case, project = recorded(name)
    found = puma.value(project, "tracin")
    np.testing.assert_allclose(found.scores, naive(case, project), rtol=1e-9, atol=1e-12)
    assert found.diagnostics["checkpoints"] == [1, 2, 4, 5]
    assert found.diagnostics["learning_rates"] == [0.3, 0.2, 0.4, 0.05]


@pytest.mark.parametrize("name", NAMES)
def test_self_influence(name):
    case, project = recorded(name)
    found = puma.value(project, TracIn(self_influence=True)).scores
    np.testing.assert_allclose(found, naive(case, project, alone=True), rtol=1e-9, atol=1e-12)


def test_every_other_checkpoint_counts_from_the_last():
    case, project = recorded("softmax")
    found = puma.value(project, TracIn(every=2)).scores
    np.testing.assert_allclose(found, naive(case, project, (1, 3)), rtol=1e-9)


@pytest.mark.parametrize("alone", [False, True])
def test_layers(alone):
    """The other layers stand at the checkpoint, too; the call's ``parameters`` say the same."""
    case, project = recorded("softmax")
    last = slice(20, 38)  # 3 x 5 weights and 5 biases come before
    expected = naive(case, project, entries=last, alone=alone)
    method = TracIn(self_influence=alone)
    for found in (
        puma.value(project, dataclasses.replace(method, layers="2.*")),
        puma.value(project, dataclasses.replace(method, layers="last")),
        puma.value(project, method, parameters="last"),
    ):
        np.testing.assert_allclose(found.scores, expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(puma.ProjectError, match="a pattern of names"):
        puma.value(project, TracIn(layers="nothing"))


def test_random_projections_estimate_the_norms():
    case, project = recorded("softmax")
    exact = naive(case, project, alone=True)
    found = puma.value(project, TracIn(self_influence=True, projections=500)).scores
    np.testing.assert_allclose(found, exact, rtol=5 * np.sqrt(2 / 500))
    other = puma.value(project, TracIn(self_influence=True, projections=500, seed=1)).scores
    assert (found != other).all()


def test_scores_add_up_to_what_training_changed():
    """Of small full-batch steps: C(theta_0) - C(theta_T) is about the sum of scores / n."""
    case = CASES["softmax"]
    project = case.project(weight_decay=0.0)
    recipe = puma.SGDRecipe(project.loss, learning_rate=1e-3, epochs=200, batch_size=22)
    model = project.with_model(project.model).model
    recorder = puma.Recorder(model)
    recipe(model, project.train, torch.ones(22), 0.0, 0, recorder=recorder)
    trained = dataclasses.replace(project.with_model(model), records=recorder.records())
    scores = puma.value(trained, "tracin").scores
    reference = Reference(case)
    drop = reference.criterion(theta=flat(case.model)) - reference.criterion(theta=flat(model))
    assert scores.sum() / 22 == pytest.approx(float(drop), rel=5e-3)


def test_without_checkpoints_it_says_what_to_record():
    with pytest.raises(puma.ProjectError, match=r"recorder\.epoch\(optimizer\)"):
        puma.value(CASES["softmax"].project(), "tracin")
