"""Display metrics against scikit-learn, torchmetrics and statistics textbooks."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, recall_score
from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score
from torchmetrics.functional.classification import multiclass_calibration_error

import puma_dash as puma
from puma_dash.core.evaluation import residuals
from puma_dash.core.evaluation.measures import measures_of
from puma_dash.core.evaluation.metrics import BINS, metrics, metrics_from, per_class, per_row
from puma_dash.core.evaluation.reliability import reliability
from puma_dash.core.evaluation.statistics import mcnemar_p, paired_intervals, row_draws, times_drawn
from puma_dash.core.task import CLASSIFICATION, REGRESSION, TASKS

OF_CLASSES, OF_VALUES = measures_of(CLASSIFICATION), measures_of(REGRESSION)


def drawn(n=400, classes=3, sharpness=2.0, seed=0):
    """Probabilities (n, classes) and labels that follow them only partly."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((n, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.where(rng.random(n) < 0.6, p.argmax(1), rng.integers(0, classes, n))
    return p, y


CASES = {
    "three classes": drawn(),
    "two classes": drawn(classes=2),
    "ten classes, few rows": drawn(12, 10),
    "sure": drawn(sharpness=30.0),
}


@pytest.fixture(params=CASES)
def rows(request):
    return CASES[request.param]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics(rows, dtype):
    p, y = rows[0].astype(dtype), rows[1]
    labels = range(p.shape[1])
    found = metrics(p, y)
    wide = p.astype(float) / p.astype(float).sum(1, keepdims=True)
    assert list(found) == list(CLASSIFICATION.metrics)
    assert found["accuracy"] == accuracy_score(y, p.argmax(1))
    assert found["nll"] == pytest.approx(log_loss(y, wide, labels=labels))
    assert found["brier"] == pytest.approx(brier_score_loss(y, wide, labels=labels, scale_by_half=False))
    third = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), p.shape[1], n_bins=15)
    if p.max() < 1:  # torchmetrics gives a confidence of exactly 1 a sixteenth bin
        assert found["ece"] == pytest.approx(float(third), abs=1e-6)


def test_metrics_from_rows_are_the_metrics(rows):
    p, y = rows
    found = metrics_from(per_row(p, y))
    assert list(found) == list(CLASSIFICATION.metrics)
    assert found == pytest.approx(metrics(p, y), abs=1e-6)


