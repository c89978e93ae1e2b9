"""Intervals, bands and p-values against SciPy, statsmodels, torchmetrics, closed forms and simulations."""

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import binary_calibration_error

from puma_dash.core.evaluation import calibration, estimates


def ece_of(bins):
    """Expected calibration error: sum over bins of count / n |accuracy - confidence|."""
    gaps = bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])
    return float(np.nansum(gaps) / bins["count"].sum())


def simulated(n, shift, seed):
    """Confidences (n,) and whether each was right, which it is ``shift`` less often than it claims."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(6, 1, n).astype(np.float32)
    return confidence, rng.random(n) < np.clip(confidence - shift, 0, 1)


def covers(found, truth):
    """The share of intervals that hold the truth."""
    return np.mean([each.low <= truth <= each.high for each in found])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 27), (370, 397)])
def test_the_interval_of_a_share_is_wilsons(k, n):
    found = estimates.share(np.arange(n) < k)
    low, high = proportion_confint(k, n, method="wilson")
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_a_share_of_no_rows_is_not_defined():
    assert np.isnan(estimates.share(np.zeros(0, bool)).low)


@pytest.mark.parametrize("n", [300, estimates.MOST_DRAWN + 1])
def test_the_interval_of_a_mean_is_the_one_of_scipy(n):
    values = np.random.default_rng(0).exponential(size=n).astype(np.float32)
    found = estimates.mean(values)
    given = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1), batch=100)
    low, high = given.confidence_interval
    assert found.value == pytest.approx(values.mean(), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * float(high - low))


def test_the_calibration_error_is_the_one_of_torchmetrics():
    confidence, correct = simulated(500, 0.1, 0)
    # Of a binary problem torchmetrics bins the probability itself: here the confidence that the row is right.
    expected = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct), n_bins=15)
    found = calibration.calibration_error(confidence, correct).value
    assert found == pytest.approx(float(expected), abs=1e-6)
    bins = calibration.binned(confidence, correct, calibration.equal_width())
    assert ece_of(bins) == pytest.approx(found)


def test_a_confidence_on_an_edge_is_in_the_bin_above():
    edges = calibration.equal_width()
    assert calibration.bin_of(edges, edges).tolist() == [*range(15), 14]


def test_bins_of_equal_mass_hold_about_as_many_rows_each():
    confidence, correct = simulated(3_000, 0, 1)
    bins = calibration.binned(confidence, correct, calibration.equal_mass(confidence))
    assert len(bins["count"]) == 15
    assert abs(bins["count"] - 200).max() <= 2
    assert np.isfinite(bins["accuracy"]).all()


@pytest.mark.parametrize(("n", "expected"), [(9, 1), (35, 3), (1000, 15)])
def test_bins_of_equal_mass_hold_ten_rows_or_more(n, expected):
    confidence, _ = simulated(n, 0, 2)
    assert len(calibration.equal_mass(confidence)) - 1 == expected


def test_confidences_that_are_all_alike_fill_one_bin():
    confidence = np.ones(50, np.float32)
    bins = calibration.binned(confidence, np.arange(50) < 40, calibration.equal_mass(confidence))
    assert bins["count"].tolist() == [50]
    assert bins["accuracy"][0] == pytest.approx(0.8)


@pytest.mark.parametrize("n", [200, 2_000])
def test_the_consistency_band_covers_as_it_says(n):
    inside, widths = [], []
    for seed in range(150):
        confidence, correct = simulated(n, 0, seed)
        bins = calibration.binned(confidence, correct, calibration.equal_mass(confidence))
        low, high = calibration.consistency_band(bins, seed)
        inside.append((low <= bins["accuracy"]) & (bins["accuracy"] <= high))
        widths.append(high - low)
    assert 0.93 < np.concatenate(inside).mean() < 0.985
    # Not by being wide: nearly that of the binomial distribution of the bin.
    middle, rows = bins["confidence"], bins["count"]
    expected = np.subtract(*stats.binom.ppf([[0.975], [0.025]], rows, middle)) / rows
    assert np.mean(widths) == pytest.approx(expected.mean(), rel=0.25)


def test_the_band_shows_what_is_not_calibrated():
    confidence, correct = simulated(3_000, 0.15, 3)
    bins = calibration.binned(confidence, correct, calibration.equal_mass(confidence))
    low, _ = calibration.consistency_band(bins)
    assert (bins["accuracy"] < low).mean() > 0.9


def test_the_error_that_chance_shows_is_the_one_of_calibrated_models():
    shown = []
    for seed in range(300):
        confidence, correct = simulated(400, 0, seed)
        bins = calibration.binned(confidence, correct, calibration.equal_width())
        shown.append(ece_of(bins))
    mean, most = calibration.calibrated_ece(bins)
    assert mean == pytest.approx(np.mean(shown), rel=0.1)
    assert most == pytest.approx(np.quantile(shown, 0.95), rel=0.1)


@pytest.mark.parametrize("shift", [0, 0.05, 0.15])
@pytest.mark.parametrize("error", [calibration.calibration_error, calibration.smooth_calibration_error])
def test_intervals_of_calibration_errors_cover(monkeypatch, error, shift):
    monkeypatch.setattr(calibration, "RESAMPLES", 300)
    large = np.random.default_rng(0).beta(6, 1, 200_000).astype(np.float32)
    truth = error(large, np.clip(large - shift, 0, 1)).value
    assert truth == pytest.approx(shift, abs=0.005)
    assert covers([error(*simulated(400, shift, seed), seed) for seed in range(100)], truth) > 0.88


@pytest.mark.parametrize("accuracy", [0.3, 0.6, 0.9])
def test_the_smooth_error_of_equal_confidences_is_their_gap(accuracy):
    """The kernel only moves the gap around, whatever its width."""
    confidence, correct = np.full(1_000, 0.6, np.float32), np.arange(1_000) < 1_000 * accuracy
    found = calibration.smooth_calibration_error(confidence, correct)
    assert found.value == pytest.approx(abs(accuracy - 0.6), abs=1e-6)


def test_the_smooth_error_cancels_gaps_that_lie_close():
    """Too low at .50, too high by as much at .51: bins see .2, a kernel wider than their distance little."""
    confidence = np.repeat(np.float32([0.50, 0.51]), 1_000)
    correct = np.concatenate([np.arange(1_000) < 600, np.arange(1_000) < 410])
    assert calibration.smooth_calibration_error(confidence, correct).value < 0.05


@pytest.mark.parametrize(("gap", "groups"), [(0.0, 2), (0.1, 2), (0.3, 2), (0.0, 4), (0.2, 4)])
def test_intervals_of_gaps_between_groups_cover(gap, groups):
    n, p, rng = np.full((1, groups), 100), np.full((1, groups), 0.6), np.random.default_rng(0)
    p[0, 0] -= gap
    found = [estimates.rate_gap(rng.binomial(n, p), n, seed) for seed in range(200)]
    assert covers(found, gap) > 0.88
    assert covers(found, gap + 0.4) < 0.1


def test_the_gap_is_the_larger_of_the_kinds_of_rows():
    found = estimates.rate_gap(np.array([[5, 5], [2, 8]]), np.array([[10, 10], [10, 10]]))
    assert found.value == pytest.approx(0.6)
    assert found.n == 40


@pytest.mark.parametrize("n", [[[10]], [[10, 0]]])
def test_a_gap_that_needs_missing_rows_is_not_defined(n):
    assert np.isnan(estimates.rate_gap(np.minimum(1, n), np.array(n)).value)


def test_the_evidence_of_a_slice_is_fishers():
    errors, n = np.array([0, 3, 8, 30, 30]), np.array([20, 20, 20, 397, 31])
    found = estimates.chance_of_errors(errors, n, 30, 397)
    expected = stats.hypergeom.sf(errors - 1, 397, 30, n)
    assert found == pytest.approx(expected, rel=1e-9)
    _, fisher = stats.fisher_exact([[8, 12], [22, 355]], alternative="greater")
    assert found[2] == pytest.approx(fisher, rel=1e-9)


def test_the_correction_is_holms():
    p = np.random.default_rng(0).random(30) ** 3
    assert estimates.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_slices_drawn_at_random_are_rarely_called_worse():
    rng, wrong = np.random.default_rng(0), np.arange(400) < 40
    rejected = 0
    for _ in range(200):
        parts = [rng.permutation(400)[:40] for _ in range(20)]
        errors = np.array([wrong[rows].sum() for rows in parts])
        p = estimates.holm(estimates.chance_of_errors(errors, np.full(20, 40), 40, 400))
        rejected += (p < 0.05).any()
    assert rejected <= 16
