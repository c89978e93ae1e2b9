"""The forecast against dense derivatives, finite differences, and the patch of models without curvature."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)

import puma_dash as puma
from puma_dash.core.engine import Engine

from .cases import CASES, CONVEX, LOSS, Reference, trained

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


@pytest.mark.parametrize("name", CONVEX)
@pytest.mark.parametrize("method", ["influence", "puma"])
def test_where_outputs_are_linear_the_forecast_is_what_is_measured(name, method):
    """Linear models, one step: the sum of psi misses the criterion's curvature, the outputs do not."""
    project = CONVEX[name].project()
    regression = name == "regression"
    kind = puma.MeanSquaredError if regression else puma.CrossEntropy
    hold = (kind(), kind(rows=(0, 3, 4)), kind(split="train"))
    rows = {"remove": (1, 2, 9, 12), "upweight": {5: 2.0}} | ({} if regression else {"relabel": {0: 1}})
    wide = {criterion.name: 1e6 for criterion in hold}
    plan = puma.PatchPlan(**rows, hold=hold, tolerance=wide, method=method, strength=1.5)
    forecast, patch = (call(project, plan, curvature=CURVATURE) for call in (puma.forecast, puma.patch))
    assert forecast.refined == pytest.approx(patch.measured, rel=1e-9)
    assert any(abs(forecast.criteria[key] / patch.measured[key] - 1) > 0.02 for key in wide)
    if regression:
        return
    compared = puma.compare(project, patch, split="validation")
    for column, other in (("before", "before"), ("predicted", "after"), ("change", "change")):
        found, truth = forecast.metrics[column], compared.metrics[other]
        assert found.to_dict() == pytest.approx(truth[found.index].to_dict(), abs=1e-6)
    flips = compared.flips[compared.flips["before"] != compared.flips["after"]]
    columns = ["row", "before", "after"]
    assert forecast.flips[columns].to_numpy().tolist() == flips[columns].to_numpy().tolist()


def test_refined_against_dense_jacobians(case):
    """C(z + J delta) - C(z), with J, B and delta formed densely."""
    reference, (x, y) = Reference(case), case.validation
    e = np.zeros(len(case.train[0]))
    e[[1, 2, 9]], e[5] = -1.0, 2.0
    dz = reference.jacobians(x) @ reference.delta(e, damping=0.05)
    z = reference.outputs(x)
    loss, y = LOSS[case.loss], torch.as_tensor(y)
    rows = torch.tensor([0, 3, 7])
    plan = puma.PatchPlan(remove=(1, 2, 9), upweight={5: 2.0}, hold=("cross_entropy",), method="influence")
    some = puma.CrossEntropy(rows=tuple(rows.tolist()))
    found = puma.forecast(case.project(), plan, [some, "brier"], curvature=CURVATURE)
    assert list(found.criteria) == ["cross_entropy"]
    assert set(found.refined) == {"cross_entropy", some.name, "brier"}
    for tau, changes in found.strengths.iterrows():
        after = z + tau * dz
        change = (loss(after, y) - loss(z, y)).mean()
        assert changes["cross_entropy"] == pytest.approx(float(change), rel=1e-7, abs=1e-12)
        change = (loss(after[rows], y[rows]) - loss(z[rows], y[rows])).mean()
        assert changes[some.name] == pytest.approx(float(change), rel=1e-7, abs=1e-12)


def test_a_new_label_against_gradients_actually_reweighted(case):
    """The row as it was goes, the row with its new label comes: two gradients, added by hand."""
    reference, (x, y) = Reference(case), case.validation
    labels = reference.y.clone()
    rows = [0, 4, 6]
    labels[rows] = (labels[rows] + 1) % len(case.project().class_names)
    mean = (reference.gradients(targets=labels) - reference.gradients()).sum(0) / reference.n
    delta = -torch.linalg.solve(reference.b(0.05), mean)
    plan = puma.PatchPlan(
        relabel={row: int(labels[row]) for row in rows}, hold=("cross_entropy",), method="influence"
    )
    found = puma.forecast(case.project(), plan, curvature=CURVATURE)
    expected = float(reference.criterion_gradient() @ delta)
    assert found.criteria["cross_entropy"] == pytest.approx(expected, rel=1e-6)
    z, dz = reference.outputs(x), reference.jacobians(x) @ delta
    loss, y = LOSS[case.loss], torch.as_tensor(y)
    refined = float((loss(z + dz, y) - loss(z, y)).mean())
    assert found.refined["cross_entropy"] == pytest.approx(refined, rel=1e-6)


