"""Sums of psi, against the formula written out and against the forecast of the same plan."""

import subprocess
import sys

import numpy as np
import pytest

import puma_dash as puma

from .cases import CASES, Reference, trained

N = 40
PSI = np.random.default_rng(0).standard_normal((3, N))
ROWS = np.array([31, 2, 17, 5])
MASK = np.isin(np.arange(N), ROWS)


@pytest.mark.parametrize(
    "rows",
    [ROWS, ROWS.tolist(), tuple(ROWS), np.sort(ROWS), ROWS.astype(np.uint8), MASK, puma.Selection(ROWS)],
    ids=["array", "list", "tuple", "sorted", "bytes", "mask", "selection"],
)
def test_removing_rows_changes_each_criterion_by_their_psi_over_n(rows):
    expected = [sum(psi[j] for j in ROWS) / N for psi in PSI]
    np.testing.assert_allclose(puma.predicted_change(PSI, rows), expected)
    np.testing.assert_allclose(puma.predicted_change(PSI[1], rows), expected[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_row_may_have_an_e_of_its_own(dtype):
    e = np.array([0.5, -1.0, 2.0, 0.0])
    psi = PSI.astype(dtype)
    expected = [-sum(weight * row[j] for j, weight in zip(ROWS, e, strict=True)) / N for row in psi]
    np.testing.assert_allclose(puma.predicted_change(psi, ROWS, e), expected, rtol=1e-12)
    dense = np.zeros(N)
    dense[ROWS] = e
    np.testing.assert_allclose(puma.predicted_change(psi, e=dense), expected, rtol=1e-12)
    np.testing.assert_allclose(
        puma.predicted_change(psi, MASK, e=2.0), -2 * psi[:, MASK].sum(1) / N, rtol=1e-5
    )


@pytest.mark.parametrize("nothing", [[], (), np.zeros(N, dtype=bool), puma.Selection([])])
def test_no_rows_no_change(nothing):
    assert puma.predicted_change(PSI, nothing).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("rows", "e", "message"),
    [
        ([0, N], -1, f"rows 0 to {N - 1}"),
        ([-1, 3], -1, "got -1"),
        ([3, 5, 3], -1, "repeated"),
        (MASK[:-1], -1, f"mask of all {N} rows"),
        ([1.0, 2.0], -1, "row numbers or a mask"),
        ([[1, 2]], -1, "row numbers or a mask"),
        ([1, 2], [1.0, 1.0, 1.0], "each of 2 rows"),
        (None, np.ones(N - 1), f"each of {N} rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, e, message):
    with pytest.raises(puma.ProjectError, match=message):
        puma.predicted_change(PSI, rows, e)


@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "one logit"])
def test_identity_with_the_forecast_and_with_dense_psi(name):
    case, curvature = CASES[name], puma.Dense(damping=0.05)
    project, held = case.project(), ("cross_entropy", "brier")
    plan = puma.PatchPlan(remove=(1, 2, 9), upweight={5: 2.0}, hold=held, method="influence", strength=0.5)
    psi = np.stack([puma.value(project, "psi", key, curvature=curvature).scores for key in held])
    dense = np.stack([Reference(case).psi(key, damping=0.05) for key in held])
    found = puma.forecast(project, plan, curvature=curvature).criteria
    for table in (psi, dense):
        sums = plan.strength * puma.predicted_change(table, [1, 2, 9, 5], [-1, -1, -1, 2.0])
        assert dict(zip(held, sums, strict=True)) == pytest.approx(found)


def test_the_curve_is_the_change_of_each_number_of_harmful_rows():
    """Of ``Valuation.harmful``, ties included."""
    by = np.round(PSI[0], 1)
    curve = puma.curve_by_rows(by, PSI, 12, names=["a", "b", "c"])
    harmful = puma.Valuation(by, "psi", "a", "", {}).harmful
    assert list(curve) == ["k", "a", "b", "c"]
    assert curve["k"].is_monotonic_increasing
    assert curve["k"].is_unique
    assert {0, 1, N} <= set(curve["k"])
    assert 10 < len(curve) <= 12 + 1 + 3
    for k, *changes in curve.to_numpy():
        np.testing.assert_allclose(changes, puma.predicted_change(PSI, harmful(int(k))), atol=1e-12)


def test_the_curve_goes_through_the_minimum_of_each_criterion():
    curve = puma.curve_by_rows(PSI[0], PSI, 5).set_index("k")
    every = puma.curve_by_rows(PSI[0], PSI, 500).set_index("k")
    assert every.index.tolist() == list(range(N + 1))
    assert curve.min().tolist() == every.min().tolist()
    assert curve[0].idxmin() == (PSI[0] < 0).sum()
    assert puma.curve_by_rows(PSI[0], PSI[0], 5)[0].min() == curve[0].min()


def test_a_curve_over_a_million_rows_keeps_few_points():
    psi = np.random.default_rng(1).standard_normal(1_000_000).astype(np.float32)
    curve = puma.curve_by_rows(psi, psi)
    assert 150 < len(curve) <= 202
    assert curve[0].min() == pytest.approx(psi[psi < 0].sum(dtype=float) / len(psi), rel=1e-9)


def test_sums_of_psi_need_no_torch():
    code = (
        "import sys, numpy, puma_dash as puma; psi = numpy.ones((2, 5)); puma.curve_by_rows(psi[0], psi); "
        "assert puma.predicted_change(psi, [1]).tolist() == [0.2, 0.2]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_forecast_and_its_sums_agree_for_small_strengths():
    """The refined change leaves the sum of psi only as the strength grows."""
    project, small = trained().project(), 1e-5
    plan = puma.PatchPlan(
        remove=(1, 2, 9), relabel={0: 1}, hold=("cross_entropy", "brier"), strength=small, method="influence"
    )
    found = puma.forecast(project, plan, curvature=puma.Dense(damping=0.05))
    assert found.refined == pytest.approx(found.criteria, rel=1e-3)
