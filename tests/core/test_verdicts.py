"""Verdicts: against closed forms and statsmodels, and how often they are wrong in simulations."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from puma_dash.core.evaluation.statistics import row_draws
from puma_dash.core.evaluation.verdicts import ALPHA, evidence, holm, judged, verdict

rng = np.random.default_rng(0)
SIMULATED = 250


@pytest.mark.parametrize("p", [[0.04], [0.01, 0.04, 0.03], [0.5, 0.001, 0.02, 0.02, 1.0], [0.9, 0.9]])
def test_holm_is_that_of_statsmodels(p):
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("n", [12, 30, 400])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_for_a_mean_it_is_the_t_test(n, tolerance):
    """The bootstrap of a mean is nearly normal with the variance of the rows over n - not n - 1."""
    rows = rng.normal(0.3, 1.0, n)
    draws = rows.mean() + rows.std() / np.sqrt(n) * stats.norm.isf((np.arange(20_000) + 0.5) / 20_000)
    found = evidence(draws, tolerance, n)
    expected = stats.ttest_1samp(rows, tolerance)
    interval = expected.confidence_interval(1 - ALPHA)
    assert found.p == pytest.approx(expected.pvalue, rel=0.02, abs=2e-3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.03, abs=3e-3)
    assert found.within == (rows.mean() <= tolerance)


def test_one_row_says_nothing():
    assert evidence(np.full(100, -5.0), 0.0, 1).p == 1


def test_no_change_is_within_any_tolerance():
    found = evidence(np.zeros(1_000), 0.0, 50)
    assert (found.within, found.low, found.high) == (True, 0, 0)
    assert found.p < ALPHA


@pytest.mark.parametrize(
    ("p", "within", "said"), [(0.06, True, "inconclusive"), (0.05, True, "pass"), (0.01, False, "fail")]
)
def test_a_verdict_needs_evidence(p, within, said):
    assert verdict(p, within) == said


def rails_of(rows, tolerances):
    """The table of rails that are means of the columns of ``rows`` (n, m)."""
    n = len(rows)
    changes = [
        {
            "measured": column.mean(),
            **evidence(column[rng.integers(n, size=(400, n))].mean(1), most, n)._asdict(),
        }
        for column, most in zip(rows.T, tolerances, strict=True)
    ]
    return judged(changes)


DRAWN = {
    "normal": lambda n, m: rng.normal(0, 1, (n, m)),
    "skewed": lambda n, m: rng.exponential(1, (n, m)) - 1,
    "three values": lambda n, m: rng.choice([-1.0, 0.0, 1.0], (n, m), p=[0.3, 0.4, 0.3]),
}


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize(("n", "m"), [(12, 1), (60, 4)])
def test_at_the_tolerance_a_table_is_rarely_wrong(kind, n, m):
    """Every change is exactly its tolerance: any verdict but inconclusive is an error of the first kind."""
    wrong = sum(
        (rails_of(DRAWN[kind](n, m) + 0.2, [0.2] * m)["verdict"] != "inconclusive").any()
        for _ in range(SIMULATED)
    )
    allowed = 0.05 if kind != "skewed" else 0.10  # the bootstrap's known weakness for few skewed rows
    assert wrong / SIMULATED < allowed + 3 * np.sqrt(allowed * (1 - allowed) / SIMULATED)


def test_what_is_clear_is_seen():
    table = rails_of(rng.normal([-1.0, 0.0, 1.0], 1, (200, 3)), [0.0, 0.0, 0.0])
    assert table["verdict"].tolist()[::2] == ["pass", "fail"]


def test_resamples_stay_within_their_stratum():
    strata = np.array([0, 0, 1, 1, 1])
    drawn = row_draws(lambda rows: float((strata[rows] == 1).sum()), strata, seed=0, resamples=50)
    assert set(drawn) == {3.0}
