"""A regression and a classifier with one logit through every page, as their users would go."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from puma_dash.ui.patching import keep_plan, plan_of_draft
from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.index import Index
from puma_dash.workspace.replay import replay
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import button, draw, texts

DRAFT = "0123456789abcdef"
SOURCES = {name: f"tests.pages.task_projects:{name}" for name in ("values", "two_values", "one_logit")}
PAGES = ("app.py", "pages/1_Health.py", "pages/2_Explore.py", "pages/3_Patch.py", "pages/5_History.py")


@pytest.fixture(scope="module", params=SOURCES)
def project(request, prepared):
    """A prepared project: its source."""
    source = SOURCES[request.param]
    prepared.prepare({"source": source, "version": None}, lambda *_: None, None)
    return source


@pytest.fixture
def visit(open_page, monkeypatch):
    """Opens a page on a project with a draft that begins as given."""

    def visited(source, page, draft=None):
        monkeypatch.setenv("PUMA_DASH_PROJECT", source)
        if draft is not None:
            drafts.save(home() / "drafts", DRAFT, f"{source} None", draft)
        at = open_page(page, project=source, draft=DRAFT)
        assert not at.exception, at.exception
        return at

    return visited


def of(draft):
    return History((Draft(), draft), 1)


def run(task, params):
    """What the worker makes of it, as the state of a job carries it."""
    return json.loads(json.dumps(task(params, lambda *_: None, None)))


def patched(prepared, source, **marks):
    """The key of a patch of the project."""
    criterion = "cross_entropy" if "logit" in source else "squared_error"
    settings = {"hold": [criterion], "tolerance": {criterion: 1e4}, "steps": 2}
    plan = keep_plan(plan_of_draft(Draft(**marks), **settings))
    where = {"source": source, "version": None}
    return run(prepared.patch, {**where, "plan": plan, "device": "cpu", "seed": 0})["patch"]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens(project, visit, page):
    at = visit(project, page, of(Draft(selection=range(15), remove=range(15), upweight={20: 1.0})))
    assert not at.error
    assert "nats" not in texts(at) or "logit" in project


def test_the_workspace_says_what_is_measured(project, visit):
    info = Store(home() / "cache").load(Index.of(home(), project, None).overview).info
    shown = {metric.label: metric.value for metric in visit(project, "app.py").metric}
    if "logit" in project:
        assert shown["Accuracy"] == f"{100 * info['metrics']['accuracy']:.1f} %"
        told = texts(visit(project, "app.py")).replace("\\", "")
        assert "binary cross-entropy; label smoothing 0.05; class weights 1.5, 1" in told
    else:
        assert shown["RMSE"] == f"{info['metrics']['rmse']:.3f}"
        assert shown["R²"] == f"{info['metrics']['r2']:.3f}"


def arrays(source):
    return Store(home() / "cache").load(Index.of(home(), source, None).overview).arrays


@pytest.fixture
def regression(prepared):
    prepared.prepare({"source": SOURCES["values"], "version": None}, lambda *_: None, None)
    return SOURCES["values"]


def test_health_leads_with_the_errors(regression, visit):
    at = visit(regression, "pages/1_Health.py", History())
    known = arrays(regression)
    y, z = known["validation.target"], known["validation.predicted"]
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["RMSE"] == f"{mean_squared_error(y, z) ** 0.5:.3f}"
    assert shown["MAE"] == f"{mean_absolute_error(y, z):.3f}"
    assert shown["R²"] == f"{r2_score(y, z):.3f}"
    assert shown["Mean residual"] == f"{(z - y).mean():.3f}"
    assert "Worst group" in shown
    assert "The test split stays closed here" in texts(at)
    assert not [label for label in shown if "Accuracy" in label or "ECE" in label]


def test_an_outline_on_the_predictions_picks_rows(regression, visit, jobs):
    at = visit(regression, "pages/1_Health.py", History())
    known = arrays(regression)
    y, z = known["validation.target"][:, 0], known["validation.predicted"][:, 0]
    at = draw(at, box=[{"x": [0, 120], "y": [0, 1000]}])
    inside = np.flatnonzero((y <= 120) & (z >= 0))
    assert f"{len(inside)} rows drawn around" in texts(at)
    next(b for b in at.button if b.key == "explore-outlined").click().run()
    task, params = jobs.submitted[-1]
    assert task == "value"
    assert params["criterion"] == {
        "criterion": "squared_error",
        "split": "validation",
        "rows": inside.tolist(),
    }


def test_rows_get_new_targets(regression, visit):
    at = visit(regression, "pages/2_Explore.py", of(Draft(selection=[3, 4])))
    at.number_input(key="new_value").set_value(123.5).run()
    button(at, "Mark 2 to relabel").click().run()
    marked = drafts.load(home() / "drafts", DRAFT, f"{regression} None").now
    assert dict(marked.relabel.items()) == {3: 123.5, 4: 123.5}
    plan = plan_of_draft(marked)
    assert plan["relabel"] == {"3": 123.5, "4": 123.5}
    told = visit(regression, "pages/3_Patch.py", of(marked))
    frame = told.dataframe[0].value
    assert frame["target after"].tolist() == ["123.5", "123.5"]


def test_another_method_holds_what_a_regression_knows(regression, visit, jobs):
    draft = replace(of(Draft(remove=range(5))), settings={"method": "influence"})
    button(visit(regression, "pages/3_Patch.py", draft), "Naive influence removal: remove 5").click().run()
    task, params = jobs.submitted[-1]
    assert task == "patch"
    assert Store(home() / "cache").load(params["plan"]).info["hold"] == ["squared_error"]


def test_what_the_model_predicts_may_become_the_target(regression, visit):
    at = visit(regression, "pages/2_Explore.py", of(Draft(selection=[3])))
    at.segmented_control(key="new_target").set_value("the model's prediction").run()
    button(at, "Mark 1 to relabel").click().run()
    marked = drafts.load(home() / "drafts", DRAFT, f"{regression} None").now
    assert dict(marked.relabel.items()) == {3: pytest.approx(float(arrays(regression)["predicted"][3, 0]))}


def test_several_outputs_are_relabelled_in_python(prepared, visit):
    prepared.prepare({"source": SOURCES["two_values"], "version": None}, lambda *_: None, None)
    at = visit(SOURCES["two_values"], "pages/2_Explore.py", of(Draft(selection=[3])))
    assert "new ones in Python" in texts(at)


def test_a_patch_is_compared_accepted_reported_and_replayed(project, prepared, visit, tmp_path):
    marks = {"remove": range(10), "upweight": {30: 1.0}}
    if "two" not in project:
        marks["relabel"] = {12: 0.0 if "logit" not in project else 1 - arrays(project)["target"][12]}
    key = patched(prepared, project, **marks)
    at = visit(project, "pages/4_Compare.py", replace(of(Draft(**marks)), patch=key))
    said = texts(at)
    if "logit" in project:
        assert "Fixes" in said
        assert "Reliability" in said
    else:
        assert "Closer to the target on" in said
        assert "Residuals" in said
        assert "Flips" not in said
        assert "McNemar" not in said
    about = {"source": project, "version": None, "patch": key, "why": "wrong rows"}
    version = run(prepared.accept, about)["version"]
    ledger = prepared.ledger()
    assert "test" in ledger.entry(version).details
    at = visit(project, "pages/4_Compare.py", replace(of(Draft(**marks)), patch=key))
    assert "On test:" in texts(at).replace("**", "")
    at = visit(project, "pages/5_History.py")
    assert "accuracy" in str(at.dataframe[0].value) if "logit" in project else "RMSE" in texts(at)
    assert not [check for check in replay(ledger, version, home()) if check.decides and not check.fits]
    second = prepared.open_project(project, version)
    assert second.train.weights[0] == 0


def test_the_story_of_a_wrong_target(regression, prepared):
    found = run(prepared.story, {"source": regression, "version": None, "row": 2})
    entry = Store(home() / "cache").load(found["story"])
    assert len(entry.arrays["neighbours"])
    assert {kind for kind, _ in entry.info["suspicions"]} <= {"duplicate", "outlier", "wrong target"}


def test_the_forecast_has_the_metrics_of_the_task(regression, prepared):
    plan = keep_plan(plan_of_draft(Draft(remove=[1, 2]), hold=["squared_error"]))
    found = run(prepared.forecast, {"source": regression, "version": None, "plan": plan})
    assert pd.DataFrame(**found["metrics"]).index.tolist() == ["rmse", "mae", "r2"]
    assert found["flips"] == 0
