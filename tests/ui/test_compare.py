"""What the Compare page and the report say of a patch."""

import numpy as np
import pandas as pd
import pytest

from puma_dash.ui.change_figures import confusion_change_figure, regions_figure
from puma_dash.ui.compare import (
    Record,
    binding_sentence,
    confusion_table,
    forgotten_sentences,
    outcome_sentence,
    p_value,
    patch_sentence,
    race_table,
    verdict,
    verdict_table,
)
from puma_dash.ui.race import rival_plan
from puma_dash.ui.text import confusion_alt, regions_alt, verdict_style
from puma_dash.workspace.records import table

CRITERIA = {"brier": {"label": "Brier score", "unit": "squared probability"}}


@pytest.mark.parametrize(("measured", "doubted"), [(-0.05, False), (-0.2, False), (-0.04, True), (0.1, True)])
def test_a_prediction_that_does_not_hold_is_a_sentence(measured, doubted):
    told = Record("", {"predicted": {"brier": -0.1}, "measured": {"brier": measured}}).doubts(CRITERIA)
    assert len(told) == doubted
    assert all(f"Brier score: measured {'+−'[measured < 0]}{abs(measured):.4f}" in said for said in told)
    assert all(f"is {measured / -0.1:.2g} times the predicted −0.1000" in said for said in told)


def compared(verdicts=("pass",), fixed=41, broken=9, p=1e-4):
    """A comparison's record with that many held criteria and verdicts."""
    rails = [("error_rate", "error rate", False, "inconclusive"), *(
        (f"c{i}", f"rail {i}", True, verdict) for i, verdict in enumerate(verdicts)
    )]  # fmt: skip
    frame = pd.DataFrame(rails, columns=["criterion", "label", "held", "verdict"]).assign(
        unit="nats", test="t", predicted=np.nan, measured=0.02, tolerance=0.01, low=-0.1, high=0.1, p=0.0004
    )
    metrics = pd.DataFrame(
        {"before": [0.9, 0.4, 0.2, 0.061], "after": [0.95, 0.3, 0.1, 0.038]},
        index=["accuracy", "nll", "brier", "ece"],
    ).assign(change=0.1, low=0.0, high=0.2)
    marked = pd.DataFrame(
        {"rows": ["removed", "relabelled, new label"], "n": [200, 4], "accuracy before": [0.5, 0.0],
         "accuracy after": [0.1, 0.75], "loss before": [0.5, 3.0], "loss after": [2.0, 0.5]}
    )  # fmt: skip
    cells = pd.DataFrame({"target": [0, 0], "predicted": [0, 1], "before": [5, 3], "after": [7, 1]})
    return {
        "split": "validation",
        "n": 397,
        "diagnostics": {"fixed": fixed, "broken": broken, "mcnemar_p": p},
        "metrics": table(metrics),
        "verdicts": table(frame),
        "marked": table(marked),
        "confusion": table(cells),
    }


def test_the_headline():
    assert outcome_sentence(compared(["pass", "pass"])) == (
        "Fixes 41 and breaks 9 of 397 validation rows (McNemar p < .001); ECE 0.061 → 0.038; "
        "all that had to hold held: rail 0, rail 1."
    )


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([], ("inconclusive", "nothing had to hold")),
        (["pass"], ("pass", "all that had to hold held: rail 0")),
        (["pass", "fail", "inconclusive"], ("fail", "worse than allowed: rail 1 +0.0200 (at most 0.01)")),
        (
            ["pass", "inconclusive"],
            ("inconclusive", "these rows do not decide whether rail 1 held; rail 0 did"),
        ),
        (["inconclusive"], ("inconclusive", "these rows do not decide whether rail 0 held")),
    ],
)
def test_the_verdict_in_words(verdicts, told):
    assert verdict(compared(verdicts)) == told


def test_what_is_held_on_the_split_itself_is_not_said_to_be():
    on_test = {**compared(["pass"]), "split": "test"}
    on_test["verdicts"]["data"][0][1] = "rail 0 on test"
    assert verdict(on_test)[1] == "all that had to hold held: rail 0"
    assert verdict_table(on_test)["rail"].iloc[0] == "rail 0, nats"


@pytest.mark.parametrize(("p", "told"), [(0.0004, "p < .001"), (0.02, "p = .020"), (1.0, "p = 1.000")])
def test_p_values(p, told):
    assert p_value(p) == told


def test_the_rails_table_says_what_was_not_held():
    found = verdict_table(compared(["pass"]), {"c0": {"label": "my errors"}})
    assert found["rail"].tolist() == ["error rate, nats", "my errors, nats"]
    assert found["at most"].tolist() == ["not held", "+0.01"]
    assert found["verdict"].tolist() == ["? inconclusive", "✓ pass"]
    assert len({verdict_style(shown) for shown in ("✓ pass", "✗ fail", "? inconclusive")}) == 3


