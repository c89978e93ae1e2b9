"""What the pages say of values: against numpy, scipy and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from puma_dash.core.evaluation import estimates, residuals
from puma_dash.ui import values, values_figures
from puma_dash.ui.answers import Classes, Values, answers_in
from puma_dash.ui.compare import forgotten_sentences, outcome_sentence, race_table
from puma_dash.ui.values import HeldValues
from puma_dash.ui.values_charts import values_chart
from puma_dash.workspace.records import table


def held(n=400, k=1, off=0.0, seed=0):
    """Validation rows of a regression that errs more in group b."""
    rng = np.random.default_rng(seed)
    target = rng.normal(100, 20, (n, k)).astype(np.float32)
    group = rng.integers(0, 2, n).astype(np.int32)
    error = rng.normal(off, 1, (n, k)) * np.where(group == 1, 12, 4)[:, None]
    predicted = (target + error).astype(np.float32)
    return HeldValues(
        key=f"{n}-{k}-{off}-{seed}",
        outputs=["first", "second"][:k],
        target=target,
        predicted=predicted,
        loss=((predicted - target) ** 2).mean(1),
        columns={"group": (group, ["a", "b"]), "age": (rng.normal(40, 10, n), None)},
        groups=["group"],
    )


@pytest.mark.parametrize("k", [1, 2])
def test_figures_and_their_intervals(k):
    rows = held(k=k)
    found = values.figures(rows)
    assert found["rmse"].value == pytest.approx(mean_squared_error(rows.target, rows.predicted) ** 0.5)
    assert found["mae"].value == pytest.approx(mean_absolute_error(rows.target, rows.predicted), rel=1e-6)
    assert found["r2"].value == pytest.approx(r2_score(rows.target, rows.predicted))
    error = rows.error
    low, high = stats.norm.interval(0.95, error.mean(), error.std() / 20)
    assert (found["mae"].low, found["mae"].high) == pytest.approx((low, high), abs=0.1 * (high - low))
    drawn = np.random.default_rng(3).integers(0, 400, (1_000, 400))
    again = [r2_score(rows.target[some], rows.predicted[some]) for some in drawn]
    ends = np.quantile(again, [0.025, 0.975])
    assert (found["r2"].low, found["r2"].high) == pytest.approx(tuple(ends), abs=0.15 * np.ptp(ends))


def test_many_rows_are_resampled_by_their_normal_law(monkeypatch):
    rows = held(2_000)
    columns = residuals.contributions(residuals.per_row(rows.predicted, rows.target))
    drawn = estimates.of_means(columns, residuals.from_means)
    monkeypatch.setattr(estimates, "MOST_DRAWN", 100)
    normal = estimates.of_means(columns, residuals.from_means)
    for name, one in drawn.items():
        width = one.high - one.low
        assert normal[name].value == one.value
        assert (normal[name].low, normal[name].high) == pytest.approx((one.low, one.high), abs=0.1 * width)


def test_slices_by_the_rank_of_their_errors():
    rows = held()
    table_ = values.slice_table(rows)
    assert table_["p"].is_monotonic_increasing
    first = table_.iloc[0]
    assert first["name"] == "group = b"
    inside = rows.columns["group"][0] == 1
    error = np.abs(rows.predicted - rows.target)[:, 0]
    truth = stats.mannwhitneyu(error[inside], error[~inside], alternative="greater")
    assert first["p"] == pytest.approx(truth.pvalue)
    own, rest = ((error[part] ** 2).mean() ** 0.5 for part in (inside, ~inside))
    assert (first["rmse"], first["difference"]) == pytest.approx((own, own - rest), rel=1e-6)
    assert (table_["corrected"].dropna() >= table_["p"].dropna() - 1e-15).all()
    found = values.slices(rows)
    assert len(found) == 4 + 2 + 4  # quarters of the predictions, groups, quarters of the age
    quarters = [each.rows for each in found if each.name.startswith("prediction")]
    assert np.sort(np.concatenate(quarters)).tolist() == list(range(400))


def test_small_slices_are_not_ranked():
    rows = held(30)
    assert values.slice_table(rows)["p"].isna().sum() == sum(len(s.rows) < 20 for s in values.slices(rows))


@pytest.mark.parametrize(
    ("off", "told"), [(0.0, "within what chance explains"), (2.0, "too high on average")]
)
def test_findings(off, told):
    lead, slices, sides = values.findings(held(off=off, seed=1))
    assert lead.startswith("RMSE ")
    assert "Worst slice: group = b" in slices
    assert told in sides


def test_bins_hold_every_residual_once():
    rows = held(off=1.0)
    bins = values.bins(rows, 0)
    assert bins["before"].sum() == 400
    numbers = range(len(bins["before"]))
    parts = [values.bin_slice(rows, 0, number).rows for number in numbers]
    assert [len(part) for part in parts] == bins["before"].tolist()
    assert np.sort(np.concatenate(parts)).tolist() == list(range(400))
    assert 0.0 in np.append(bins["low"], bins["high"][-1]).round(12)


def test_the_largest_errors():
    rows = held()
    found = values.largest(rows).rows
    error = np.abs(rows.predicted - rows.target)[:, 0]
    assert len(found) == 20
    assert error[found].min() >= np.delete(error, found).max()


# -------------------------------------------------------------------------------------------- rows in words


def test_rows_of_a_classifier():
    info = {"task": "classification", "classes": ["cat", "dog"]}
    arrays = {
        "target": np.array([0, 1, 1]),
        "predicted": np.array([0, 0, 1]),
        "confidence": np.float32([1, 0.75, 0.5]),
    }
    found = answers_in(info, arrays)
    assert isinstance(found, Classes)
    assert found.told(np.array([1])) == ["label dog, predicted cat (75 %)"]
    assert found.summary(np.arange(3)) == "**Labels** dog: 2, cat: 1"
    assert list(found.fields()) == ["label", "prediction", "fit", "confidence"]
    assert found.columns(np.array([2]))["prediction"] == ["dog"]


def test_rows_of_a_regression():
    info, arrays = {"task": "regression", "classes": ["y"]}, {"v.target": np.array([[1.0], [3.0]])}
    found = answers_in(info, {**arrays, "v.predicted": np.array([[1.5], [2.0]])}, "v.")
    assert isinstance(found, Values)
    assert found.told(np.array([1])) == ["target 3, predicted 2"]
    assert found.summary(np.arange(2)) == "**Mean target** 2, **mean residual** -0.25"
    assert found.columns(np.array([1]))["residual"].tolist() == [-1.0]
    both = Values(["a", "b"], np.ones((3, 2)), np.zeros((3, 2)))
    assert list(both.fields())[:2] == ["target of a", "prediction of a"]
    assert both.words(both.target[:1]) == ["1, 1"]


# ------------------------------------------------------------------------------------------------- compared


def compared(n=600):
    """A comparison's record."""
    metrics = pd.DataFrame(
        {"before": [61.9, 49.0, 0.42], "after": [61.3, 48.2, 0.43]}, index=["rmse", "mae", "r2"]
    ).assign(change=-0.6, low=-1.2, high=0.1)
    rows = np.arange(4)
    answers = pd.DataFrame(
        {"row": rows, "output": "y", "target": rows * 1.0, "before": rows + 1.0, "after": rows + 0.5}
    )
    bins = pd.DataFrame(
        {"output": "y", "low": [-1.0, 0.0], "high": [0.0, 1.0], "before": [0, 4], "after": [1, 3]}
    )
    rails = pd.DataFrame(
        [("squared_error", "mean squared error", True, "pass", -95.0)],
        columns=["criterion", "label", "held", "verdict", "measured"],
    ).assign(unit="u", test="t", predicted=np.nan, tolerance=0.0, low=-120.0, high=-36.0, p=0.01)
    marked = pd.DataFrame({"rows": ["removed"], "n": [15], "loss before": [3034.4], "loss after": [4659.1]})
    return {
        "split": "validation",
        "n": n,
        "diagnostics": {"closer": 60, "further": 38},
        "metrics": table(metrics),
        "verdicts": table(rails),
        "marked": table(marked),
        "answers": table(answers),
        "residuals": table(bins),
    }


