"""The search for wrong labels: against third parties' measures, brute force and known answers."""

import dataclasses
import threading

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import roc_auc_score

import puma_dash as puma
from puma_dash.core.evaluation.flips import AT, POINTS, flipped_copy, known_flips, placed
from puma_dash.core.types import Cancelled


@pytest.fixture(scope="module")
def digits():
    return puma.load("digits")


def some(n=300, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    flipped = rng.random(n) < 0.2
    scores = rng.normal(size=n) - flipped
    return (scores.round() if ties else scores), flipped


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_scikit_learn(ties):
    scores, flipped = some(ties=ties)
    assert placed(scores, flipped)[:, 0].mean() == pytest.approx(roc_auc_score(flipped, -scores))


def test_rows_of_equal_score_are_found_as_often_as_in_random_order():
    scores, flipped = some(n=200, ties=True)
    rng, shares = np.random.default_rng(1), []
    for _ in range(4_000):
        order = np.lexsort((rng.random(200), scores))
        hits = np.concatenate([[0], np.cumsum(flipped[order])])
        shares.append(np.interp(np.linspace(0, 200, POINTS), np.arange(201), hits) / flipped.sum())
    np.testing.assert_allclose(placed(scores, flipped)[:, 1:].mean(0), np.mean(shares, 0), atol=0.005)


def test_curves_of_the_perfect_the_worst_and_no_order():
    flipped = np.arange(100) < 20
    perfect, worst, none = (
        placed(scores, flipped)[:, 1:].mean(0) for scores in (np.arange(100), -np.arange(100), np.zeros(100))
    )
    x = np.linspace(0, 1, POINTS)
    np.testing.assert_allclose(perfect, np.minimum(x / 0.2, 1))
    np.testing.assert_allclose(worst, np.maximum((x - 0.8) / 0.2, 0), atol=1e-12)
    np.testing.assert_allclose(none, x)


def test_flips_known_from_a_column(digits):
    found = puma.find_flips(digits, ["loss", "random"], known="flipped")
    table = found.table.set_index("method")
    flipped = digits.train.meta["flipped"].to_numpy()
    scores = puma.value(digits, "loss").scores
    assert table.loc["loss", "AUC"] == pytest.approx(roc_auc_score(flipped, -scores))
    order = np.argsort(scores)
    for at in AT:
        share = flipped[order[: at * 10]].sum() / flipped.sum()
        assert table.loc["loss", f"found at {at} %"] == pytest.approx(share)
        assert found.curves["loss"][0, at] == pytest.approx(share)
    behind = placed(scores, flipped)[:, 0]
    reference = scipy.stats.bootstrap((behind,), np.mean, rng=np.random.default_rng(0), method="percentile")
    low, high = reference.confidence_interval
    assert table.loc["loss", "AUC ±"] == pytest.approx((high - low) / 2, rel=0.15)
    share = table.loc["loss", "found at 20 %"]
    exact = scipy.stats.binomtest(round(100 * share), 100).proportion_ci(method="wilson")
    assert table.loc["loss", "found at 20 % ±"] == pytest.approx((exact.high - exact.low) / 2)
    assert found.curves["loss"][1:, 20] == pytest.approx([exact.low, exact.high])
    assert list(found.table["method"]) == ["loss", "random"]
    assert (found.flips, found.rows, found.repeats) == (100, 1_000, 1)


def test_flips_in_copies_are_trained_on_and_found(digits):
    plain = puma.AdamRecipe(digits.loss, learning_rate=0.01, epochs=20, batch_size=200)
    project = dataclasses.replace(digits, trainer=plain)
    found = puma.find_flips(project, ["loss", "tracin", "random"], share=0.2, repeats=3)
    table = found.table.set_index("method")
    assert table.loc["loss", "AUC"] > 0.9
    assert abs(table.loc["random", "AUC"] - 0.5) < 0.1
    assert found.flips == 200
    assert not found.refused  # TracIn's checkpoints are recorded on the way
    assert (table["AUC ±"] > 0).all()  # other flips and other trainings
    low, high = found.curves["random"][1:]
    assert (low <= high).all()
    other = puma.find_flips(project, ["loss"], share=0.2, repeats=1, seed=1).table
    assert other["AUC"][0] != table.loc["loss", "AUC"]


def test_a_copy_has_the_flips_it_says_and_a_model_that_learnt_them(digits):
    weights = torch.ones(1_000)
    weights[:500] = 0
    project = dataclasses.replace(digits, train=dataclasses.replace(digits.train, weights=weights))
    copy, flipped = flipped_copy(project, 0.3, seed=4)
    changed = (copy.train.targets != project.train.targets).numpy()
    np.testing.assert_array_equal(changed, flipped)
    assert flipped.sum() == 150
    assert not flipped[:500].any()
    rows = torch.as_tensor(flipped.nonzero()[0])
    learnt, before = (
        float((model(copy.train.inputs[rows]).argmax(1) == copy.train.targets[rows]).float().mean())
        for model in (copy.model, project.model)
    )
    assert learnt > 2 * before + 0.1
    again, _ = flipped_copy(project, 0.3, seed=4)
    assert copy.fingerprint == again.fingerprint


def test_a_trainer_of_the_users_own_trains_the_copies(digits):
    seen = []

    def trainer(model, split, weights, weight_decay, seed):
        seen.append((split.targets.clone(), seed))
        return model

    project = dataclasses.replace(digits, trainer=trainer)
    found = puma.find_flips(project, ["loss", "tracin"], repeats=2, seed=5)
    assert [seed for _, seed in seen] == [5, 6]
    assert all((targets != digits.train.targets).sum() == 100 for targets, _ in seen)
    assert "records" in found.refused["tracin"] or "checkpoints" in found.refused["tracin"]


def test_methods_with_a_seed_differ_between_copies(digits):
    recipe = puma.AdamRecipe(digits.loss, epochs=1)
    found = puma.find_flips(dataclasses.replace(digits, trainer=recipe), ["random"], repeats=3)
    assert found.table["AUC ±"][0] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"known": "nothing"}, "expected a column of the training rows"),
        ({"known": "true_label"}, "to be true for some rows"),
        ({"share": 0.0}, "share between 0 and 1"),
        ({"repeats": 0}, "at least 1 repeat"),
        ({"methods": ["lots"]}, "expected one of the valuation method names"),
        ({"methods": []}, "at least one method"),
    ],
)
def test_what_does_not_fit_is_refused(digits, settings, said):
    if "methods" in settings:
        settings = {"known": "flipped", **settings}
    with pytest.raises(puma.ProjectError, match=said):
        puma.find_flips(digits, **{"methods": ["random"], **settings})


def test_a_regression_is_refused():
    x = torch.randn(20, 3)
    split = puma.Split(x, x[:, :1])
    project = puma.Project(
        name="line", model=torch.nn.Linear(3, 1), train=split, validation=split, loss="squared_error"
    )
    with pytest.raises(puma.ProjectError, match="regression"):
        puma.find_flips(project)


def test_it_tells_its_progress_and_can_be_cancelled(digits):
    event, told = threading.Event(), []

    def progress(done, total, message):
        told.append((done / total, message))
        if len(told) == 30:
            event.set()

    with pytest.raises(Cancelled):
        puma.find_flips(digits, ["psi"], repeats=2, progress=progress, cancel=event)
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[0][1].startswith("Copy 1 of 2: training")


def test_known_flips_are_those_of_the_column(digits):
    np.testing.assert_array_equal(known_flips(digits, "flipped"), digits.train.meta["flipped"])