def test_metrics_of_a_perfect_model():
    y = np.arange(9) % 3
    assert metrics(np.eye(3)[y], y) == pytest.approx(
        {"accuracy": 1, "nll": 0, "brier": 0, "ece": 0}, abs=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_add_up_to_the_metrics(rows, dtype):
    """What the intervals resample is what the table shows, for overconfident single-precision models too."""
    p, y = rows[0].astype(dtype), rows[1]
    whole, each = metrics(p, y), per_row(p, y)
    for name, part in (("accuracy", "correct"), ("nll", "nll"), ("brier", "brier")):
        assert each[part].mean() == pytest.approx(whole[name], rel=1e-5)


def test_reliability_is_the_calibration_curve(rows):
    p, y = rows
    table = reliability(p, y)
    accuracy, confidence = calibration_curve(p.argmax(1) == y, p.max(1), n_bins=BINS)
    kept = table[table["count"] > 0]
    np.testing.assert_allclose(kept["accuracy"], accuracy)
    np.testing.assert_allclose(kept["confidence"], confidence)
    assert table["count"].sum() == len(y)
    np.testing.assert_allclose(table["bin_high"] - table["bin_low"], 1 / BINS)
    assert table[table["count"] == 0]["accuracy"].isna().all()


def edges(dtype):
    """Two classes; confidences on the edges of bins, exactly 1 among them."""
    confidence = np.array([8, 9, 10, 11, 12, 13, 14, 15, 15]) / 15
    confidence = np.r_[confidence, 0.51, 0.6, 0.8, 0.95, 0.99].astype(dtype)
    nearby = [np.nextafter(confidence, dtype(side)).clip(max=1) for side in (0, 2)]
    confidence = np.concatenate([confidence, *nearby])
    return np.stack([confidence, 1 - confidence], 1), np.resize([0, 1, 1, 0], len(confidence))


@pytest.mark.parametrize("rows", [*CASES.values(), edges(np.float32), edges(np.float64)])
def test_one_ece_everywhere(rows):
    """The metric, the diagram's bins and the resampled value agree, on the edges of bins too."""
    p, y = rows
    table = reliability(p, y)
    gaps = (table["count"] / len(y) * (table["accuracy"] - table["confidence"]).abs()).sum()
    assert gaps == pytest.approx(metrics(p, y)["ece"], abs=1e-6)
    whole = np.arange(len(y))
    resampled = metrics_from(per_row(p, y), times_drawn(np.stack([whole, whole[::-1]])))
    assert resampled["ece"] == pytest.approx([gaps, gaps])


def regression(n=200, k=1, seed=0):
    """Values (n, k) and targets that follow them only partly, far from 0."""
    rng = np.random.default_rng(seed)
    values = 100 + 5 * rng.standard_normal((n, k))
    return values, 20 + 0.8 * values + 3 * rng.standard_normal((n, k)) * np.arange(1, k + 1)


ANSWERED = {
    **{name: (OF_CLASSES, *case) for name, case in CASES.items()},
    "values": (OF_VALUES, *regression()),
    "three values, few rows": (OF_VALUES, *regression(12, 3)),
}


@pytest.mark.parametrize(("measures", "answers", "targets"), ANSWERED.values(), ids=ANSWERED)
def test_metrics_of_resamples_are_those_of_the_rows_drawn(measures, answers, targets):
    index = np.random.default_rng(0).integers(0, len(targets), (2, 3, len(targets)))
    rows = measures.per_row(answers, targets)
    found = measures.metrics_from(rows, times_drawn(index))
    assert measures.metrics_from(rows) == pytest.approx(measures.metrics(answers, targets), abs=1e-6)
    for name, values in found.items():
        assert values.shape == (2, 3)
        for place in np.ndindex(2, 3):
            chosen = index[place]
            truth = measures.metrics(answers[chosen], targets[chosen])[name]
            assert values[place] == pytest.approx(truth, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 3])
def test_metrics_of_values(k, dtype):
    values, y = (part.astype(dtype) for part in regression(k=k))
    found = residuals.metrics(values, y)
    assert list(found) == list(REGRESSION.metrics)
    wide, truth = torch.tensor(values).double(), torch.tensor(y).double()
    assert found["rmse"] == pytest.approx(float(mean_squared_error(wide, truth, squared=False)))
    assert found["mae"] == pytest.approx(float(mean_absolute_error(wide, truth)))
    assert found["r2"] == pytest.approx(float(r2_score(wide, truth)))


def test_r2_is_not_defined_where_nothing_varies():
    values = regression(20, 2)[0]
    constant = np.stack([np.full(20, 7.0), np.arange(20.0)], 1)
    assert np.isnan(residuals.metrics(values, constant)["r2"])
    assert np.isnan(residuals.metrics_from(residuals.per_row(values, constant))["r2"])
    found = paired_intervals(values, values + 1, constant, OF_VALUES)
    assert np.isnan(found["r2"]).all()
    assert np.isfinite(found["rmse"]).all()


def test_intervals_of_values():
    """Of MAE that of the normal law; of R² and RMSE that of resampling scikit-learn's by hand."""
    (before, y), after = regression(400), regression(400)[0] + 0.5
    found = paired_intervals(before, after, y, OF_VALUES)
    change = (np.abs(after - y) - np.abs(before - y))[:, 0]
    low, high = norm.interval(0.95, change.mean(), change.std() / 20)
    np.testing.assert_allclose(found["mae"], (low, high), atol=0.1 * (high - low))
    drawn = np.random.default_rng(7).integers(0, 400, (1_000, 400))
    for name in ("r2", "rmse"):
        changes = [
            residuals.metrics(after[rows], y[rows])[name] - residuals.metrics(before[rows], y[rows])[name]
            for rows in drawn
        ]
        low, high = np.quantile(changes, [0.025, 0.975])
        np.testing.assert_allclose(found[name], (low, high), atol=0.15 * (high - low))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_offers_what_it_measures(task):
    assert puma.CRITERIA[task.criterion].task is task
    assert set(task.headline) <= set(task.metrics)
    assert any(kind.task is task for kind in puma.LOSSES.values())
    example = drawn() if task is CLASSIFICATION else regression()
    assert list(measures_of(task).metrics(*example)) == list(task.metrics)


