"""What Health finds: against scikit-learn, fairlearn and counting by hand; and what its charts keep."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from sklearn.metrics import confusion_matrix

from puma_dash.core.evaluation import calibration
from puma_dash.ui import findings, health, health_figures, style
from puma_dash.ui.health import Held

HOSTILE = "<b>a</b> & #000012 *x* " + "y" * 100


def held(n=400, classes=2, groups=True, seed=0):
    """Validation rows of a model that errs more often in group b."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, n).astype(np.int32)
    group, age = rng.integers(0, 2, n).astype(np.int32), rng.normal(40, 10, n)
    age[:5] = np.nan
    wrong = rng.random(n) < np.where(group == 1, 0.4, 0.1)
    predicted = np.where(wrong, (target + 1) % classes, target).astype(np.int32)
    confidence = rng.uniform(0.6, 1, n).astype(np.float32)
    return Held(
        key=f"{n}-{classes}-{groups}-{seed}",
        classes=[f"c{k}" for k in range(classes)],
        target=target,
        predicted=predicted,
        confidence=confidence,
        loss=rng.exponential(size=n).astype(np.float32),
        brier=rng.random(n).astype(np.float32),
        columns={"group": (group, ["a", "b"]), "age": (age, None)} if groups else {},
        groups=["group"] if groups else [],
    )


def right(rows_of):
    return rows_of.predicted == rows_of.target


# -------------------------------------------------------------------------------------------------- findings


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_confusions_are_those_of_scikit_learn(classes):
    rows = held(classes=classes)
    expected = confusion_matrix(rows.target, rows.predicted, labels=range(classes))
    assert (health.confusions(rows) == expected).all()
    i, j = health.worst_cell(expected)
    assert expected[i, j] == (expected - np.diag(np.diag(expected))).max()
    found = health.cell(rows, i, j)
    assert len(found.rows) == expected[i, j]
    assert (rows.target[found.rows] == i).all()
    assert (rows.predicted[found.rows] == j).all()
    assert found.name == f"c{i} taken for c{j}"


def test_of_equal_cells_the_larger_share_of_its_class_comes_first():
    assert health.worst_cell(np.array([[90, 3, 0], [3, 20, 0], [0, 0, 5]])) == (1, 0)
    assert health.worst_cell(np.diag([3, 4])) is None


def test_of_many_classes_those_in_most_errors_are_shown():
    counts = np.diag(np.full(40, 10))
    counts[3, 39] = counts[20, 7] = 5
    shown = health.most_confused(counts)
    assert len(shown) == health.MOST_CLASSES
    assert {3, 7, 20, 39} <= set(shown.tolist())
    assert (np.diff(shown) > 0).all()


@pytest.mark.parametrize("positive", [0, 1])
def test_gaps_between_groups_are_those_of_fairlearn(positive):
    rows = held()
    truth, chosen, group = rows.target == positive, rows.predicted == positive, rows.columns["group"][0]
    parity, odds = health.parity_gaps(rows, "group", positive)
    assert parity.value == pytest.approx(
        demographic_parity_difference(truth, chosen, sensitive_features=group)
    )
    assert odds.value == pytest.approx(equalized_odds_difference(truth, chosen, sensitive_features=group))
    assert parity.low <= parity.value <= parity.high


def test_rows_without_a_group_count_in_none():
    rows = held()
    codes, names = rows.columns["group"]
    unknown = codes.copy()
    unknown[:50] = -1
    some = Held(**{**vars(rows), "key": "some", "columns": {"group": (unknown, names)}})
    rest = {
        name: vars(rows)[name][50:] for name in ("target", "predicted", "confidence", "loss", "brier")
    } | {"key": "rest", "columns": {"group": (codes[50:], names)}}
    known = Held(**{**vars(rows), **rest})
    assert health.parity_gaps(some, "group", 1)[0].value == health.parity_gaps(known, "group", 1)[0].value
    assert some.parts("group")["missing"].sum() == 50


def test_the_worst_group_is_the_one_with_the_lowest_accuracy():
    rows = held()
    name, found = health.worst(rows, "group")
    assert (name, found.n) == ("b", (rows.columns["group"][0] == 1).sum())
    assert health.worst(rows, None)[0] in rows.classes