def test_the_comparison_in_one_sentence():
    assert outcome_sentence(compared()) == (
        "Closer to the target on 60, further on 38 of 600 validation rows; RMSE 61.900 → 61.300 (−1.2000 to "
        "+0.1000), R² 0.420 → 0.430; all that had to hold held: mean squared error."
    )


def test_r2_may_not_be_defined():
    record = compared()
    record["metrics"]["data"][2] = [None] * 5
    assert "R²" not in outcome_sentence(record)


def test_what_became_of_the_marked_rows():
    record = compared()
    assert forgotten_sentences(record, pd.DataFrame(**record["marked"])) == [
        "Removed (15 rows): mean squared error 3,034.4 → 4,659.1.",
        "For comparison, validation rows: 3,831.6 → 3,757.7.",
    ]


def test_the_race_has_the_metrics_of_values():
    from puma_dash.ui.compare import Record

    found = race_table({"one": Record("", {"seconds": 3.0, "diagnostics": {}, "comparison": compared()})})
    assert found["RMSE"][0] == "61.300 (−1.200 to +0.100)"
    assert found["closer, further"][0] == "60, 38"
    assert found["loss on removed"][0] == "4,659.1"


def test_charts_before_and_after():
    figure, alt, _ = values_chart(compared(), "answers", "y")
    before, after = (
        next(trace for trace in figure.data if trace.name == name) for name in ("before", "after")
    )
    assert before.y.tolist() == [1, 2, 3, 4]
    assert after.y.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert "4 drawn of 600 rows" in figure.layout.title.subtitle.text
    assert alt == "Predictions against targets of 4 rows: correlation 1.00 before, correlation 1.00 after."
    figure, alt, _ = values_chart(compared(), "residuals", "y")
    assert {trace.name: trace.y.tolist() for trace in figure.data} == {"before": [0, 4], "after": [1, 3]}
    assert "0 rows too low, 4 too high before; 1 rows too low, 3 too high after" in alt


@pytest.mark.parametrize("name", ["<b>y</b> #000012", "y" * 200])
def test_names_of_outputs_stay_text(name):
    rows = np.arange(5.0)
    figure = values_figures.answers_figure(rows, rows, title="t", subtitle="s", output=name)
    title = figure.layout.xaxis.title.text
    assert "<b>" not in title
    assert "#000012" not in title
    assert len(title) < 80
    assert values_figures.answers_alt(rows, np.zeros(5)) == (
        "Predictions against targets of 5 rows: no correlation."
    )
