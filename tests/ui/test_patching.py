"""What the Patch page says before anything runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from puma_dash.ui import panels
from puma_dash.ui.answers import Classes, Values
from puma_dash.ui.cost import cost_sentence
from puma_dash.ui.explore import Rows
from puma_dash.ui.panels import size, time_left
from puma_dash.ui.patching import at_any_strength, cautions, headline, plan_of_draft, rails_forecast
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.jobs import JobState


def rows(target, psi=None, names=("cat", "dog"), **arrays):
    """Training rows of two classes, or of values, without a project."""
    target = np.array(target)
    criterion = {"label": "cross-entropy", "unit": "nats"}
    here = SimpleNamespace(overview=SimpleNamespace(arrays=arrays), main=criterion)
    psi = -np.ones(len(target)) if psi is None else np.array(psi, float)
    ones = np.ones(len(target))
    classes = Classes(list(names), target, target, ones) if target.ndim == 1 else None
    answers = classes or Values(["y"], target, target)
    return Rows(here, psi, 1.0, answers, ones, None, {}, {}, None)


MANY = [0] * 100 + [1] * 100


def test_nothing_to_say_of_a_few_harmful_rows():
    assert cautions(rows(MANY), Draft(remove=[1, 2, 150], upweight={3: 1.0}, relabel={4: 1})) == []


@pytest.mark.parametrize(
    "draft",
    [Draft(remove=[0, 1]), Draft(relabel={0: 1, 1: 1}), Draft(remove=[0], relabel={1: 1})],
    ids=["removed", "relabelled", "both"],
)
def test_a_class_that_would_vanish_stops_the_patch(draft):
    first = cautions(rows([0, 0, 1, 1, 1]), draft)[0]
    assert first.stops
    assert "No row of cat would be left" in first.text


def test_a_class_that_relabels_keep_alive_does_not():
    draft = Draft(remove=[0, 1], relabel={2: 0})
    assert not any(caution.stops for caution in cautions(rows([0, 0, 1, 1, 1]), draft))


def test_rows_of_weight_0_do_not_keep_a_class_alive():
    weight = np.array([1, 0, 1, 1], np.float32)
    assert cautions(rows([0, 0, 1, 1], weight=weight), Draft(remove=[0]))[0].stops


@pytest.mark.parametrize(
    ("draft", "arrays", "told"),
    [
        (Draft(relabel={4: 0, 5: 1}), {}, "1 row to relabel already has the label given"),
        (
            Draft(remove=[4, 5]),
            {"weight": np.r_[np.ones(4), 0, 0, np.ones(194)]},
            "2 rows take no part in training: an earlier version removed them",
        ),
    ],
)
def test_what_would_be_refused_can_be_unmarked(draft, arrays, told):
    (caution,) = [c for c in cautions(rows(MANY, **arrays), draft) if c.stops]
    assert caution.text.startswith(told)
    assert not any(c.stops for c in cautions(rows(MANY, **arrays), caution.settled(draft)))


def test_copies_left_behind_can_be_removed_too():
    same = np.arange(200)
    same[[7, 120, 130]] = 1  # as row 1
    draft = Draft(remove=[1, 7])
    (caution,) = cautions(rows(MANY, same=same), draft)
    assert caution.text.startswith("2 rows not marked have exactly the inputs of rows to remove")
    assert caution.action == "Remove these 2, too"
    settled = caution.settled(draft)
    assert settled.remove.tolist() == [1, 7, 120, 130]
    assert cautions(rows(MANY, same=same), settled) == []


def test_copies_that_an_earlier_version_removed_are_gone():
    same, weight = np.arange(200), np.ones(200)
    same[7], weight[7] = 1, 0
    assert cautions(rows(MANY, same=same, weight=weight), Draft(remove=[1])) == []


def test_valuable_rows_can_be_kept():
    psi = -np.ones(200)
    psi[[1, 2]] = 3.0, 5.0
    draft = Draft(remove=[1, 2, 3])
    (caution,) = cautions(rows(MANY, psi), draft)
    assert "2 of the rows to remove are valuable" in caution.text
    assert f"{8 / 200:+.4f} nats" in caution.text
    assert caution.settled(draft).remove.tolist() == [3]


@pytest.mark.parametrize(("count", "told"), [(5, False), (6, True)])
def test_a_large_share_of_a_class_is_said(count, told):
    found = cautions(rows(MANY), Draft(remove=range(count)))
    assert [("cat (6 %)" in caution.text) for caution in found] == [True] * told


def test_many_large_shares_are_summed_up():
    many = rows(np.repeat(np.arange(6), 10), names="abcdef")
    (caution,) = cautions(many, Draft(remove=np.r_[np.arange(0, 60, 10), 1, 2]))
    assert "out of 6 of 6 classes, most of a (30 %), b (10 %), c (10 %)" in caution.text


VALUES = np.linspace(0, 10, 100)[:, None]


def test_values_have_no_class_that_could_vanish():
    assert cautions(rows(VALUES), Draft(remove=range(4), relabel={7: 2.5})) == []
    (caution,) = cautions(rows(VALUES), Draft(remove=range(6)))
    assert "out of the training rows (6 %)" in caution.text
    assert "No row would be left" in cautions(rows(VALUES), Draft(remove=range(100)))[0].text


def test_a_value_that_a_row_has_already_stops_the_patch():
    first = cautions(rows(VALUES), Draft(relabel={3: VALUES[3, 0], 4: -1.0}))[0]
    assert first.stops
    assert "1 row to relabel already has the target given" in first.text
    assert first.rows.tolist() == [3]


def test_new_labels_are_class_numbers_or_values():
    plan = plan_of_draft(Draft(relabel={1: 2.0, 4: 1.5}))
    assert plan["relabel"] == {"1": 2, "4": 1.5}
    assert type(plan["relabel"]["1"]) is int


def test_the_button_names_the_effect():
    draft = Draft(remove=range(1200), upweight={1300: 1.0}, relabel={1400: 1, 1401: 0})
    assert headline(draft, "puma") == "Patch: remove 1,200, up-weight 1, relabel 2"
    assert headline(draft, "retrain") == "Retrain: remove 1,200, up-weight 1, relabel 2"


X = np.linspace(0, 3, 31)


@pytest.mark.parametrize(
    ("slope", "rail", "at", "told"),
    [
        (-0.1, 0.0, 1, "Every rail is predicted to hold at any strength up to 3."),
        (
            0.1,
            0.1501,
            1,
            "Every rail is predicted to hold at strength 1; the first to give way, beyond 1.5: it.",
        ),
        (0.1, 0.05, 1, "it is predicted to pass its rail at strength 1 and to hold up to about 0.5;"),
        (0.1, 0.0, 1, "it is predicted to pass its rail at strength 1 and to hold up to about 0;"),
    ],
)
def test_the_forecast_names_the_rail_that_gives_way_first(slope, rail, at, told):
    found = rails_forecast(X, {"other": -X, "it": slope * X}, {"other": 0.0, "it": rail}, at)
    assert found.startswith(told)


def test_one_forecast_serves_every_strength():
    plans = [plan_of_draft(Draft(remove=[1]), strength=s, steps=n, tolerance={"brier": t})
             for s, n, t in ((1.0, 1, 0.1), (2.0, 5, 0.0))]  # fmt: skip
    assert at_any_strength(plans[0]) == at_any_strength(plans[1])
    other = plan_of_draft(Draft(remove=[1]), options={"sparsity": 0.5})
    assert at_any_strength(other) != at_any_strength(plans[0])


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"seconds": 0.2, "bytes": 100, "device": "CPU"}, "Under 1 s, under 1 MiB on CPU"),
        ({"seconds": 3.4, "bytes": 120 * 2**20, "device": "CPU"}, "About 3 s, 120 MiB on CPU"),
        (
            {"seconds": 300, "bytes": 3 * 2**30, "device": "NVIDIA H100"},
            "About 5 min, 3.0 GiB on NVIDIA H100",
        ),
        ({"refused": "…", "device": "CPU"}, "How long it takes on CPU is not known"),
    ],
)
def test_the_cost_in_words(info, told):
    assert cost_sentence(info).startswith(told)


def test_sizes_in_words():
    assert [size(2**n) for n in (10, 20, 33)] == ["under 1 MiB", "1 MiB", "8.0 GiB"]


def running(seconds, fraction, expected):
    """A job that has run so long, is so far, and was estimated at that."""
    params = {} if expected is None else {"expected": expected}
    return JobState(
        "0", "patch", params, status="running", done=fraction, total=1.0, started=1.0, finished=1 + seconds
    )


@pytest.mark.parametrize(
    ("seconds", "fraction", "expected", "left"),
    [
        (10, 0.5, 20, 10),
        (10, 0.5, 30, np.sqrt(10 * 20)),
        (10, 0.5, None, None),  # nobody has estimated it
        (10, 0.5, 9, None),  # it should be done
        (10, 0.7, 25, None),  # pace and estimate disagree
        (0.5, 0.5, 20, None),  # too early to tell
    ],
)
def test_time_left_is_said_only_where_pace_and_estimate_agree(seconds, fraction, expected, left):
    found = time_left(running(seconds, fraction, expected))
    assert found == (None if left is None else pytest.approx(left))


def test_two_blocks_of_a_page_may_show_the_same_job(monkeypatch):
    job = SimpleNamespace(live=True, status="queued", params={})
    monkeypatch.setattr(panels, "jobs", lambda: SimpleNamespace(state=lambda _: job, position=lambda _: 0))
    at = AppTest.from_string(
        "from puma_dash.ui.panels import running\nfor slot in 'ab':\n    running('job', 'Title', slot)"
    ).run(timeout=60)
    assert not at.exception
    assert [button.label for button in at.button] == ["Cancel", "Cancel"]
