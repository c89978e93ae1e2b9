"""The forecast against finite differences of the model along the patch."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

import puma_dash as puma

from .cases import CASES, Reference, trained

CURVATURE = puma.Dense(damping=0.05)
CLASSIFIERS = {"network": trained(), "weighted": CASES["weighted softmax"], "one logit": CASES["one logit"]}


@pytest.fixture(params=CLASSIFIERS, scope="module")
def case(request):
    return CLASSIFIERS[request.param]


def plan_for(strength=1.0, method="influence"):
    rows = {"remove": (1, 2, 9), "upweight": {5: 2.0}, "relabel": {0: 1}}
    return puma.PatchPlan(hold=("cross_entropy", "brier"), method=method, strength=strength, **rows)


def linearised(case, delta):
    """Probabilities of z + dz on the validation rows, dz by central differences."""
    reference, x, h = Reference(case), case.validation[0], 1e-5
    ahead, behind = (reference.outputs(x, reference.theta + sign * h * delta) for sign in (1, -1))
    z = reference.outputs(x) + (ahead - behind) / (2 * h)
    return (z.softmax(1) if z.shape[1] > 1 else torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)).numpy()


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_predicted_outputs_are_a_step_along_the_patch(case, strength):
    project = case.project()
    forecast = puma.forecast(project, plan_for(strength), curvature=CURVATURE)
    patch = puma.patch(project, plan_for(strength), curvature=CURVATURE)
    y, labels = case.validation[1], range(len(project.class_names))
    before, after = (linearised(case, delta) for delta in (0 * patch.delta, patch.delta))
    for column, p in (("before", before), ("predicted", after)):
        table = forecast.metrics[column]
        assert table["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
        assert table["nll"] == pytest.approx(log_loss(y, p, labels=labels), rel=1e-6)
        assert table["brier"] == pytest.approx(
            brier_score_loss(y, p, labels=labels, scale_by_half=False), rel=1e-6
        )
    np.testing.assert_allclose(
        forecast.metrics["change"], forecast.metrics["predicted"] - forecast.metrics["before"]
    )
    moved = np.flatnonzero(before.argmax(1) != after.argmax(1))
    assert forecast.flips["row"].tolist() == moved.tolist()
    assert forecast.flips["after"].tolist() == after.argmax(1)[moved].tolist()
    assert forecast.flips["before"].tolist() == before.argmax(1)[moved].tolist()
    assert forecast.flips["target"].tolist() == y[moved].tolist()


@pytest.mark.parametrize("method", ["influence", "puma"])
def test_predicted_criteria_are_those_of_the_patch(case, method):
    project = case.project()
    wide = {"cross_entropy": 1e3, "brier": 1e3}
    plan = puma.PatchPlan(
        remove=(1, 2, 9), hold=tuple(wide), tolerance=wide, method=method, strength=0.5, relabel={0: 1}
    )
    forecast, patch = (call(project, plan, curvature=CURVATURE) for call in (puma.forecast, puma.patch))
    assert forecast.criteria == pytest.approx(patch.predicted)
    np.testing.assert_allclose(forecast.weights, patch.weights)
    assert forecast.fingerprint == patch.fingerprint == project.fingerprint


def test_the_forecast_of_retraining_is_that_of_naive_removal(case):
    project = case.project()
    for method in ("retrain", "influence"):
        forecast = puma.forecast(project, plan_for(method=method), curvature=CURVATURE)
        naive = puma.patch(project, plan_for(), curvature=CURVATURE)
        assert forecast.criteria == pytest.approx(naive.predicted)


def test_another_split():
    case = trained()
    data = puma.Split(*(part[::2] for part in case.validation))
    forecast = puma.forecast(case.project(test=data), plan_for(), split="test")
    assert forecast.diagnostics["n"] == len(data)
    reference = Reference(case)
    expected = log_loss(data.targets, reference.outputs(data.inputs).softmax(1).numpy())
    assert forecast.metrics["before"]["nll"] == pytest.approx(expected)


def test_a_regression_is_forecast_too():
    """Its criteria at least: they are what the patch predicts."""
    project = CASES["regression"].project()
    plan = puma.PatchPlan(remove=(1, 2), hold=("squared_error",), method="influence")
    forecast, patch = (call(project, plan, curvature=CURVATURE) for call in (puma.forecast, puma.patch))
    assert forecast.criteria == pytest.approx(patch.predicted)