def test_numbers_are_cut_into_quarters_and_missing_ones_stand_apart():
    parts = held().parts("age")
    assert [rows.sum() for rows in parts.values()] == pytest.approx([99, 99, 99, 98, 5], abs=1)
    assert np.stack(list(parts.values())).sum(0).tolist() == [1] * 400


def test_a_column_that_is_missing_everywhere_or_constant_is_one_part():
    rows = held()
    odd = {"none": (np.full(400, np.nan), None), "one": (np.full(400, 3.0), None)}
    rows = Held(**{**vars(rows), "key": "odd", "columns": odd})
    assert list(rows.parts("none")) == ["missing"]
    assert len(rows.parts("one")) <= 1
    assert findings.slices(rows)


def test_slices_are_counted_and_sorted_by_evidence():
    rows = held(2_000)
    table, known = findings.slice_table(rows), findings.slices(rows)
    first = table.iloc[0]
    assert first["name"] == "group = b"
    for _, line in table.iterrows():
        each = known[line["slice"]]
        inside = np.isin(np.arange(rows.n), each.rows)
        assert line["name"] == each.name
        assert line["n"] == inside.sum()
        assert line["accuracy"] == pytest.approx(right(rows)[inside].mean())
        assert line["difference"] == pytest.approx(right(rows)[inside].mean() - right(rows)[~inside].mean())
        assert line["nll"] == pytest.approx(rows.loss[inside].mean(), rel=1e-5)
    ranked = table["p"].notna()
    assert table["p"][ranked].is_monotonic_increasing
    assert (table["n"][~ranked] < findings.FEW).all()
    assert ranked.iloc[: ranked.sum()].all()


def test_a_large_difference_of_few_rows_is_not_ranked_above_evidence():
    rows = held(2_000)
    rare = np.zeros(2_000, np.int32)
    rare[np.flatnonzero(~right(rows))[:5]] = 1  # all wrong, but only five
    rows = Held(**{**vars(rows), "key": "rare", "columns": {**rows.columns, "rare": (rare, ["no", "yes"])}})
    table = findings.slice_table(rows)
    assert table["name"].iloc[0] == "group = b"
    assert table.set_index("name").loc["rare = yes", ["p", "corrected"]].isna().all()


def test_the_findings_lead_with_accuracy_and_the_most_frequent_error():
    rows = held()
    counts = health.confusions(rows)
    i, j = health.worst_cell(counts)
    first, slice_found, calibrated = findings.findings(rows)
    assert first.startswith(f"Accuracy {100 * right(rows).mean():.1f} % (")
    assert f"Most errors: c{i} taken for c{j} ({counts[i, j]} of {counts[i].sum()})." in first
    assert "group = b" in slice_found
    assert "p < .001" in slice_found
    assert "under" in calibrated or "over" in calibrated or "chance" in calibrated


def test_a_model_without_errors_is_found_to_have_none():
    rows = held()
    rows = Held(**{**vars(rows), "key": "right", "predicted": rows.target})
    first, slice_found, _ = findings.findings(rows)
    assert first.endswith("No errors.")
    assert slice_found == "No slice has more errors than chance explains."


@pytest.mark.parametrize("binning", ["equal width", "equal mass"])
def test_a_bin_is_explored_with_exactly_its_rows(binning):
    rows = held()
    parts = health.calibration_parts(rows)
    assert len(parts) == 1 + 2 + 2
    for part, mask in parts.items():
        inside = np.ones(rows.n, bool) if mask is None else mask
        edges, bins, _ = health.reliability(rows, part, binning)
        gap = rows.confidence[inside].mean() - right(rows)[inside].mean()
        assert health.mean_gap(bins) == pytest.approx(gap, abs=1e-6)
        found = [health.bin_slice(rows, part, mask, edges, b).rows for b in range(len(bins["count"]))]
        assert [len(each) for each in found] == bins["count"].tolist()
        assert np.sort(np.concatenate(found)).tolist() == np.flatnonzero(inside).tolist()


def test_edges_are_told_apart_where_nearly_all_rows_are_sure():
    rows = held()
    sure = (1 - np.logspace(-7, -2, 400)).astype(np.float32)
    rows = Held(**{**vars(rows), "key": "sure", "confidence": sure})
    edges, bins, _ = health.reliability(rows, "all rows (400)", "equal mass")
    names = {health.bin_slice(rows, "all", None, edges, b).name for b in range(len(bins["count"]))}
    assert len(names) == len(bins["count"]) > 5
    assert not any(name.endswith("1 to 1") for name in names)


