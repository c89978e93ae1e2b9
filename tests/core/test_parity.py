"""Gaps between groups before and after: against fairlearn, row resampling, and by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

import puma_dash as puma
from puma_dash.core.evaluation.outcomes import Answers
from puma_dash.core.evaluation.parity import parity_changes


def answers(n=3_000, groups=2, seed=0):
    """Two models that favour some groups, the second one less; three classes."""
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=n)
    targets = rng.integers(3, size=n)
    score = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[targets]
    tilt = np.zeros((n, 3))
    tilt[:, 2] = group
    was, now = (np.exp(score + strength * tilt) for strength in (1.0, 0.3))
    return group, Answers(was / was.sum(1, keepdims=True), now / now.sum(1, keepdims=True), targets)


@pytest.mark.parametrize("groups", [2, 4])
def test_gaps_are_fairlearns(groups):
    group, found = answers(groups=groups)
    changes = parity_changes(pd.DataFrame({"sex": group}), found)
    truth = found.targets == 2
    for name, gap in (
        ("demographic parity gap", demographic_parity_difference),
        ("equalized odds gap", equalized_odds_difference),
    ):
        change = changes[f"{name} of sex"]
        before, after = (gap(truth, p.argmax(1) == 2, sensitive_features=group) for p in found[:2])
        assert (change.before, change.after) == pytest.approx((before, after))
        assert change.change == pytest.approx(after - before)
        assert change.low < change.change < change.high < 0


def test_the_interval_is_that_of_rows_resampled_within_their_groups():
    group, found = answers(n=800)
    change = parity_changes(pd.DataFrame({"sex": group}), found)["demographic parity gap of sex"]
    rng, drawn = np.random.default_rng(1), []
    picked = [np.flatnonzero(group == g) for g in (0, 1)]
    was, now = (p.argmax(1) == 2 for p in found[:2])
    for _ in range(3_000):
        rows = [rng.choice(each, len(each)) for each in picked]
        rates = np.array([[hit[each].mean() for hit in (was, now)] for each in rows])
        drawn.append(np.diff(np.abs(rates[0] - rates[1]))[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (change.low, change.high) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_rows_without_a_group_count_in_none_and_columns_of_one_group_are_left_out():
    group, found = answers()
    frame = pd.DataFrame({"sex": np.where(group == 1, "f", "m"), "one": "x", "id": np.arange(len(group))})
    known = np.random.default_rng(2).random(len(group)) < 0.7
    frame.loc[~known, "sex"] = None
    rest = Answers(*(part[known] for part in found))
    assert parity_changes(frame, found) == parity_changes(frame[known], rest)
    assert {name.partition(" of ")[2] for name in parity_changes(frame, found)} == {"sex"}


def test_odds_need_both_kinds_of_rows_in_every_group():
    group, found = answers()
    targets = np.where(group == 1, 2, found.targets)
    found = found._replace(targets=targets)
    assert list(parity_changes(pd.DataFrame({"sex": group}), found)) == ["demographic parity gap of sex"]


def test_comparison_and_forecast_tell_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=400) > 0).astype(np.int64)
    groups = pd.DataFrame({"sex": np.where(x[:, 0] + rng.normal(size=400) > 0, "f", "m")})
    split = puma.Split(torch.from_numpy(x), torch.from_numpy(y), groups=groups)
    recipe = puma.AdamRecipe(puma.LOSSES["cross_entropy"](), learning_rate=0.1, epochs=20)
    model = recipe(torch.nn.Linear(3, 2), split, torch.ones(400), 1e-2, 0)
    project = puma.Project(name="gap", model=model, train=split, validation=split, weight_decay=1e-2)
    worst = puma.value(project, criterion="demographic_parity").harmful(60)
    plan = puma.PatchPlan(remove=worst, hold="demographic_parity")
    patch = puma.patch(project, plan)
    table = puma.compare(project, patch).metrics
    name = "demographic parity gap of sex"
    truth = [
        demographic_parity_difference(y, m(split.inputs).argmax(1).numpy(), sensitive_features=groups.sex)
        for m in (project.model, patch.model)
    ]
    assert table.loc[name, ["before", "after"]].tolist() == pytest.approx(truth)
    assert table.loc[name, "low"] < table.loc[name, "change"] < 0
    forecast = puma.forecast(project, plan).metrics
    assert forecast.loc[name, "before"] == pytest.approx(truth[0])
    assert forecast.loc[name, "predicted"] == pytest.approx(truth[1], abs=0.02)
