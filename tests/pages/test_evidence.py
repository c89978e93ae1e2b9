"""Removal evidence: computed once for all methods of a race, told on Compare and in the report."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from puma_dash.core import retraining
from puma_dash.core.evaluation import membership
from puma_dash.core.types import Cancelled
from puma_dash.ui import state
from puma_dash.ui.history import entry_report
from puma_dash.ui.patching import keep_plan, plan_of_draft
from puma_dash.ui.race import rival_plan
from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.evidence import evidence_key
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import button, texts

COMPARE, DRAFT = "pages/4_Compare.py", "0123456789abcdef"
CLASSES, VALUES = (f"tests.pages.task_projects:{name}" for name in ("one_logit", "values"))
MARKED = Draft(remove=range(12), relabel={20: 0})


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def patches(prepared):
    """The keys of patches of the same plan by three methods."""
    prepared.prepare({"source": CLASSES, "version": None}, quiet, None)
    labels = prepared.open_project(CLASSES, None).train.targets
    draft = replace(MARKED, relabel={20: int(1 - labels[20])})
    return [patched(prepared, CLASSES, draft, method) for method in ("puma", "influence", "fine_tune")]


def patched(prepared, source, draft, method="puma"):
    plan = rival_plan(plan_of_draft(draft, hold=[]), method)
    params = {"source": source, "version": None, "plan": keep_plan(plan), "device": "cpu", "seed": 0}
    return prepared.patch(params, quiet, None)["patch"]


def computed(prepared, *names, told=quiet):
    prepared.evidence(
        {"source": CLASSES, "version": None, "patches": list(names), "device": "cpu"}, told, None
    )


@pytest.fixture(scope="module")
def evidence(prepared, patches):
    """The evidence on the first two, and how many models were trained for each call that led there."""
    counts, train = [], retraining.Training.without

    def counted(self, *given):
        counts[-1] += 1
        return train(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining.Training, "without", counted)
        patch.setattr(retraining, "PAYS", float("inf"))  # whatever else runs on this machine
        for names in (patches[:1], patches[:2], patches[:2]):
            prepared.close()  # as after a new start of the worker
            counts.append(0)
            computed(prepared, *names)
    return counts


@pytest.fixture
def visit(open_page, monkeypatch):
    """Opens Compare on a patch that is raced by the others."""

    def visited(patches, source=CLASSES):
        monkeypatch.setenv("PUMA_DASH_PROJECT", source)
        rivals = zip(("influence", "fine_tune"), patches[1:], strict=False)
        races = {f"{patches[0]}/{method}": patch for method, patch in rivals}
        known = History((Draft(), MARKED), 1, patch=patches[0], races=races)
        drafts.save(home() / "drafts", DRAFT, f"{source} None", known)
        at = open_page(COMPARE, project=source, draft=DRAFT)
        assert not at.exception, at.exception
        return at

    return visited


def test_the_references_train_once_for_all_methods_whatever_became_of_the_worker(evidence):
    assert evidence == [16, 0, 0]


def test_the_record_is_what_python_finds(prepared, patches, evidence):
    project = prepared.open_project(CLASSES, None)
    found = membership.removal_evidence(project, prepared.load_patch(project, patches[1]), device="cpu")
    kept = Store(home() / "cache").load(evidence_key(patches[1])).info
    assert kept["sentence"] == found.sentence
    for name in ("membership", "distances"):
        table = pd.DataFrame(**kept[name])
        pd.testing.assert_frame_equal(table, getattr(found, name), check_names=False)


def test_it_is_told_beside_what_retraining_gets(visit, patches, evidence):
    at = visit(patches[:1])
    said = texts(at).replace("\\", "")
    kept = Store(home() / "cache").load(evidence_key(patches[0])).info
    assert kept["sentence"] in said
    assert "no proof of removal" in said
    assert "Evidence for this patch" not in [b.label for b in at.button]
    table = next(d.value for d in at.dataframe if "score shift (nats)" in d.value)
    assert table["model"].tolist() == [
        "before the patch", "after the patch", "another retraining", "retrained with the rows",
    ]  # fmt: skip
    after = pd.DataFrame(**kept["membership"]).loc["after"]
    told = f"{after['auc']:.2f} ({after['auc_low']:.2f} to {after['auc_high']:.2f})"
    assert table["AUC (95 % interval)"][1] == told
    apart = next(
        d.value for d in at.dataframe if "distance to retraining" in d.value and "model" not in d.value
    )
    assert apart["parameters"].tolist() == [
        f"{value:.3f}" for value in pd.DataFrame(**kept["distances"])["parameters"]
    ]
    assert "Can the removed rows be told" in str([chart.proto for chart in at.get("plotly_chart")])


def test_the_race_has_it_for_those_it_was_computed_of(visit, patches, evidence, jobs):
    at = visit(patches)
    found = next(d.value for d in at.dataframe if {"method", "loss on removed rows"} <= set(d.value))
    assert found["method"].tolist()[:2] == ["PUMA patch (this one)", "Naive influence removal"]
    assert found["method"].str.startswith("(").tolist()[2:] == [True] * 3
    kept = Store(home() / "cache").load(evidence_key(patches[1])).info
    apart = pd.DataFrame(**kept["distances"]).loc["after", "predictions on validation"]
    assert found["distance to retraining (predictions on validation)"][1] == f"{apart:.3f}"
    at.button(key="race evidence").click().run()
    task, params = jobs.submitted[-1]
    assert (task, params["patches"]) == ("evidence", patches[2:])  # only the one that lacks it


def test_the_cost_is_told_before_the_button_is_pressed(visit, prepared, patches, jobs):
    other = patched(prepared, CLASSES, Draft(remove=range(3)))
    at = visit([other])
    assert "Estimating time and memory" in texts(at)
    task, params = next(job for job in jobs.submitted if job[0] == "evidence_estimate")
    prepared.TASKS[task](params, quiet, None)
    jobs.now = {"status": "done", "result": {}}
    at.run()
    assert "Trains 16 models, 8 with the rows and 8 without: " in texts(at)
    assert " one by one, " in texts(at)
    button(at, "Evidence for this patch").click()
    jobs.now = {"status": "running", "done": 0.3, "total": 1.0}
    at.run()
    task, params = jobs.submitted[-1]
    assert task == "evidence"
    assert params["patches"] == [other]
    assert params["expected"] > 0
    assert "Retraining models with and without the rows" in texts(at)


def test_a_trainer_of_ones_own_has_no_estimate(prepared, patches, monkeypatch):
    project = replace(prepared.open_project(CLASSES, None), trainer=lambda *given: given[0])
    monkeypatch.setattr(prepared, "opened", lambda *_: (project, None))
    prepared.evidence_estimated({"device": "cpu", "name": "e" * 64}, quiet, None)
    assert "its own trainer" in Store(home() / "cache").load("e" * 64).info["refused"]


def test_it_stops_when_asked_and_keeps_nothing(prepared, patches):
    class Set:
        def is_set(self):
            return True

    other = patched(prepared, CLASSES, Draft(remove=range(4)))
    with pytest.raises(Cancelled):
        prepared.evidence(
            {"source": CLASSES, "version": None, "patches": [other], "device": "cpu"}, quiet, Set()
        )
    assert Store(home() / "cache").load(evidence_key(other)) is None


def test_where_there_can_be_none_it_is_said(visit, prepared, patches, jobs):
    up = patched(prepared, CLASSES, Draft(upweight={3: 1.0}))
    assert "which only up-weights rows: nothing was to be removed" in texts(visit([up]))
    prepared.prepare({"source": VALUES, "version": None}, quiet, None)
    value = patched(prepared, VALUES, Draft(remove=range(5)))
    at = visit([value], VALUES)
    assert "There is none for a regression" in texts(at)
    assert not [b for b in at.button if "Evidence" in b.label]
    assert "evidence_estimate" not in [task for task, _ in jobs.submitted]


def test_the_report_of_an_accepted_patch_has_it(prepared, patches, evidence):
    where = {"source": CLASSES, "version": None}
    other = patched(prepared, CLASSES, Draft(remove=range(5)))
    for name, known in ((patches[0], True), (other, False)):
        version = prepared.accept({**where, "patch": name, "why": ""}, quiet, None)["version"]
        entry = state.ledger().entry(version)
        assert ("evidence" in entry.details) == known
        html = entry_report(entry, state.ledger())
        assert ("<h2>Removal evidence</h2>" in html) == known
        assert ("nobody has retrained without them" in html) != known
    kept = Store(home() / "cache").load(evidence_key(patches[0])).info
    assert json.loads(json.dumps(kept)) == state.ledger().decision(patches[0]).details["evidence"]
    Store(home() / "cache").save(evidence_key(other), {}, kept)  # computed after it was accepted
    assert "<h2>Removal evidence</h2>" in entry_report(entry, state.ledger())
    assert np.isfinite(pd.DataFrame(**kept["membership"]).to_numpy()).all()
