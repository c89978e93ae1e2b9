"""A regression before and after, recomputed from the two models with scikit-learn and scipy."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

import puma_dash as puma

from .cases import CASES, Reference, case, flat, mlp

REMOVED, RELABELLED = (0, 4, 9), {12: 3.0, 13: -2.5}
FRAME = pd.DataFrame(
    {"region": np.resize(["north", "south", None], 15), "note": [f"n{i}" for i in range(15)]}
)
ONE = case(mlp(3, 4, 1), (3,), 1, "squared_error")


@pytest.fixture(scope="module", params=["one output", "two outputs"])
def made(request):
    """Reference, project with groups, a patch that removes, relabels and up-weights, the new targets."""
    start = ONE if request.param == "one output" else CASES["regression"]
    new = {row: value if start is ONE else (value, 1.0) for row, value in RELABELLED.items()}
    validation = puma.Split(*start.validation, groups=FRAME)
    project = start.project(validation=validation, class_names=("a", "b")[: start.train[1].shape[1]])
    hold = ("squared_error", puma.WorstGroupError())
    plan = puma.PatchPlan(
        remove=REMOVED, upweight={3: 1.0}, relabel=new, hold=hold, method="influence", strength=2.0
    )
    return Reference(start), project, puma.patch(project, plan), new


def values(reference, patch, x):
    """Of the model before and after."""
    thetas = {"before": reference.theta, "after": flat(patch.model)}
    return {name: reference.outputs(x, theta).detach().numpy() for name, theta in thetas.items()}


def test_metrics(made):
    reference, project, patch, _ = made
    x, y = reference.case.validation
    table = puma.compare(project, patch).metrics
    for name, found in values(reference, patch, x).items():
        assert table[name]["rmse"] == pytest.approx(mean_squared_error(y, found) ** 0.5)
        assert table[name]["mae"] == pytest.approx(mean_absolute_error(y, found))
        assert table[name]["r2"] == pytest.approx(r2_score(y, found))
    np.testing.assert_allclose(table["change"], table["after"] - table["before"])
    assert (table["low"] < table["high"]).all()


def test_every_row_and_output(made):
    reference, project, patch, _ = made
    x, y = reference.case.validation
    table = puma.compare(project, patch).answers
    for k, name in enumerate(project.class_names):
        part = table[table["output"] == name]
        assert part["row"].tolist() == list(range(15))
        np.testing.assert_allclose(part["target"], y[:, k])
        for model, found in values(reference, patch, x).items():
            np.testing.assert_allclose(part[model], found[:, k])


def test_groups_by_rmse(made):
    reference, project, patch, _ = made
    x, y = reference.case.validation
    table = puma.compare(project, patch).per_group
    assert table[["column", "group", "n"]].to_numpy().tolist() == [
        ["region", "north", 5],
        ["region", "south", 5],
    ]
    south = (FRAME["region"] == "south").to_numpy()
    for model, found in values(reference, patch, x).items():
        assert table[model][1] == pytest.approx(mean_squared_error(y[south], found[south]) ** 0.5)


def test_marked_rows(made):
    reference, project, patch, new = made
    k = len(project.class_names)
    found = puma.compare(project, patch)
    table, rows = found.marked.set_index("rows"), found.marked_rows
    assert table["n"].to_dict() == {
        "removed": 3,
        "up-weighted": 1,
        "relabelled, old label": 2,
        "relabelled, new label": 2,
    }
    assert len(rows) == 8 * k
    for done, some in (("removed", list(REMOVED)), ("relabelled, new label", list(new))):
        y = reference.y[some] if done == "removed" else torch.tensor(list(new.values())).reshape(2, k)
        part = rows[rows["done"] == done]
        np.testing.assert_allclose(part["label"], y.ravel())
        for model, answered in values(reference, patch, reference.x[some]).items():
            np.testing.assert_allclose(part[model], answered.ravel())
            loss = mean_squared_error(y, answered)
            assert table.loc[done, f"loss {model}"] == pytest.approx(loss)
    assert not {"accuracy before", "accuracy after"} & set(table)


def test_verdicts(made):
    """The change of the absolute error by the paired t-test, nearly; the rails by their measured change."""
    reference, project, patch, _ = made
    (x, y), found = reference.case.validation, puma.compare(project, patch)
    verdicts = found.verdicts
    assert verdicts["criterion"].tolist() == ["absolute_error", "squared_error", "worst_group_error"]
    assert verdicts["held"].tolist() == [False, True, True]
    assert set(verdicts["test"]) == {"paired bootstrap"}
    errors = {name: np.abs(z - y).mean(1) for name, z in values(reference, patch, x).items()}
    change = errors["after"] - errors["before"]
    interval = stats.ttest_1samp(change, 0).confidence_interval(0.95)
    first = verdicts.iloc[0]
    assert first["measured"] == pytest.approx(change.mean())
    width = interval.high - interval.low
    assert (first["low"], first["high"]) == pytest.approx((interval.low, interval.high), abs=0.15 * width)
    assert verdicts["measured"].tolist()[1:] == list(patch.measured.values())
    assert found.diagnostics["closer"] == (change < 0).sum()
    assert found.diagnostics["further"] == (change > 0).sum()


def test_what_is_of_classes_only_is_empty(made):
    _, project, patch, _ = made
    found = puma.compare(project, patch)
    assert all(table.empty for table in (found.flips, found.confusion, found.reliability, found.per_class))
    assert puma.compare(CASES["softmax"].project(), of_softmax()).answers.empty


def of_softmax():
    return puma.patch(CASES["softmax"].project(), puma.PatchPlan(remove=(1,), method="influence"))