def test_tails_begin_three_robust_deviations_from_the_median():
    psi = np.random.default_rng(0).normal(2, 0.5, 100_000)
    psi[:7], psi[7:10] = -50, 90
    harmful, valuable, (low, high) = health.tails(psi)
    assert (low, high) == pytest.approx((0.5, 3.5), abs=0.02)
    assert set(range(7)) <= set(harmful.tolist())
    assert {7, 8, 9} <= set(valuable.tolist())
    assert len(harmful) + len(valuable) - 10 == pytest.approx(270, abs=60)
    assert health.top_share(np.array([1.0, -99.0])) == pytest.approx(0.99)


# ---------------------------------------------------------------------------------------------------- charts


def charts():
    rows = held(classes=3)
    counts = health.confusions(rows)
    titles = {"title": HOSTILE, "subtitle": HOSTILE}
    yield health_figures.confusion_figure(counts, [HOSTILE, "b", "c"], picked=(0, 1), **titles)
    bins = calibration.binned(rows.confidence, right(rows), calibration.equal_width())
    band = calibration.consistency_band(bins)
    yield health_figures.band_figure(bins, band, picked=12, **titles)
    yield health_figures.psi_figure(rows.loss - 1, (-0.5, 0.5), title=HOSTILE)


def test_charts_keep_text_plain_and_backgrounds_clear():
    for figure in charts():
        text = figure.to_json()
        assert "<b>" not in json.loads(text)["layout"]["title"]["text"]
        assert "#000012" not in text
        assert "<b>a" not in text.replace("\\u003c", "<")
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == style.CLEAR


def test_a_click_anywhere_in_a_cell_is_one_on_its_point():
    counts = np.array([[5, 1, 0], [2, 7, 0], [0, 0, 9]])
    figure = health_figures.confusion_figure(counts, ["a", "b", "c"], title="t", subtitle="s", picked=None)
    clickable = [trace for trace in figure.data if trace.hoverinfo != "skip"]
    assert len(clickable) == 1
    trace = clickable[0]
    for point in range(9):
        i, j = divmod(point, 3)
        assert (trace.y[point], trace.x[point]) == (i, j)
        assert trace.text[point] == (str(counts[i, j]) if counts[i, j] else "")
    assert "b predicted a: 2 of 9 (22.2 %)" in trace.hovertext[3]
    assert figure.layout.hoverdistance == -1


def test_both_clickable_traces_of_the_reliability_diagram_number_the_same_bins():
    rows = held()
    bins = calibration.binned(rows.confidence, right(rows), calibration.equal_width())
    figure = health_figures.band_figure(
        bins, calibration.consistency_band(bins), title="t", subtitle="s", picked=None
    )
    filled = np.flatnonzero(bins["count"])
    clickable = [t for t in figure.data if t.hoverinfo != "skip" and t.x[0] is not None]
    assert len(clickable) == 2
    dots, bars = clickable
    assert isinstance(bars, go.Bar)
    assert dots.y == pytest.approx(bins["accuracy"][filled], rel=1e-6)
    assert bars.y.tolist() == bins["count"][filled].tolist()


def test_alternative_texts_name_what_stands_out():
    counts = np.array([[5, 1], [2, 7]])
    alt = health_figures.confusion_alt(counts, ["a", "b"])
    assert alt == (
        "Confusion matrix of 2 classes, 12 of 15 rows right: b taken for a 2 times, a taken for b 1 times."
    )
    confidence = np.full(1_000, 0.95, np.float32)
    bins = calibration.binned(confidence, np.arange(1_000) < 700, calibration.equal_width())
    alt = health_figures.band_alt(bins, calibration.consistency_band(bins))
    assert "outside the consistency band in 1, accuracy 0.70 where confidence is 0.95" in alt


@pytest.mark.parametrize(
    "event", [{}, {"point_indices": []}, {"point_indices": ["x"]}, {"point_indices": [-1]}]
)
def test_what_is_not_a_click_picks_nothing(event):
    assert health_figures.clicked(event) is None
