"""Shapley values: games whose values are known, all orders written out, and what the models of a game are."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import puma_dash as puma
from puma_dash.core.embedding.base import features
from puma_dash.core.engine import Engine
from puma_dash.core.retraining import Training
from puma_dash.core.valuation.data_shapley import LAG, Walk, mean_of_orders
from puma_dash.core.valuation.games import LinearGame, TrainedGame, Worth
from puma_dash.core.valuation.gradient_shapley import Epochs
from puma_dash.core.valuation.knn_shapley import shapley_by_rank

from .cases import CASES, CONVEX, WEIGHTS, case, mlp, trained

COSTS = np.array([1.0, 1.0, 2.0, 4.0, 4.5])
WORTH = np.array([0.3, -0.2, 0.0, 1.5, 0.1])
RANDOM = np.random.default_rng(5).random(2**5)


def glove(rows):
    """Players 0 and 1 have a left glove, the others a right one; a pair is worth 1."""
    left = np.isin(rows, [0, 1]).sum()
    return float(min(left, len(rows) - left))


GAMES = {
    "additive": lambda rows: float(WORTH[rows].sum()),
    "airport": lambda rows: float(COSTS[rows].max()),
    "glove": glove,
    "any": lambda rows: RANDOM[(2**rows).sum()] - RANDOM[0],
}
KNOWN = {
    "additive": WORTH,
    "airport": np.cumsum(np.diff(COSTS, prepend=0) / np.arange(5, 0, -1)),  # Littlechild & Owen 1973
    "glove": np.array([0.65, 0.65, 7 / 30, 7 / 30, 7 / 30]),
}


def by_subsets(value, n, empty=0.0):
    """The definition: the weighted mean over all subsets of what a player adds."""
    found = np.zeros(n)
    for j in range(n):
        others = [i for i in range(n) if i != j]
        for size in range(n):
            for rows in itertools.combinations(others, size):
                before = value(np.array(rows, dtype=int)) if rows else empty
                added = value(np.sort(np.array([*rows, j]))) - before
                found[j] += added / math.comb(n - 1, size) / n
    return found


def walk(value, n=5, **settings):
    options = {"empty": 0.0, "full": value(np.arange(n)), "truncation": 0.0, "seed": 0}
    return Walk(lambda check: value, np.arange(n), **{**options, **settings})


@pytest.mark.parametrize("name", GAMES)
def test_games_with_known_values(name):
    value, n = GAMES[name], 5
    one = walk(value)
    orders = 1_500
    values, facts = mean_of_orders((one(number, lambda: None) for number in range(orders)), 0.0)
    exact = by_subsets(value, n)
    if name in KNOWN:
        np.testing.assert_allclose(exact, KNOWN[name], atol=1e-12)
    spread = max(np.std([one(k, lambda: None)[0] for k in range(200)], axis=0).max(), 1e-12)
    np.testing.assert_allclose(values, exact, atol=4.5 * spread / np.sqrt(orders) + 1e-12)
    assert values.sum() == pytest.approx(value(np.arange(n)))  # efficiency, in every single order
    assert facts["orders"] == orders
    assert facts["evaluations"] == orders * (n - 1)


def test_an_order_is_left_near_the_full_value():
    value = lambda rows: 100.0 if len(rows) >= 3 else float(len(rows))  # noqa: E731
    found, asked = walk(value, 40, truncation=0.01)(0, lambda: None)
    assert asked == 3 + 5  # the sixth row in a row within the tolerance is the last
    assert (found != 0).sum() == 3
    assert walk(value, 40)(0, lambda: None)[1] == 39


def test_rows_that_leave_the_full_value_again_are_gone_through():
    value = lambda rows: 100.0 - 50 * (len(rows) % 6 == 0)  # noqa: E731
    assert walk(value, 40, truncation=0.01)(0, lambda: None)[1] == 39


def test_convergence_is_the_largest_change_over_the_last_hundred_orders():
    rng = np.random.default_rng(0)
    added = 1 + 0.3 * rng.standard_normal((400, 3))
    means = np.cumsum(added, 0) / np.arange(1, 401)[:, None]

    def change(t):
        return max(np.mean(np.abs(means[t - lag] - means[t]) / np.abs(means[t])) for lag in range(1, LAG + 1))

    first = next(t for t in range(LAG, 400) if change(t) < 0.02)
    values, facts = mean_of_orders(((row, 1) for row in added), 0.02)
    assert facts["converged"]
    assert facts["orders"] == first + 1
    assert facts["change"] == pytest.approx(change(first))
    np.testing.assert_allclose(values, means[first])
    assert not mean_of_orders(((row, 1) for row in added[:LAG]), 1e9)[1]["converged"]


# --- what a set of rows is worth ------------------------------------------------------------


def game_of(name, space="inputs", metric="criterion", criterion=None, **fields):
    project = CASES[name].project(**fields) if name in CASES else CONVEX[name].project(**fields)
    engine = Engine(project)
    worth = Worth.of(engine, criterion or puma.CRITERIA[project.task.criterion](), metric)
    return engine, LinearGame.of(engine, worth, space, l2=0.05)


ROWS = np.array([0, 1, 2, 5, 9, 12, 13, 17])


def test_the_linear_model_is_that_of_scikit_learn():
    engine, game = game_of("softmax", "penultimate")
    scale = StandardScaler().fit(features(engine, "penultimate"))
    one = scale.transform(features(engine, "penultimate"))
    x = np.column_stack([one, np.ones(len(one))])
    data = scale.transform(features(engine, "penultimate", engine.split("validation")))
    held_out = np.column_stack([data, np.ones(len(data))])
    for rows in (ROWS, np.arange(22)):
        theirs = LogisticRegression(C=1 / (0.05 * len(rows)), fit_intercept=False, tol=1e-10, max_iter=5_000)
        theirs.fit(x[rows], engine.project.train.targets.numpy()[rows])
        sharp = dataclasses.replace(game, flat=1e-9)
        y = engine.project.validation.targets.numpy()
        expected = np.log(theirs.predict_proba(held_out))[np.arange(15), y].mean()
        assert sharp(lambda: None)(rows) == pytest.approx(expected, abs=1e-6)
        assert game(lambda: None)(rows) == pytest.approx(expected, abs=0.02)
        assert dataclasses.replace(sharp, worth=dataclasses.replace(game.worth, criterion=None))(
            lambda: None
        )(rows) == pytest.approx(theirs.score(held_out, y))


def test_the_linear_model_of_a_regression_is_ridge():
    engine, game = game_of("regression")
    scale = StandardScaler().fit(features(engine, "inputs"))
    x, held_out = (
        np.column_stack([scale.transform(features(engine, "inputs", rows)), np.ones(len(rows))])
        for rows in (engine.split("train"), engine.split("validation"))
    )
    y = engine.project.train.targets.numpy()
    theirs = Ridge(alpha=0.05 * len(ROWS) * 2 / 2, fit_intercept=False).fit(x[ROWS], y[ROWS])
    expected = -((theirs.predict(held_out) - engine.project.validation.targets.numpy()) ** 2).mean()
    assert dataclasses.replace(game, flat=1e-9)(lambda: None)(ROWS) == pytest.approx(expected, rel=1e-5)


def test_a_fit_that_goes_on_from_the_last_ends_where_a_fresh_one_does():
    _, game = game_of("softmax")
    sharp = dataclasses.replace(game, flat=1e-9)
    along = sharp(lambda: None)
    for size in range(1, 12):
        rows = np.arange(size)
        assert along(rows) == pytest.approx(sharp(lambda: None)(rows), abs=1e-6)


def test_one_row_is_enough_for_a_model():
    _, game = game_of("softmax", metric="accuracy")
    assert 0 <= game(lambda: None)(np.array([3])) <= 1


def test_nothing_is_worth_the_commonest_class_or_even_odds():
    engine, game = game_of("softmax", metric="accuracy")
    counts = np.bincount(engine.project.validation.targets)
    assert game.worth.empty == pytest.approx(counts.max() / 15)
    assert game_of("softmax")[1].worth.empty == pytest.approx(-math.log(3))
    assert game_of("one logit")[1].worth.empty == pytest.approx(-math.log(2))
    engine, game = game_of("regression")
    y, held_out = engine.project.train.targets, engine.project.validation.targets
    assert game.worth.empty == pytest.approx(-float(((held_out - y.mean(0)) ** 2).mean()))


def test_the_trainer_is_asked_about_the_rows_alone():
    start = CONVEX["softmax"].but(weight_decay=0.1)
    recipe = puma.AdamRecipe(puma.SoftmaxCrossEntropy(), learning_rate=0.1, epochs=400, batch_size=30)
    engine = Engine(start.project(trainer=recipe))
    worth = Worth.of(engine, puma.CrossEntropy(), "criterion")
    found = TrainedGame(Training.of(engine), worth, 8, 0)(lambda: None)(ROWS)
    x, y = start.train
    theirs = LogisticRegression(C=1 / (0.1 * len(ROWS)), fit_intercept=False, tol=1e-10, max_iter=5_000)
    theirs.fit(np.column_stack([x, np.ones(len(x))])[ROWS], y[ROWS])
    x, y = start.validation
    p = theirs.predict_proba(np.column_stack([x, np.ones(len(x))]))
    assert found == pytest.approx(np.log(p)[np.arange(15), y].mean(), abs=1e-3)


SMALL = {"orders": 3, "truncation": 0.0, "jobs": 1}


@pytest.mark.parametrize("name", ["softmax", "one logit", "regression", "smoothed softmax", "convolution"])
@pytest.mark.parametrize("metric", ["auto", "criterion"])
def test_values_add_up_to_what_all_rows_gain(name, metric):
    found = puma.value(CASES[name].project(), puma.DataShapleyTMC(metric=metric, **SMALL))
    told = found.diagnostics
    gained = told["value_of_all"] - told["value_of_nothing"]
    assert found.scores.sum() == pytest.approx(gained)
    assert told["orders"] == 3
    assert told["metric"] == ("accuracy" if metric == "auto" and name != "regression" else told["metric"])


def test_rows_of_weight_zero_are_worth_nothing():
    found = puma.value(CASES["weighted softmax"].project(), puma.DataShapleyTMC(**SMALL)).scores
    assert (found[WEIGHTS == 0] == 0).all()
    one = puma.value(CASES["weighted softmax"].project(), puma.DataShapleyG(orders=2, learning_rate=0.1))
    assert (one.scores[WEIGHTS == 0] == 0).all()


def test_a_regression_has_no_accuracy():
    project = CASES["regression"].project()
    for kind in (puma.DataShapleyTMC, puma.DataShapleyG, puma.DVRL):
        with pytest.raises(puma.ProjectError, match='metric="criterion"'):
            puma.value(project, kind(metric="accuracy"))


# --- gradients ------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "convolution", "regression"])
def test_gradient_values_are_those_of_single_steps_written_out(name):
    start = CASES[name]
    engine = Engine(start.project())
    criterion = puma.CRITERIA[engine.project.task.criterion]()
    epochs = Epochs(engine, Worth.of(engine, criterion, "criterion"), seed=4)
    found = epochs.added(range(2), 0.1, "")
    x, y = (torch.as_tensor(part) for part in start.train)
    a = torch.ones(22).double() if start.weights is None else torch.as_tensor(start.weights)
    players = a.nonzero().ravel()
    for number in range(2):
        model = puma.core.training.fresh(start.model, 4 + number).double().eval()
        order = np.random.default_rng([4, number]).permutation(len(players))
        last = None
        for place in order:
            j = players[place]
            model.zero_grad()
            (a[j] * engine.loss(model(x[j : j + 1]), y[j : j + 1])[0]).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                data = engine.split("validation")
                value = -float(engine.loss(model(data.inputs), data.targets).mean())
            expected = 0.0 if last is None else value - last
            assert found[number, place] == pytest.approx(expected, abs=1e-9)
            last = value


def test_the_learning_rate_is_the_best_of_those_tried():
    told = puma.value(trained().project(), puma.DataShapleyG(orders=2)).diagnostics
    assert len(told["rates"]) == 8
    assert told["rates"][str(told["learning_rate"])] == max(told["rates"].values())
    assert told["retrainings"] == 2 + 80


# --- nearest neighbours ------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [1, 2, 5, 8, 11])
def test_nearest_neighbours_by_all_subsets(neighbours):
    rng = np.random.default_rng(neighbours)
    right = (rng.random((4, 8)) < 0.5).astype(float)
    found = shapley_by_rank(torch.from_numpy(right), neighbours)
    for row, values in zip(right, found, strict=True):
        votes = lambda rows, row=row: row[np.sort(rows)[:neighbours]].sum() / neighbours  # noqa: E731
        np.testing.assert_allclose(values, by_subsets(votes, 8), atol=1e-12)


@pytest.mark.parametrize("space", ["inputs", "penultimate"])
def test_neighbour_values_add_up_to_the_votes_of_scikit_learn(space, monkeypatch):
    project = trained().project()
    engine = Engine(project)
    near, far = (features(engine, space, rows) for rows in (None, engine.split("validation")))
    theirs = KNeighborsClassifier(5).fit(near, project.train.targets.numpy())
    y = project.validation.targets.numpy()
    expected = theirs.predict_proba(far)[np.arange(15), y].mean()
    whole = puma.value(project, puma.KnnShapley(space=space)).scores
    assert whole.sum() == pytest.approx(expected)
    monkeypatch.setattr("puma_dash.core.valuation.knn_shapley.BLOCK_NUMBERS", 4 * 60)
    np.testing.assert_allclose(puma.value(project, puma.KnnShapley(space=space)).scores, whole, atol=1e-12)


def test_neighbour_values_of_eight_rows_by_all_subsets():
    small = case(mlp(3, 3), (3,), 3, n=8)
    (x, y), (far, labels) = small.train, small.validation

    def votes(rows):
        near = rows[np.argsort(((x[rows][None] - far[:, None]) ** 2).sum(-1), 1)[:, :3]]
        return (y[near] == labels[:, None]).sum(1).mean() / 3

    found = puma.value(small.project(), puma.KnnShapley(neighbours=3, space="inputs")).scores
    np.testing.assert_allclose(found, by_subsets(votes, 8), atol=1e-12)


def test_neighbours_vote_on_the_criterions_rows_and_for_labels_only():
    project = trained().project()
    some = puma.value(project, "knn_shapley", puma.CrossEntropy(rows=(1, 2, 3))).scores
    parts = [puma.value(project, "knn_shapley", puma.CrossEntropy(rows=(k,))).scores for k in (1, 2, 3)]
    np.testing.assert_allclose(some, np.mean(parts, 0), atol=1e-12)
    with pytest.raises(puma.ProjectError, match="neighbours vote"):
        puma.value(CASES["regression"].project(), "knn_shapley")
    weighted = puma.value(CASES["weighted softmax"].project(), puma.KnnShapley(space="inputs")).scores
    kept = CASES["weighted softmax"].rows(WEIGHTS > 0)
    alone = puma.value(kept.but(weights=None).project(), puma.KnnShapley(space="inputs")).scores
    np.testing.assert_allclose(weighted[WEIGHTS > 0], alone, atol=1e-12)
    assert (weighted[WEIGHTS == 0] == 0).all()
