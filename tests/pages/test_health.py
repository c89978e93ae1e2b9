"""The Health page in each state, and the way from a finding to the training rows behind it."""

import json

import numpy as np
import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetState

from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.index import Index
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import button, texts

EXPLORE, HEALTH = "pages/2_Explore.py", "pages/1_Health.py"
DRAFT = "0123456789abcdef"
GROUPED = "tests.pages.grouped_project:make"


def run(task, params):
    """What the worker makes of it, as the state of a job carries it."""
    return json.loads(json.dumps(task(params, lambda *_: None, None)))


def arrays(source="radial"):
    """The arrays of the validation rows of a prepared project."""
    entry = Store(home() / "cache").load(Index.of(home(), source, None).overview)
    return {name.removeprefix("validation."): array for name, array in entry.arrays.items()}


def inject(at, element, state):
    """Reruns the page with a widget state that AppTest has no call for."""
    states = at._tree.get_widget_states()
    states.widgets.append(WidgetState(id=element.proto.id, string_value=json.dumps({"selection": state})))
    return at._run(states)


def click(at, chart, point):
    """Clicks a point of a chart."""
    state = {"points": [{}], "point_indices": [point], "lasso": [], "box": []}
    return inject(at, at.get("plotly_chart")[chart], state)


@pytest.fixture
def health(open_page, prepared):
    """The Health page of the radial demo, with an empty draft and nothing examined yet."""
    drafts.save(home() / "drafts", DRAFT, "radial None", History((Draft(), Draft()), 1))
    before = Index.of(home(), "radial", None)
    at = open_page(HEALTH, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    yield at
    before._write()  # what these tests compute is none of the other tests' business


@pytest.fixture
def grouped(open_page, prepared, monkeypatch):
    """Opens the Health page of a project with groups."""
    monkeypatch.setenv("PUMA_DASH_PROJECT", GROUPED)
    prepared.prepare({"source": GROUPED, "version": None}, lambda *_: None, None)
    at = open_page(HEALTH)
    assert not at.exception, at.exception
    return at


def test_without_a_project_the_demo_is_offered(open_page):
    at = open_page(HEALTH)
    assert not at.exception
    assert "No project is open yet" in texts(at)
    assert button(at, "Try digits")


def test_a_project_that_is_being_prepared_shows_its_progress(open_page, jobs):
    at = open_page(HEALTH, project="two-moons")
    assert jobs.submitted[-1][0] == "prepare"
    assert "Preparing the project" in texts(at)


def test_a_failed_preparation_says_what_happened(open_page, jobs):
    jobs.now = {"status": "failed", "error": "expected finite inputs, but got NaN; try dropping rows."}
    at = open_page(HEALTH, project="two-moons")
    assert "expected finite inputs" in texts(at)
    assert button(at, "Try again")


def test_the_page_leads_with_what_is_wrong_and_never_opens_test(health):
    rows = arrays()
    right = (rows["predicted"] == rows["target"]).mean()
    assert f"Accuracy {100 * right:.1f}" in texts(health).replace("\\", "")
    assert "The test split stays closed here" in texts(health)
    shown = {metric.label: metric for metric in health.metric}
    info = Store(home() / "cache").load(Index.of(home(), "radial", None).overview).info["metrics"]
    assert shown["Accuracy"].value == f"{100 * info['accuracy']:.1f} %"
    assert shown["NLL (nats)"].value == f"{info['nll']:.3f}"
    assert shown["Brier score"].value == f"{info['brier']:.3f}"
    assert shown["ECE, 15 bins"].value == f"{info['ece']:.3f}"
    for metric in shown.values():
        assert " to " in metric.delta
        assert "n = " in metric.help


def test_without_groups_the_worst_class_stands_in(health):
    labels = [metric.label for metric in health.metric]
    assert "Worst class" in labels
    assert "Parity gap" not in labels
    assert "Gaps between groups need groups" in texts(health)


def test_with_groups_the_gaps_are_shown(grouped):
    shown = {metric.label: metric for metric in grouped.metric}
    rows = arrays(GROUPED)
    group, chosen = rows["column.region"], rows["predicted"] == 1
    gap = abs(chosen[group == 0].mean() - chosen[group == 1].mean())
    assert shown["Parity gap"].value == f"{100 * gap:.1f} %"
    assert "Odds gap" in shown
    right = (rows["predicted"] == rows["target"])[group == 1].mean()
    assert shown["Worst group"].value == f"{100 * right:.1f} %"
    assert f"the worst group is b, n = {(group == 1).sum()}" in texts(grouped)
    grouped.selectbox(key="positive").set_value(0).run()
    assert not grouped.exception
    assert "Worst slice: region = b" in texts(grouped).replace("\\", "")


def test_names_from_the_data_are_no_markup(grouped):
    assert "no \\*loan\\*" in texts(grouped)
    assert "no *loan*" not in texts(grouped)


def test_a_cell_leads_to_psi_of_exactly_its_rows(health, jobs, prepared):
    rows = arrays()
    true, predicted = 1, 0
    click(health, 0, 2 * true + predicted)
    expected = np.flatnonzero((rows["target"] == true) & (rows["predicted"] == predicted))
    assert len(expected)
    health.button(key="explore-confusion").click().run()
    task, params = jobs.submitted[-1]
    assert task == "value"
    assert params["criterion"] == {
        "criterion": "cross_entropy",
        "split": "validation",
        "rows": expected.tolist(),
    }
    assert params["label"] == "class B taken for class A"


def test_a_click_on_none_of_the_cells_keeps_what_was_picked(health):
    before = health.button(key="explore-confusion").label
    click(health, 0, 99)
    assert not health.exception
    assert health.button(key="explore-confusion").label == before


def test_explore_shows_the_job_then_the_new_colour_and_orders_by_it(health, jobs, prepared):
    rows = arrays()
    wrong = np.flatnonzero(rows["predicted"] != rows["target"])
    health.button(key="explore-errors").click().run()
    _, params = jobs.submitted[-1]
    assert params["criterion"]["rows"] == wrong.tolist()
    assert health.title[0].value == "Explore"
    assert "Computing psi of all errors" in texts(health)
    assert health.selectbox(key="colour").value == "psi of all errors"
    jobs.now = {"status": "done", "result": run(prepared.value, params)}
    health.switch_page(EXPLORE).run()  # AppTest forgets that the script has switched
    assert not health.exception
    assert health.selectbox(key="colour").value == "psi of all errors"
    assert len(health.get("plotly_chart")) == 1
    assert [submitted for submitted, _ in jobs.submitted].count("value") == 1
    index = Index.of(home(), "radial", None)
    name = next(name for name, facts in index.criteria.items() if facts["label"] == "all errors")
    psi = Store(home() / "cache").load(index.values[f"psi/{name}"]).arrays["scores"]
    button(health, "50 most harmful").click().run()
    selected = drafts.load(home() / "drafts", DRAFT, "radial None").now.selection
    assert selected.tolist() == np.sort(np.argsort(psi, kind="stable")[:50]).tolist()


def test_a_job_that_failed_on_explore_can_be_tried_again_with_its_name(health, jobs):
    jobs.now = {"status": "failed", "error": "expected memory, but got none; try again."}
    health.button(key="explore-bin").click().run()
    assert "expected memory" in texts(health)
    label = jobs.submitted[-1][1]["label"]
    assert label.startswith("confidence ")
    health.switch_page(EXPLORE)
    button(health, "Try again").click().run()
    assert len(jobs.submitted) == 2
    assert jobs.submitted[-1][1]["label"] == label


def test_a_slice_leads_to_its_rows(grouped, jobs):
    table = grouped.dataframe[0]
    assert table.value["name"].iloc[0] in ("region = b", "label = loan", "prediction = loan")
    line = table.value["name"].tolist().index("region = b")
    inject(grouped, table, {"rows": [line], "columns": [], "cells": []})
    grouped.button(key="explore-slice").click().run()
    _, params = jobs.submitted[-1]
    assert params["criterion"]["rows"] == np.flatnonzero(arrays(GROUPED)["column.region"] == 1).tolist()
    assert params["label"] == "region = b"


@pytest.mark.parametrize("binning", ["equal width", "equal mass"])
def test_a_bin_of_a_group_leads_to_its_rows(grouped, jobs, binning):
    part = next(option for option in grouped.selectbox(key="part").options if option.startswith("region = b"))
    grouped.selectbox(key="part").set_value(part).run()
    grouped.segmented_control(key="bins").set_value(binning).run()
    click(grouped, 1, 0)
    assert not grouped.exception
    grouped.button(key="explore-bin").click().run()
    _, params = jobs.submitted[-1]
    rows = arrays(GROUPED)
    chosen = np.array(params["criterion"]["rows"])
    lowest = np.sort(rows["confidence"][rows["column.region"] == 1])[: len(chosen)]
    assert np.sort(rows["confidence"][chosen]) == pytest.approx(lowest)
    assert params["label"].endswith("region = b")


def test_the_harmful_tail_becomes_the_selection(health):
    index = Index.of(home(), "radial", None)
    psi = Store(home() / "cache").load(index.values["psi/cross_entropy"]).arrays["scores"]
    middle = np.median(psi)
    low = middle - 3 * 1.4826 * np.median(np.abs(psi - middle))
    health.button(key="explore-tail").click().run()
    assert health.title[0].value == "Explore"
    now = drafts.load(home() / "drafts", DRAFT, "radial None").now
    assert now.selection.tolist() == np.flatnonzero(psi < low).tolist()


def test_checks_are_run_on_request_and_shown(health, jobs, prepared):
    assert "about as long as psi of two criteria" in texts(health)
    button(health, "Run the checks").click().run()
    task, params = jobs.submitted[-1]
    assert task == "checks"
    assert "Checking the project" in texts(health)
    jobs.now = {"status": "done", "result": run(prepared.checks, params)}
    health.run()
    assert not health.exception
    assert "Stationarity" in texts(health)
    assert "Leakage into test" in texts(health)


def test_robust_accuracy_is_measured_on_request(health, jobs, prepared):
    assert "passes over" in texts(health)
    health.number_input(key="epsilon").set_value(0.3).run()
    button(health, "Measure").click().run()
    task, params = jobs.submitted[-1]
    assert (task, params["epsilon"]) == ("robustness", 0.3)
    jobs.now = {"status": "done", "result": run(prepared.robustness, params)}
    health.run()
    assert not health.exception
    shown = next(metric for metric in health.metric if metric.label.startswith("Robust"))
    index = Index.of(home(), "radial", None)
    right = Store(home() / "cache").load(index.findings["robustness"]).arrays["right"]
    assert shown.value == f"{100 * right.mean():.1f} %"
    clean = arrays()
    assert right.mean() < (clean["predicted"] == clean["target"]).mean()