def test_per_class(rows):
    p, y = rows
    names = tuple(f"class {k}" for k in range(p.shape[1]))
    table = per_class(p, y, names)
    assert tuple(table["class"]) == names
    assert table["n"].tolist() == np.bincount(y, minlength=len(names)).tolist()
    present = table["n"] > 0
    expected = recall_score(y, p.argmax(1), labels=range(len(names)), average=None, zero_division=np.nan)
    np.testing.assert_allclose(table["accuracy"][present], expected[present])
    assert table["accuracy"][~present].isna().all()


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (5, 0), (7, 3), (30, 41)])
def test_mcnemar_is_a_coin_toss(fixed, broken):
    expected = 1.0 if fixed + broken == 0 else binomtest(fixed, fixed + broken).pvalue
    assert mcnemar_p(fixed, broken) == pytest.approx(expected)


def test_intervals_of_means_are_those_of_the_normal_law():
    (before, y), (after, _) = drawn(2_000), drawn(2_000, seed=1)
    found = paired_intervals(before, after, y, OF_CLASSES)
    for name, part in (("accuracy", "correct"), ("nll", "nll"), ("brier", "brier")):
        change = per_row(after, y)[part] - per_row(before, y)[part]
        low, high = norm.interval(0.95, change.mean(), change.std() / len(y) ** 0.5)
        np.testing.assert_allclose(found[name], (low, high), atol=0.1 * (high - low))


def test_the_interval_of_the_ece_is_that_of_resampling_by_hand():
    (before, y), (after, _) = drawn(300, sharpness=5.0), drawn(300, sharpness=0.3, seed=1)
    rng = np.random.default_rng(7)
    changes = []
    for rows in rng.integers(0, 300, (200, 300)):
        old, new = (metrics(p[rows], y[rows])["ece"] for p in (before, after))
        changes.append(new - old)
    low, high = np.quantile(changes, [0.025, 0.975])
    assert high < 0 or low > 0  # so that the sign shows
    np.testing.assert_allclose(
        paired_intervals(before, after, y, OF_CLASSES)["ece"], (low, high), atol=0.2 * (high - low)
    )


def test_intervals_know_their_seed_and_their_level():
    (before, y), (after, _) = drawn(100), drawn(100, seed=1)
    given = before, after, y, OF_CLASSES
    assert paired_intervals(*given) == paired_intervals(*given)
    assert paired_intervals(*given) != paired_intervals(*given, seed=1)
    wide, narrow = (paired_intervals(*given, level=level)["nll"] for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_no_change_has_no_width():
    p, y = drawn(50)
    assert set(paired_intervals(p, p, y, OF_CLASSES).values()) == {(0.0, 0.0)}


def test_row_interval():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = np.quantile(
        row_draws(lambda rows: float(values[rows].mean()), np.zeros(400), seed=0), [0.25, 0.75]
    )
    expected = norm.interval(0.5, values.mean(), values.std() / 20)
    np.testing.assert_allclose((low, high), expected, atol=0.01)


def test_a_resample_keeps_its_strata():
    """Between strata nothing varies, and the order of the rows does not matter."""
    rng = np.random.default_rng(0)
    strata = rng.permutation(np.repeat([-1, 0, 3], [100, 250, 50]))
    values = rng.standard_normal(400) + 10 * strata
    seen = []

    def mean(rows):
        seen.append(np.bincount(strata[rows] + 1))
        return float(values[rows].mean())

    low, high = np.quantile(row_draws(mean, strata, seed=0), [0.25, 0.75])
    variance = sum(values[strata == k].var() * (strata == k).sum() for k in (-1, 0, 3)) / 400**2
    expected = norm.interval(0.5, values.mean(), variance**0.5)
    np.testing.assert_allclose((low, high), expected, atol=0.01)
    assert np.unique(seen, axis=0).tolist() == [[100, 250, 0, 0, 50]]
