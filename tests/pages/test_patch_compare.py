"""The Patch and Compare pages in each state, beyond the way through them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from puma_dash.core.unlearning import UNLEARNERS
from puma_dash.ui import state, text
from puma_dash.ui.became import flipped
from puma_dash.ui.figures import thumbnails
from puma_dash.ui.patching import keep_plan, plan_of_draft
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import JOB, button, texts
from tests.pages.test_pages import COMPARE, DRAFT, PATCH, keep, now, patched, psi  # noqa: F401

SOURCE = {"source": "radial", "version": None}


def run(tasks, submitted):
    """What the worker makes of the last job that was submitted."""
    task, params = submitted[-1]
    return tasks.TASKS[task](params, lambda *_: None, None)


def test_the_cost_is_said_before_anything_runs(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 3)), settings={"steps": 6})
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "Estimating time and memory" in texts(at)
    assert jobs.submitted[-1][0] == "estimate"
    run(prepared, jobs.submitted)
    jobs.now = {"status": "done", "result": {}}
    at.run()
    assert "MiB on CPU, with the comparison" in texts(at)
    assert "On validation now: cross\\-entropy" in texts(at)
    asked = len(jobs.submitted)
    at.slider(key="strength").set_value(2.0).run()
    assert len(jobs.submitted) == asked  # of the same shape
    at.slider(key="steps").set_value(7).run()
    assert jobs.submitted[-1][0] == "estimate"
    assert len(jobs.submitted) == asked + 1


def test_an_estimate_that_fails_does_not_stop_the_patch(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 4)))
    jobs.now = {"status": "failed", "error": "expected a device of this machine."}
    at = open_page(PATCH, project="radial", draft=DRAFT)
    at.slider(key="steps").set_value(9).run()
    assert "could not be estimated: expected a device" in texts(at)
    assert not button(at, "Patch: remove 3").disabled


def test_the_estimate_goes_with_the_patch(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 3)), settings={"steps": 8})
    at = open_page(PATCH, project="radial", draft=DRAFT)
    run(prepared, jobs.submitted)
    jobs.now = {"status": "done", "result": {}}
    at.run()
    button(at, "Patch: remove 3").click()
    jobs.now = {"status": "running", "done": 0.3, "total": 1.0}
    at.run()
    task, params = jobs.submitted[-1]
    assert task == "patch"
    assert params["expected"] > 0


def test_a_cancelled_patch_says_what_became_of_it(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2)), jobs={"patch": JOB})
    jobs.submitted.append(("patch", {**SOURCE, "plan": "p"}))
    jobs.now = {"status": "cancelled"}
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "What was not finished is discarded and nothing was changed" in texts(at)
    assert now().remove.tolist() == [1, 2]


def test_each_set_can_be_discarded(open_page, prepared):
    keep(Draft(remove=(1, 2), upweight={3: 1.0}, relabel={4: 1, 6: 1}))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert [tab.label for tab in at.tabs] == ["Remove 2", "Up-weight 1", "Relabel 2"]
    button(at, "Unmark all 2").click().run()
    assert not len(now().remove)
    button(at, "Unmark all 1").click().run()
    assert not len(now().upweight)
    assert button(at, "Patch: relabel 2")


def test_relabels_are_shown_before_and_after(open_page, prepared):
    keep(Draft(relabel={4: 1, 6: 1}))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    (frame,) = (d.value for d in at.dataframe)
    assert frame["label before"].tolist() == ["class A"] * 2
    assert frame["label after"].tolist() == ["class B"] * 2


def test_one_row_can_be_taken_out(open_page, prepared, psi):  # noqa: F811
    keep(Draft(remove=(1, 2, 3)))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert button(at, "Unmark 0 ticked").disabled
    shown = next(d.value for d in at.dataframe)["row"].tolist()
    assert shown == sorted([1, 2, 3], key=lambda row: psi[row])
    history = state.drafts.load(home() / "drafts", DRAFT, "radial None")
    ticked = {"selection": {"rows": [1], "columns": [], "cells": []}}
    at.session_state[f"review-Remove-{DRAFT}-{history.at}"] = ticked
    at.run()
    button(at, "Unmark 1 ticked").click().run()
    assert now().remove.tolist() == sorted({1, 2, 3} - {shown[1]})


def test_a_relabel_that_changes_nothing_is_refused_with_the_way_out(open_page, prepared):
    keep(Draft(remove=(1,), relabel={4: 0}))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "1 row to relabel already has the label given" in texts(at).replace("\\", "")
    assert button(at, "Patch: remove 1, relabel 1").disabled
    button(at, "Unmark it").click().run()
    assert not len(now().relabel)
    assert not button(at, "Patch: remove 1").disabled


def test_the_strengths_are_predicted_once_for_all_settings(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 3)))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    button(at, "Predict against strength").click().run()
    result = run(prepared, jobs.submitted)
    jobs.now = {"status": "done", "result": result}
    at.run()
    assert not at.exception
    assert "predicted to" in texts(at)
    asked = [task for task, _ in jobs.submitted].count("forecast")
    at.slider(key="strength").set_value(2.5).run()
    at.number_input(key="tolerance-cross_entropy").set_value(0.1).run()
    assert len(at.get("plotly_chart")) == 1
    assert [task for task, _ in jobs.submitted].count("forecast") == asked


def test_after_a_weakened_patch_the_page_says_what_bound_it(open_page, prepared, psi):  # noqa: F811
    valuable = tuple(np.argsort(-psi)[:150].tolist())
    name = patched(prepared, remove=valuable, options={"weight_max": 0.0})
    keep(Draft(remove=valuable), patch=name)
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "The last patch: At strength 1 the patch worsens cross-entropy by" in texts(at).replace("\\", "")
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    said = texts(at).replace("\\", "")
    assert "Nothing was applied. At strength 1 the patch worsens cross-entropy by" in said
    assert "Allow more, or mark other rows." in said


@pytest.fixture
def compared(prepared, psi):  # noqa: F811
    """The key of a patch that removes, up-weights and relabels."""
    worst = np.argsort(psi)
    draft = Draft(remove=worst[:20], upweight={int(worst[-1]): 1.0}, relabel={4: 1})
    plan = keep_plan(plan_of_draft(draft, hold=["cross_entropy", "brier"], tolerance={"brier": 0.5}))
    params = {**SOURCE, "plan": plan, "device": "cpu", "seed": 0}
    return prepared.patch(params, lambda *_: None, None)["patch"]


def test_each_flip_cell_shows_its_rows(open_page, prepared, compared):
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    arrays = Store(home() / "cache").load(compared).arrays
    cells = at.segmented_control(key="flips-validation")
    for number, kind in enumerate(("fixed", "broken", "kept right", "kept wrong")):
        at = cells.set_value(kind).run()
        rows = np.flatnonzero(arrays["flips.kind"] == number)
        shown = [d.value["row"] for d in at.dataframe if "confidence after" in d.value]
        if len(rows):
            assert set(shown[0]) <= set(rows)
            assert len(shown[0]) == min(len(rows), 120)
        else:
            assert "No validation row is of this kind." in texts(at)


def test_after_accepting_each_flip_cell_of_test_shows_its_rows(open_page, prepared, psi):  # noqa: F811
    name = patched(prepared, remove=tuple(np.argsort(psi)[:31].tolist()))
    keep(patch=name)
    prepared.accept({**SOURCE, "patch": name}, lambda *_: None, None)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    details = state.ledger().decision(name).details["test"]
    changed = pd.DataFrame(**details["changed"])
    for kind, count in details["flips"].items():
        at = at.segmented_control(key="flips-test").set_value(kind).run()
        shown = [d.value for d in at.dataframe if "confidence after" in d.value]
        if not count:
            assert "No test row is of this kind." in texts(at)
            continue
        (rows,) = shown
        assert len(rows) == min(count, 120)
        assert ((rows["before"] == rows["label"]) == (kind in ("broken", "kept right"))).all()
        assert ((rows["after"] == rows["label"]) == (kind in ("fixed", "kept right"))).all()
        assert "data: cluster" in rows
        if kind in ("fixed", "broken"):
            known = changed[changed["kind"] == kind].set_index("row").loc[rows["row"]]
            for name in ("confidence before", "confidence after"):
                np.testing.assert_allclose(rows[name], 100 * known[name], rtol=1e-5)


def test_pictures_come_with_the_rows_that_flipped():
    arrays = {
        **{name: np.array([0, 1, 1]) for name in ("target", "predicted", "flips.after")},
        **{name: np.array([0.5, 0.75, 1]) for name in ("confidence", "flips.confidence")},
        "images": np.arange(48, dtype=np.uint8).reshape(3, 4, 4),
    }
    shown = flipped(arrays, [], ["a", "b"], np.array([2, 0]))
    assert list(shown)[:2] == ["image", "row"]
    assert shown["image"] == thumbnails(arrays["images"][[2, 0]])
    assert shown["label"] == ["b", "a"]


def test_where_the_cache_was_emptied_the_rows_that_changed_sides_are_told(
    open_page,
    prepared,
    psi,  # noqa: F811
):
    name = patched(prepared, remove=tuple(np.argsort(psi)[:33].tolist()))
    keep(patch=name)
    prepared.accept({**SOURCE, "patch": name}, lambda *_: None, None)
    Store(home() / "cache")._path(state.ledger().decision(name).details["test"]["rows"]).unlink()
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert "still known" in texts(at)


def test_the_rails_name_their_test(open_page, prepared, compared):
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    rails = next(d.value for d in at.dataframe if "verdict" in d.value)
    assert rails["rail"].tolist() == [
        "error rate, fraction of rows",
        "cross-entropy, nats",
        "Brier score, squared probability",
    ]
    assert rails["test"].tolist() == ["exact McNemar", "paired bootstrap", "paired bootstrap"]
    assert rails["at most"].tolist() == ["not held", "+0", "+0.5"]


def test_the_marked_rows_by_what_was_done(open_page, prepared, compared):
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    at.segmented_control(key="marked-rows").set_value("relabelled, new label").run()
    frame = next(d.value for d in at.dataframe if "new label" in d.value)
    assert frame["row"].tolist() == [4]
    assert frame["new label"].tolist() == ["class B"]


def test_groups_of_rows_before_and_after(open_page, prepared, compared):
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    at.selectbox(key="by-validation").set_value("cluster").run()
    assert "By cluster (rows)" in str([chart.proto for chart in at.get("plotly_chart")])


def test_a_race_is_run_and_remembered(open_page, prepared, jobs, compared):
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert [task for task, _ in jobs.submitted].count("estimate") == 6
    assert not at.button(key="race sisa").disabled
    assert at.button(key="race amnesiac").disabled  # the plan up-weights a row
    assert any("can only take back batches" in caption.value for caption in at.caption)
    at.button(key="race influence").click().run()
    task, params = jobs.submitted[-1]
    assert task == "patch"
    result = run(prepared, jobs.submitted)
    jobs.now = {"status": "done", "result": result}
    at.run()
    assert not at.exception
    history = state.drafts.load(home() / "drafts", DRAFT, "radial None")
    assert history.races == {f"{compared}/influence": result["patch"]}
    assert history.patch == compared
    again = open_page(COMPARE, project="radial", draft=DRAFT)
    race = next(d.value for d in again.dataframe if "method" in d.value)
    assert race["method"].tolist() == ["PUMA patch (this one)", "Naive influence removal"]
    assert Store(home() / "cache").load(params["plan"]).info["method"] == "influence"


def test_a_discarded_patch_is_not_urged_upon_anyone(open_page, prepared, compared):
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert primary(at) == ["Accept"]
    at.text_input(key=f"why-{compared[:8]}").set_value("not worth it").run()
    button(at, "Discard").click().run()
    assert primary(at) == ["Adjust"]
    assert "not worth it" in str(vars(state.ledger().decision(compared)))


def primary(at):
    """The buttons that the page urges."""
    return [b.label for b in at.button if b.proto.type == "primary"]


def test_accepting_hands_over_the_reason(open_page, prepared, jobs, psi):  # noqa: F811
    name = patched(prepared, remove=tuple(np.argsort(psi)[:7].tolist()))
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert "Only accepting opens it." in texts(at)
    at.text_input(key=f"why-{name[:8]}").set_value(" the labels were wrong ").run()
    button(at, "Accept").click().run()
    told = {"patch": name, "why": "the labels were wrong", "who": ""}
    assert jobs.submitted[-1] == ("accept", SOURCE | told)


def test_a_failing_patch_needs_a_reason_to_be_accepted(open_page, prepared, jobs, psi):  # noqa: F811
    name = patched(prepared, remove=tuple(np.argsort(-psi)[:150].tolist()), method="influence")
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert "worse than allowed: cross-entropy" in texts(at).replace("\\", "")
    assert primary(at) == []
    button(at, "Accept").click().run()
    assert "Say why it is accepted all the same." in texts(at)
    assert "accept" not in [task for task, _ in jobs.submitted]
    at.text_input(key=f"why-{name[:8]}").set_value("a demonstration").run()
    button(at, "Accept").click().run()
    assert jobs.submitted[-1][0] == "accept"


def test_many_classes_are_compared_in_a_table(open_page, prepared, compared, monkeypatch):
    monkeypatch.setattr("puma_dash.ui.change_figures.MOST_CLASSES", 1)
    keep(patch=compared)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception
    assert "The cells of the confusion matrix that changed most" in texts(at)


@pytest.mark.parametrize(
    ("login", "header", "expected"),
    [
        ({}, None, ""),
        ({}, "X-User", "ann"),
        ({"is_logged_in": False, "email": "no@b.org"}, None, ""),
        ({"is_logged_in": True, "email": "eve@b.org"}, "X-User", "eve@b.org"),
        ({"is_logged_in": True, "name": "Eve"}, None, "Eve"),
    ],
)
def test_who_decides(monkeypatch, login, header, expected):
    """Headers count only where the server is told which one its proxy writes."""
    monkeypatch.setattr(state.st, "user", login)
    monkeypatch.setattr(state.st, "context", SimpleNamespace(headers={"X-User": "ann"}))
    if header:
        monkeypatch.setenv(state.USER_HEADER, header)
    assert state.user() == expected


def test_decisions_carry_who_decided(open_page, prepared, psi, monkeypatch):  # noqa: F811
    monkeypatch.setattr(state, "user", lambda: "ann")
    name = patched(prepared, remove=tuple(np.argsort(psi)[:17].tolist()))
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    button(at, "Discard").click().run()
    assert state.ledger().decision(name).who == "ann"
    params = {"source": "radial", "version": None, "patch": name, "why": "", "who": "x" * 300}
    prepared.accept(params, lambda *_: None, None)
    assert state.ledger().decision(name).who == "x" * 200


def chosen(at, method):
    return at.selectbox(key="method").set_value(method).run()


def offered(at):
    """Keys of the widgets that set how a plan is carried out."""
    keys = {widget.key for kind in (at.slider, at.radio, at.toggle) for widget in kind}
    return keys & {"strength", "steps", "intent", "sparsity", "two_sided"}


def test_every_method_is_offered_and_those_that_cannot_run_say_why(open_page, prepared):
    keep(Draft(remove=(1, 2, 3), upweight={4: 1.0}))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert at.selectbox(key="method").options == [
        text.METHODS[key] + " (not here)" * (key == "amnesiac") for key in UNLEARNERS
    ]
    assert [box.label for box in at.expander if "cannot" in box.label] == [
        "1 of 8 methods cannot be used here"
    ]
    assert not button(at, "Patch: remove 3, up-weight 1").disabled
    at = chosen(at, "amnesiac")
    assert button(at, "Amnesiac ML: remove 3, up-weight 1").disabled
    assert "Not here: " in texts(at)


def test_batches_that_are_taken_back_cannot_count_a_row_twice(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 3)))
    at = chosen(open_page(PATCH, project="radial", draft=DRAFT), "amnesiac")
    assert not button(at, "Amnesiac ML: remove 3").disabled
    keep(Draft(remove=(1, 2, 3), upweight={4: 1.0}), settings={"method": "amnesiac"})
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert button(at, "Amnesiac ML: remove 3, up-weight 1").disabled
    assert "can only take back batches" in texts(at)


@pytest.mark.parametrize(
    ("method", "knows"),
    [
        ("puma", {"strength", "steps", "intent", "sparsity", "two_sided"}),
        *((method, {"strength"}) for method in ("influence", "unrolled_sgd", "gradient_ascent")),
        *((method, set()) for method in ("retrain", "fine_tune", "amnesiac")),
    ],
)
def test_a_method_is_asked_for_what_it_knows_only(open_page, prepared, jobs, method, knows):
    settings = {"method": method, "steps": 6, "strength": 0.5, "options": {"sparsity": 0.3}}
    keep(Draft(remove=(1, 2, 3)), settings={**settings, "tolerance": {"cross_entropy": 5.0}})
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert offered(at) == knows
    assert ("nothing is done to hold it" in texts(at)) == (method != "puma")
    next(b for b in at.button if b.label.endswith(": remove 3")).click().run()
    task, params = jobs.submitted[-1]
    assert task == "patch"
    plan = Store(home() / "cache").load(params["plan"]).info
    assert plan["method"] == method
    assert plan["strength"] == (0.5 if "strength" in knows else 1.0)
    assert plan["steps"] == (6 if "steps" in knows else 1)
    assert plan["options"].get("sparsity") == (0.3 if "sparsity" in knows else None)
    assert plan["tolerance"] == {"cross_entropy": 5.0}
    name = run(prepared, jobs.submitted)["patch"]
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    race = next(d.value for d in at.dataframe if "time" in d.value)
    assert race["method"].tolist() == [f"{text.METHODS[method]} (this one)"]
    assert ("race puma" in {b.key for b in at.button}) == (method != "puma")
