"""The linear datamodeling score and agreement: against third parties, closed forms and known answers."""

import dataclasses
import threading

import numpy as np
import pytest
import scipy.stats
import torch

import puma_dash as puma
from puma_dash.core.evaluation.datamodeling import noise_ceiling, spearman
from puma_dash.core.types import Cancelled

QUICK = {"subsets": 12, "trainings": 2, "jobs": 1}


def linear(n=60, seed=0):
    """A ridge regression whose trainer is its closed form."""
    rng = np.random.default_rng(seed)
    x = torch.as_tensor(rng.normal(size=(n + 40, 4)))
    y = x @ torch.tensor([[1.0], [-1.0], [0.5], [2.0]], dtype=torch.float64)
    y[:n:5] += 3  # a fifth of the training rows pulls the wrong way
    model = torch.nn.Linear(4, 1, bias=False).double()

    def ridge(fresh, split, weights, weight_decay, seed):
        w, eye = weights[:, None], torch.eye(4, dtype=torch.float64)
        a = (split.inputs * w).T @ split.inputs / len(w) + weight_decay * eye / 2
        fresh.weight.data = torch.linalg.solve(a, (split.inputs * w).T @ split.targets / len(w)).T
        return fresh

    train, validation = puma.Split(x[:n], y[:n]), puma.Split(x[n:], y[n:])
    ridge(model, train, torch.ones(n, dtype=torch.float64), 0.1, 0)
    return puma.Project(
        name="line",
        model=model,
        train=train,
        validation=validation,
        loss="squared_error",
        weight_decay=0.1,
        trainer=ridge,
    )


def test_exact_retraining_of_a_linear_model_is_foreseen():
    found = puma.datamodeling_score(
        linear(500), ["psi", "random"], subsets=40, left_out=0.05, jobs=1, criterion="squared_error"
    )
    table = found.table.set_index("method")
    assert table.loc["psi", "score"] > 0.97
    assert abs(table.loc["random", "score"]) < 0.5
    assert found.ceiling == pytest.approx(1)  # the closed form knows no seed
    assert list(found.table["method"]) == ["psi", "random"]
    # the forecast is in the criterion's unit: leaving out few rows moves it by what psi says
    assert found.criterion == "squared_error"
    slope = np.polyfit(found.predicted["psi"], found.values.mean(1), 1)[0]
    assert 0.8 < slope < 1.3


@pytest.mark.parametrize("ties", [False, True])
def test_the_score_is_scipys(ties):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    a, b = (a.round(), b.round()) if ties else (a, a + b)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert spearman(a, np.ones(50)) == 0


@pytest.mark.parametrize("k", [2, 4])
def test_the_ceiling_is_what_the_values_without_noise_would_reach(k):
    rng = np.random.default_rng(k)
    exact = rng.normal(size=5_000)
    values = exact[:, None] + 1.5 * rng.normal(size=(5_000, k))
    assert noise_ceiling(values) == pytest.approx(spearman(exact, values.mean(1)), abs=0.03)
    assert noise_ceiling(np.column_stack([exact, -exact])) == 0


def test_the_interval_is_that_of_the_bootstrap():
    found = puma.datamodeling_score(linear(), ["psi"], subsets=30, trainings=1, left_out=0.5, jobs=1)
    line, pair = found.table.iloc[0], (found.predicted["psi"], found.values[:, 0])
    reference = scipy.stats.bootstrap(
        pair, spearman, paired=True, vectorized=False, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert line["low"] == pytest.approx(reference.low, abs=0.05)
    assert line["high"] == pytest.approx(reference.high, abs=0.05)
    assert np.isnan(found.ceiling)


def test_digits_are_retrained_on_subsets_and_psi_foresees_it():
    digits = puma.load("digits")
    recipe = puma.AdamRecipe(digits.loss, learning_rate=0.01, epochs=40, batch_size=200)
    project = dataclasses.replace(digits, trainer=recipe)
    found = puma.datamodeling_score(project, ["psi", "random"], **QUICK)
    table = found.table.set_index("method")
    assert found.values.shape == (12, 2)
    assert table.loc["psi", "score"] > table.loc["random", "score"]
    assert found.ceiling > 0.5
    kept = []
    project.memo["store"] = lambda name, compute: kept.append(name) or {"values": found.values}
    again = puma.datamodeling_score(project, ["random"], **QUICK)
    assert sum(name.startswith("datamodeling") for name in kept) == 1
    np.testing.assert_array_equal(found.values, again.values)


def test_rows_of_weight_0_are_never_left_out_nor_trained_on():
    project, seen = linear(), []
    weights = torch.ones(60, dtype=torch.float64)
    weights[:20] = 0

    def trainer(fresh, split, weights, weight_decay, seed):
        seen.append(weights.clone())
        return project.trainer(fresh, split, weights, weight_decay, seed)

    weighed = dataclasses.replace(
        project, train=dataclasses.replace(project.train, weights=weights), trainer=trainer
    )
    puma.datamodeling_score(weighed, ["random"], subsets=8, trainings=1, left_out=0.25, jobs=1)
    assert all((w[:20] == 0).all() and w.sum() == 30 for w in seen)
    assert len({tuple(w.tolist()) for w in seen}) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"subsets": 3}, "at least 8 subsets"),
        ({"trainings": 0}, "a training on each"),
        ({"left_out": 1.0}, "share between 0 and 1"),
        ({"methods": ["lots"]}, "valuation method names"),
        ({"methods": ["knn_shapley"]}, "neighbours vote"),
    ],
)
def test_what_does_not_fit_is_refused(settings, said):
    with pytest.raises(puma.ProjectError, match=said):
        puma.datamodeling_score(linear(), **{"methods": ["random"], **settings})


def test_it_can_be_cancelled():
    event = threading.Event()

    def progress(done, total, message):
        if message.startswith("Retraining"):
            event.set()

    with pytest.raises(Cancelled):
        puma.datamodeling_score(linear(), ["random"], progress=progress, cancel=event, jobs=1)


def test_agreement_is_scipys_and_counts_common_rows():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    rank, overlap = puma.agreement({"a": a, "b": a + b, "minus": -a})
    assert rank.loc["a", "b"] == pytest.approx(scipy.stats.spearmanr(a, a + b).statistic)
    assert rank.loc["a", "minus"] == pytest.approx(-1)
    first = [set(np.argsort(scores)[:10]) for scores in (a, a + b)]
    assert overlap.loc["a", "b"] == pytest.approx(len(first[0] & first[1]) / 10)
    assert overlap.loc["a", "minus"] == 0
    assert (np.diag(overlap) == 1).all()
    rank, _ = puma.agreement({"a": a, "constant": np.ones(200)})
    assert rank.loc["a", "constant"] == 0


def test_agreement_takes_valuations_of_one_project_only():
    line, other = linear(), linear(seed=1)
    found = {name: puma.value(line, name) for name in ("psi", "loss")}
    rank, _ = puma.agreement(found)
    assert list(rank) == ["psi", "loss"]
    with pytest.raises(puma.ProjectError, match="of one project"):
        puma.agreement({**found, "other": puma.value(other)})