@pytest.mark.parametrize("strength", [1, 0.35, 3.0])
def test_strengths_run_from_nothing_past_the_plan(case, strength):
    found = puma.forecast(case.project(), plan_for(strength), curvature=CURVATURE)
    table = found.strengths
    assert set(table) == {"cross_entropy", "brier", "accuracy", "nll", "ece"}
    assert table.index.is_monotonic_increasing
    assert table.index.name == "strength"
    assert {0.0, float(strength), max(2.0, strength)} <= set(table.index)
    assert len(table) == (22 if strength == 0.35 else 21)
    assert (table.loc[0.0] == 0).all()
    at_plan = table.loc[strength].to_dict()
    assert found.refined == {key: at_plan[key] for key in ("cross_entropy", "brier")}
    assert found.metrics["change"].to_dict() == pytest.approx({k: at_plan[k] for k in found.metrics.index})
    for tau in (table.index[3], table.index[-1]):
        again = puma.forecast(case.project(), plan_for(tau), curvature=CURVATURE)
        assert again.strengths.loc[tau].to_dict() == pytest.approx(table.loc[tau].to_dict())


def test_metrics_of_another_split_have_its_name():
    """So that Brier of the test rows is not taken for the held Brier of validation."""
    case = trained()
    project = case.project(test=puma.Split(*(part[:100] for part in case.train)))
    apart, asked = (
        puma.forecast(project, plan_for(), ["brier", extra], curvature=CURVATURE, split="test")
        for extra in (puma.CrossEntropy(split="test"), puma.Brier(split="test"))
    )
    assert apart.strengths["brier on test"].to_list() == pytest.approx(asked.strengths["brier on test"])
    assert apart.refined["brier"] != pytest.approx(apart.strengths["brier on test"][1.0])
    assert apart.metrics["change"]["brier"] == pytest.approx(asked.refined["brier on test"])


@pytest.fixture
def passes(monkeypatch):
    """Number of rows of each forward-mode pass."""
    counts, original = [], Engine.pushforward

    def counted(engine, split, *rest):
        counts.append(len(split))
        return original(engine, split, *rest)

    monkeypatch.setattr(Engine, "pushforward", counted)
    return counts


def test_one_pass_over_each_set_of_rows(passes):
    project = trained().project()
    some = (puma.CrossEntropy(rows=(0, 3)), puma.Brier(rows=(0, 3)))
    puma.forecast(project, plan_for(), [*some, puma.Brier(split="train"), "brier"], curvature=CURVATURE)
    assert sorted(passes) == [2, 15, 60]


class Shifted(puma.CrossEntropy):
    """Cross-entropy of inputs that are made, not given."""

    key = "shifted"

    def evaluation(self, engine):
        data = super().evaluation(engine)
        return puma.Split(data.inputs + 1, data.targets)


def test_criteria_on_inputs_of_their_own_have_a_pass_of_their_own(passes, monkeypatch):
    monkeypatch.setitem(puma.CRITERIA, "shifted", Shifted)
    project = CONVEX["softmax"].project()
    hold = (Shifted(), "cross_entropy")
    plan = puma.PatchPlan(remove=(1, 2, 9), hold=hold, method="influence")
    forecast, patch = (call(project, plan, curvature=CURVATURE) for call in (puma.forecast, puma.patch))
    assert passes == [15, 15]
    assert forecast.refined == pytest.approx(patch.measured)
    assert forecast.refined["shifted"] != pytest.approx(forecast.refined["cross_entropy"], rel=1e-3)


def test_a_regression_is_forecast_too():
    """It has no classes to flip."""
    project = CASES["regression"].project()
    plan = puma.PatchPlan(remove=(1, 2), hold=("squared_error",), method="influence")
    forecast, patch = (call(project, plan, curvature=CURVATURE) for call in (puma.forecast, puma.patch))
    assert forecast.criteria == pytest.approx(patch.predicted)
    assert forecast.strengths.columns.tolist() == ["rmse", "mae", "r2", "squared_error"]
    assert forecast.flips.columns.tolist() == ["row", "target", "before", "after"]
    assert forecast.flips.empty
    reference, y = Reference(CASES["regression"]), CASES["regression"].validation[1]
    z = reference.outputs(project.validation.inputs)
    ahead = z + reference.jacobians(project.validation.inputs) @ patch.delta
    for column, outputs in (("before", z), ("predicted", ahead)):
        found = forecast.metrics[column]
        assert found["mae"] == pytest.approx(mean_absolute_error(y, outputs), rel=1e-6)
        assert found["rmse"] == pytest.approx(mean_squared_error(y, outputs) ** 0.5, rel=1e-6)
        assert found["r2"] == pytest.approx(r2_score(y, outputs), rel=1e-6)
