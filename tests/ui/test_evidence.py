"""What the pages say of removal evidence."""

import numpy as np
import pandas as pd
import pytest

from puma_dash.core.task import CLASSIFICATION, REGRESSION
from puma_dash.ui.change_figures import evidence_figure
from puma_dash.ui.compare import Record
from puma_dash.ui.cost import evidence_cost_sentence
from puma_dash.ui.evidence import distance_table, membership_table, powerless, refusal, removal_table
from puma_dash.ui.text import evidence_alt
from puma_dash.workspace.records import table
from tests.ui.test_compare import compared


def found(power=0.8, apart=(3.0, 1.25, 0.5)):
    """A record of removal evidence; the attack tells models trained with the rows with that AUC."""
    values = {"before": 0.9, "after": 0.6, "retrained with": power, "another retraining": 0.5}
    lines = {
        name: {"score": 1.0, "shift": 10 * (value - 0.5)}
        | {"auc": value, "auc_low": value - 0.1, "auc_high": value + 0.05}
        | {"tpr": 0.02, "tpr_low": 0.0, "tpr_high": 0.07}
        for name, value in values.items()
    }
    distances = pd.DataFrame(
        {"parameters": apart, "predictions on validation": [0.3, 0.2, 0.1], "predictions on the rows": 0.4},
        index=["before", "after", "another retraining"],
    )
    membership = table(pd.DataFrame.from_dict(lines, orient="index"))
    return {"rows": 40, "references": 8, "membership": membership, "distances": table(distances)}


def test_the_tables():
    shown = membership_table(found())
    assert shown["model"].tolist()[1:3] == ["after the patch", "another retraining"]
    assert shown["score shift (nats)"].tolist() == ["+4.00", "+1.00", "+0.00", "+3.00"]
    assert shown["AUC (95 % interval)"][1] == "0.60 (0.50 to 0.65)"
    assert shown["TPR at 1 % FPR (95 % interval)"][1] == "0.02 (0.00 to 0.07)"
    assert distance_table(found())["predictions on validation"].tolist() == ["0.300", "0.200", "0.100"]


def test_an_ensemble_has_no_distance_of_parameters():
    assert distance_table(found(apart=(3.0, np.nan, 0.5)))["parameters"].tolist() == [
        "3.000", "not defined", "0.500",
    ]  # fmt: skip


@pytest.mark.parametrize(("power", "warned"), [(0.8, False), (0.61, False), (0.6, True), (0.4, True)])
def test_an_attack_that_fails_where_it_must_not_says_nothing(power, warned):
    """Its interval for models that did train with the rows reaches down to 0.1 below ``power``."""
    assert bool(powerless(found(power))) == warned


def test_where_there_can_be_none():
    plan = {"remove": [], "upweight": {"1": 1.0}, "relabel": {}}
    assert "only up-weights" in refusal(CLASSIFICATION, plan)
    assert "regression" in refusal(REGRESSION, {**plan, "remove": [1]})
    assert not refusal(CLASSIFICATION, {**plan, "remove": [1]})
    assert not refusal(CLASSIFICATION, {**plan, "relabel": {"1": 0}})


def test_the_race_on_the_removed_rows():
    record = Record("", {"seconds": 3.0, "comparison": compared()})
    runners = {"one": record, "other": record}
    shown = removal_table(runners, {"other": found()}).set_index("method")
    assert shown.index.tolist() == [
        "other", "(before the patch)", "(another retraining)", "(retrained with the rows)",
    ]  # fmt: skip
    assert shown["AUC (95 % interval)"].tolist()[:2] == ["0.60 (0.50 to 0.65)", "0.90 (0.80 to 0.95)"]
    apart = shown["distance to retraining (predictions on validation)"]
    assert apart.tolist() == ["0.200", "0.300", "0.100", "–"]
    assert shown["loss on removed rows"].tolist() == ["2.00", "–", "–", "–"]


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"seconds": 39.4, "bytes": 2**20}, "8 without: about 39 s one by one, 1 MiB on CPU. Those trained"),
        ({"seconds": 0.2, "bytes": 2**20}, ": under 1 s one by one,"),
        ({"refused": "…"}, "by the project's own trainer: how long it takes on CPU is not known. Those"),
    ],
)
def test_what_it_costs(info, told):
    assert told in evidence_cost_sentence({"device": "CPU", **info})


def test_the_figure_has_the_intervals_about_the_line():
    names, auc, low, high = ["before", "after", "third"], [0.9, 0.3, 0.5], [0.8, 0.25, 0.4], [0.95, 0.4, 0.7]
    figure = evidence_figure(names, auc, low, high, title="t", n=1234)
    (points,) = figure.data
    np.testing.assert_allclose(points.x, auc, rtol=1e-6)
    np.testing.assert_allclose(points.x + points.error_x.array, high, rtol=1e-6)
    np.testing.assert_allclose(points.x - points.error_x.arrayminus, low, rtol=1e-6)
    assert figure.layout.shapes[0].x0 == 0.5
    assert figure.layout.xaxis.range[0] < 0.25
    assert "n = 1,234 removed" in figure.layout.title.subtitle.text
    assert "after 0.30 (0.25 to 0.40)" in evidence_alt(names, auc, low, high)