def patch(asked=1.0, applied=0.25, binding="brier", whole=0.03, tolerance=None):
    """What is known of a patch that was weakened."""
    return {
        "plan": {"strength": asked, "tolerance": {"margin": 0.2, **(tolerance or {})}},
        "strength": applied,
        "diagnostics": {"binding": binding, "at_full_strength": {"brier": whole, "margin": 0.1}},
    }


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (patch(binding=None), ""),
        (
            patch(),
            "At strength 1 the patch worsens Brier score by +0.0300 squared probability (at most 0); "
            "strength 0.25 is the largest tried that measures within what is allowed.",
        ),
        (
            patch(applied=0.0, tolerance={"brier": 0.02}),
            "At strength 1 the patch worsens Brier score by +0.0300 squared probability (at most 0.02); "
            "so it did at every smaller strength tried, and nothing was applied.",
        ),
        (
            patch(binding="finite outputs", whole=np.inf, applied=0.5),
            "At strength 1 the model's outputs are no longer finite; "
            "strength 0.5 is the largest tried that measures within what is allowed.",
        ),
        (
            patch(binding="the objective of the steps", whole=-0.1),
            "At strength 1 no step lowers what the steps aim at; "
            "strength 0.25 is the largest tried that measures within what is allowed.",
        ),
    ],
)
def test_the_rail_that_binds_is_named(info, told):
    assert binding_sentence(info, CRITERIA) == told


def test_what_became_of_the_marked_rows():
    comparison = compared()
    told = forgotten_sentences(comparison, pd.DataFrame(**comparison["marked"]))
    assert told == [
        "Removed: the model answers as it was taught on 20 of 200 rows (before: 100); "
        "mean loss 0.50 → 2.00 nats.",
        "Relabelled, new label: the model answers with the new label on 3 of 4 rows (before: 0); "
        "mean loss 3.00 → 0.50 nats.",
        "For comparison, validation rows: 0.40 → 0.30 nats.",
    ]


def test_how_it_was_made():
    info = {
        "plan": {"method": "puma", "remove": [1] * 1200, "upweight": {}, "relabel": {"3": 1}, "strength": 1.0,
                 "steps": 3, "intent": "forget", "options": {"two_sided": True}},
        "strength": 0.5, "seconds": 0.42,
        "diagnostics": {"device": "cpu", "steps": [1.0, 0.5], "compensating_rows": 66},
    }  # fmt: skip
    assert patch_sentence(info) == (
        "PUMA patch: 1,200 removed, 1 relabelled; strength 0.5 applied of 1 asked for; 2 relinearised steps "
        "(forget); 66 other rows up-weighted to compensate; two-sided; 0.4 s on CPU."
    )


def test_the_race_is_one_line_each():
    record = Record("", {"seconds": 3.0, "diagnostics": {}, "comparison": compared(["pass", "fail"])})
    found = race_table({"one": record, "other": record})
    assert found["method"].tolist() == ["one", "other"]
    assert found["rails"][0] == "1 pass, 1 fail"
    assert found["fixed, broken"][0] == "41, 9"
    assert found["Accuracy"][0] == "0.950 (+0.000 to +0.200)"


@pytest.mark.parametrize(("method", "strength"), [("retrain", 1.0), ("sisa", 1.0), ("influence", 0.5)])
def test_rivals_get_the_same_marks(method, strength):
    plan = {
        "remove": [1],
        "strength": 0.5,
        "steps": 3,
        "method": "puma",
        "options": {"ridge": 1},
        "hold": ["brier"],
    }
    found = rival_plan(plan, method)
    assert (found["remove"], found["hold"], found["method"]) == ([1], ["brier"], method)
    assert (found["strength"], found["steps"], found["options"]) == (strength, 1, {})


def test_confusion_before_and_after():
    cells = pd.DataFrame(**compared()["confusion"])
    figure = confusion_change_figure(["cat", "dog"], cells, title="t", n=8)
    np.testing.assert_array_equal(figure.data[0].z, [[2, 2], [np.nan, np.nan]])  # both moved the right way
    assert list(figure.data[1].text) == ["5→7", "3→1", "", ""]
    assert "label cat predicted cat, 5 to 7 rows" in confusion_alt(["cat", "dog"], cells)
    assert confusion_table(compared(), ["cat", "dog"])["change"].tolist() == [2, -2]


def test_confusion_gets_worse_in_orange():
    cells = {"target": [0, 1], "predicted": [0, 0], "before": [5, 0], "after": [4, 6]}
    figure = confusion_change_figure(["cat", "dog"], cells, title="t", n=8)
    np.testing.assert_array_equal(figure.data[0].z, [[-1, np.nan], [-6, np.nan]])


def test_the_regions_side_by_side():
    side = 4
    known = {
        "x": np.linspace(0, 1, side),
        "y": np.linspace(0, 2, side),
        "class": np.stack([np.zeros((side, side), np.uint8), np.eye(side, dtype=np.uint8)]),
        "confidence": np.full((2, side, side), 0.9, np.float16),
    }
    points, targets = np.array([[0.1, 0.2], [0.5, 1.5], [0.9, 1.0]]), np.array([0, 1, 1])
    figure = regions_figure(known, points, targets, [True, False, False], ["a", "b"], title="t")
    assert len(figure.layout.images) == 2
    assert figure.layout.images[0].source != figure.layout.images[1].source
    assert (figure.layout.images[1].sizex, figure.layout.images[1].sizey) == (1, 2)
    assert [len(trace.x) for trace in figure.data] == [1, 2, 1] * 2
    assert "changes on 25 % of the plane" in regions_alt(known, ["a", "b"])
