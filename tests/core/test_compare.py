"""Before and after, recomputed from the two models with scikit-learn."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, log_loss, recall_score

import puma_dash as puma
from puma_dash.core.evaluation.reliability import reliability

from .cases import CASES, Reference, flat, trained

CURVATURE = puma.Dense(damping=0.02)
PLAN = {"remove": tuple(range(0, 20)), "upweight": {25: 3.0}, "relabel": {30: 0, 31: 1}}


@pytest.fixture(scope="module")
def made():
    """Reference, project with a test split, and a patch strong enough to flip predictions."""
    case = trained()
    targets = case.train[1]
    relabel = {30: int(targets[30] == 0), 31: int(targets[31] == 0)}
    x, y = (
        np.concatenate([part[0] for part in (case.validation, case.train)]),
        np.r_[case.validation[1], targets],
    )
    project = case.project(test=puma.Split(x, y))
    hold = ("cross_entropy", puma.Brier(rows=(0, 1, 2, 3)), puma.CrossEntropy(split="test"))
    plan = puma.PatchPlan(**{**PLAN, "relabel": relabel}, hold=hold, method="influence", strength=2.0)
    return Reference(case), project, puma.patch(project, plan, curvature=CURVATURE)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_tables(made, split):
    reference, project, patch = made
    comparison = puma.compare(project, patch, split=split)
    data = project.split(split)
    y = data.targets.numpy()
    models = {"before": reference.theta, "after": flat(patch.model)}
    p = {name: reference.outputs(data.inputs, theta).softmax(1).numpy() for name, theta in models.items()}
    for name in models:
        table = comparison.metrics[name]
        assert table["accuracy"] == pytest.approx(accuracy_score(y, p[name].argmax(1)))
        assert table["nll"] == pytest.approx(log_loss(y, p[name]))
        assert table["brier"] == pytest.approx(brier_score_loss(y, p[name], scale_by_half=False))
        curve = comparison.reliability.query("model == @name").drop(columns="model").reset_index(drop=True)
        assert curve.equals(reliability(p[name], y))
        recall = recall_score(y, p[name].argmax(1), average=None)
        np.testing.assert_allclose(comparison.per_class[name], recall)
    table = comparison.metrics
    np.testing.assert_allclose(table["change"], table["after"] - table["before"])
    assert (table["low"] <= table["high"]).all()
    assert (table["low"] <= table["change"] + 0.05).all()
    assert (table["high"] >= table["change"] - 0.05).all()
    assert comparison.n == len(y)
    assert comparison.per_class["n"].tolist() == np.bincount(y).tolist()

    was, now = (p[name].argmax(1) == y for name in models)
    kinds = {"fixed": ~was & now, "broken": was & ~now, "kept right": was & now, "kept wrong": ~was & ~now}
    for kind, rows in kinds.items():
        found = comparison.flips[comparison.flips["kind"] == kind]
        assert found["row"].tolist() == np.flatnonzero(rows).tolist()
    assert comparison.flips["after"].tolist() == p["after"].argmax(1).tolist()
    assert comparison.diagnostics["fixed"] == kinds["fixed"].sum()
    assert comparison.diagnostics["broken"] == kinds["broken"].sum()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_confusion(made, split):
    _, project, patch = made
    comparison = puma.compare(project, patch, split=split)
    c, y = len(project.class_names), comparison.flips["target"]
    for model in ("before", "after"):
        cells = np.zeros((c, c), int)
        cells[comparison.confusion["target"], comparison.confusion["predicted"]] = comparison.confusion[model]
        np.testing.assert_array_equal(cells, confusion_matrix(y, comparison.flips[model], labels=range(c)))
    assert (comparison.confusion[["before", "after"]].sum(axis=1) > 0).all()


def test_groups_that_the_data_name(made):
    _, project, patch = made
    n = len(project.validation)
    known = pd.DataFrame({"sex": ["f", None, "m"] * (n // 3), "note": [f"n{i}" for i in range(n)]})
    flag = pd.DataFrame({"late": np.arange(n) < 4})
    whole = project.validation
    named = puma.Split(whole.inputs, whole.targets, groups=known, meta=flag)
    project = dataclasses.replace(project, validation=named)
    patch = dataclasses.replace(patch, fingerprint=project.fingerprint)
    comparison = puma.compare(project, patch)
    table, flips = comparison.per_group, comparison.flips
    found = list(zip(table["column"], table["group"], table["n"], strict=True))
    assert found == [("sex", "f", 5), ("sex", "m", 5), ("late", "False", 11), ("late", "True", 4)]
    women = flips[(known["sex"] == "f").to_numpy()]
    for model in ("before", "after"):
        assert table.loc[0, model] == pytest.approx(accuracy_score(women["target"], women[model]))


def test_without_groups_there_are_none(made):
    _, project, patch = made
    assert puma.compare(project, patch).per_group.empty


def test_every_marked_row(made):
    reference, project, patch = made
    rows = puma.compare(project, patch).marked_rows
    x, y = reference.x[rows["row"].tolist()], torch.tensor(rows["label"].tolist())
    assert rows["done"].value_counts().to_dict() == {
        "removed": 20,
        "up-weighted": 1,
        "relabelled, old label": 2,
        "relabelled, new label": 2,
    }
    for name, theta in (("before", reference.theta), ("after", flat(patch.model))):
        np.testing.assert_allclose(rows[f"loss {name}"], reference.losses(x, y, theta), rtol=1e-6)
        assert rows[name].tolist() == reference.outputs(x, theta).argmax(1).tolist()


def test_the_error_rate_is_judged_by_mcnemar_and_all_by_holm(made):
    """The exact McNemar test is a sign test of those that flipped."""
    _, project, patch = made
    comparison = puma.compare(project, patch, split="train")
    fixed, broken = (comparison.diagnostics[kind] for kind in ("fixed", "broken"))
    errors = comparison.verdicts.iloc[0]
    assert errors["criterion"] == "error_rate"
    assert errors["measured"] == pytest.approx((broken - fixed) / comparison.n)
    accuracy = comparison.metrics.loc["accuracy"]
    assert (errors["low"], errors["high"]) == (-accuracy["high"], -accuracy["low"])
    alone = binomtest(fixed, fixed + broken).pvalue
    others = len(comparison.verdicts)
    assert alone - 1e-12 <= errors["p"] <= min(1, others * alone) + 1e-12
    assert (comparison.verdicts["p"] <= 1).all()


def test_the_case_flips_something(made):
    _, project, patch = made
    kinds = puma.compare(project, patch, split="test").flips["kind"]
    assert {"fixed", "broken"} & set(kinds)


def test_marked_rows(made):
    reference, project, patch = made
    table = puma.compare(project, patch).marked.set_index("rows")
    after = flat(patch.model)
    for name, rows in (
        ("removed", patch.plan.remove),
        ("up-weighted", patch.plan.upweight),
        ("relabelled, old label", patch.plan.relabel),
        ("relabelled, new label", patch.plan.relabel),
    ):
        rows = list(rows)
        x, y = reference.x[rows], reference.y[rows]
        if name == "relabelled, new label":
            y = torch.tensor(list(patch.plan.relabel.values()))
        assert table.loc[name, "n"] == len(rows)
        for label, theta in (("before", reference.theta), ("after", after)):
            assert table.loc[name, f"loss {label}"] == pytest.approx(
                float(reference.losses(x, y, theta).mean())
            )
            right = reference.outputs(x, theta).argmax(1) == y
            assert table.loc[name, f"accuracy {label}"] == pytest.approx(float(right.double().mean()))


def test_verdicts(made):
    """The interval of the change of each held criterion decides, against its tolerance."""
    reference, project, patch = made
    verdicts = puma.compare(project, patch).verdicts
    assert verdicts["held"].tolist() == [False, True, True, True]
    verdicts = verdicts[verdicts["held"]]
    assert verdicts["criterion"].tolist() == list(patch.measured)
    assert verdicts["measured"].tolist() == list(patch.measured.values())
    assert verdicts["predicted"].tolist() == list(patch.predicted.values())
    change = reference.losses(*reference.case.validation, flat(patch.model)) - reference.losses(
        *reference.case.validation
    )
    row = verdicts.iloc[0]
    drawn = np.random.default_rng(1).choice(change.numpy(), (4_000, 15)).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert row["measured"] == pytest.approx(float(change.mean()))
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.15 * (high - low))
    for entry in verdicts.itertuples():
        clear = "pass" if entry.high <= 0 else "fail" if entry.low > 0 else "inconclusive"
        assert entry.verdict in (clear, "inconclusive")
        assert (entry.verdict == "inconclusive") == (entry.p > 0.05)


@pytest.mark.parametrize(("tolerance", "verdict"), [(1e3, "pass"), (0.0, "fail")])
def test_a_verdict_needs_its_tolerance(tolerance, verdict):
    """Every row of the split once removed from a model that knew it: the loss rises on all of them."""
    case = trained()
    project = case.project(validation=puma.Split(*(part[:12] for part in case.train)))
    plan = puma.PatchPlan(
        remove=range(12), hold=("cross_entropy",), tolerance={"cross_entropy": tolerance}, method="influence"
    )
    comparison = puma.compare(project, puma.patch(project, plan, curvature=CURVATURE))
    assert comparison.verdicts["verdict"].tolist()[1:] == [verdict]


def test_one_logit():
    project = CASES["one logit"].project()
    patch = puma.patch(project, puma.PatchPlan(remove=(1,), hold=("brier",), method="influence"))
    comparison = puma.compare(project, patch)
    reference = Reference(CASES["one logit"])
    y = CASES["one logit"].validation[1]
    right = (reference.outputs(project.validation.inputs)[:, 0] > 0).numpy() == y
    assert comparison.metrics["before"]["accuracy"] == pytest.approx(right.mean())
    assert len(comparison.per_class) == 2


def test_the_same_seed_gives_the_same_intervals(made):
    _, project, patch = made
    first, again, other = (puma.compare(project, patch, seed=seed) for seed in (0, 0, 1))
    assert first.metrics.equals(again.metrics)
    assert first.verdicts.equals(again.verdicts)
    assert not first.metrics.equals(other.metrics)


def test_a_patch_of_another_project_is_refused(made):
    _, _, patch = made
    with pytest.raises(puma.ProjectError, match="belongs to another"):
        puma.compare(trained(seed=4).project(), patch)


def test_a_plain_copy_of_the_project_is_the_same_project(made):
    reference, project, patch = made
    again = puma.Project(
        name="again",
        model=reference.case.model,
        train=project.train,
        validation=project.validation,
        test=project.test,
        weight_decay=project.weight_decay,
    )
    assert puma.compare(again, patch).n == 15
    assert torch.equal(flat(again.model), reference.theta)
