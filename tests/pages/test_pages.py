"""Each page in each state: empty, busy, failed, ready."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from puma_dash.ui import state
from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.index import Index
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import JOB, button, draw, texts

EXPLORE, PATCH, COMPARE = "pages/2_Explore.py", "pages/3_Patch.py", "pages/4_Compare.py"
DRAFT = "0123456789abcdef"


@pytest.fixture
def psi(prepared):
    """psi of the prepared project."""
    name = Index.of(home(), "radial", None).values["psi/cross_entropy"]
    return Store(home() / "cache").load(name).arrays["scores"]


def keep(draft=None, **history):
    """Puts a draft on disk."""
    drafts.save(home() / "drafts", DRAFT, "radial None", History((Draft(), draft or Draft()), 1, **history))


def now():
    """The draft as it is on disk."""
    return drafts.load(home() / "drafts", DRAFT, "radial None").now


def forecast(at):
    """The change of cross-entropy that the forecast tells."""
    return at.table[0].value.loc["cross-entropy (nats)", "change"]


def test_the_workspace_offers_the_demos(open_page):
    at = open_page("app.py")
    assert not at.exception
    assert [b.label for b in at.button] == ["Try digits", "Try two moons", "Try radial", "Try MNIST"]


@pytest.mark.parametrize("source", ["os:system", "../../etc", "", "mymodule:make"])
def test_a_url_cannot_name_a_project_the_server_does_not_offer(open_page, jobs, source):
    at = open_page("app.py", project=source)
    assert not at.exception
    assert "No project is open." in texts(at)
    assert jobs.submitted == []


def test_a_demo_that_is_not_prepared_starts_and_shows_its_progress(open_page, jobs):
    at = open_page("app.py", project="two-moons")
    assert jobs.submitted[-1] == ("prepare", {"source": "two-moons", "version": None})
    assert "Preparing the project" in texts(at)
    button(at, "Cancel").click().run()
    assert jobs.now["status"] == "cancelled"


def test_an_overview_of_an_older_version_is_prepared_again(prepared, open_page, jobs):
    """It lacks what the pages read today."""
    entry = Store(home() / "cache").load(Index.of(home(), "radial", None).overview)
    older = {name: fact for name, fact in entry.info.items() if name not in ("criteria", "layout")}
    Store(home() / "cache").fetch("0" * 64, lambda: (entry.arrays, older))
    index = Index.of(home(), "two-moons", None).with_overview("fingerprint", "0" * 64)
    at = open_page(PATCH, project="two-moons")
    index.path.unlink()
    assert not at.exception
    assert jobs.submitted[-1] == ("prepare", {"source": "two-moons", "version": None})


@pytest.mark.parametrize("page", ["app.py", EXPLORE, PATCH, COMPARE])
def test_a_failed_preparation_says_what_happened_and_offers_another_try(open_page, jobs, page):
    jobs.now = {"status": "failed", "error": "expected finite inputs, but got NaN; try dropping rows."}
    at = open_page(page, project="two-moons")
    assert not at.exception
    assert "expected finite inputs" in texts(at)
    before = len(jobs.submitted)
    button(at, "Try again").click().run()
    assert jobs.submitted[before] == ("prepare", {"source": "two-moons", "version": None})


@pytest.mark.parametrize("page", [EXPLORE, PATCH, COMPARE])
def test_without_a_project_every_page_offers_the_demo(open_page, page):
    at = open_page(page)
    assert not at.exception
    assert "No project is open yet" in texts(at)
    assert button(at, "Try digits")


def test_explore_selects_marks_and_forecasts(open_page, prepared, psi):
    keep()
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    button(at, "50 most harmful").click().run()
    worst = np.argsort(psi)[:50]
    assert now().selection.tolist() == sorted(worst.tolist())
    button(at, "Mark remove").click().run()
    assert now().remove.tolist() == sorted(worst.tolist())
    assert forecast(at) == pytest.approx(psi[worst].sum() / len(psi))
    at.button(key="undo").click().run()
    assert not len(now().remove)
    at.button(key="redo").click().run()
    assert len(now().remove) == 50
    assert button(at, "Patch 50 rows")


def test_the_refined_forecast_is_drawn_against_strength(open_page, prepared, jobs, psi):
    worst = tuple(sorted(np.argsort(psi)[:5].tolist()))
    keep(Draft(remove=worst))
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    button(at, "Refine").click().run()
    task, params = jobs.submitted[-1]
    result = json.loads(json.dumps(prepared.forecast(params, lambda *_: None, None)))
    assert task == "forecast"
    assert result["refined"].keys() == {"cross_entropy"}
    strengths = pd.DataFrame(**result["strengths"])
    assert strengths["cross_entropy"][1.0] == pytest.approx(result["refined"]["cross_entropy"])
    assert strengths["nll"][1.0] == pytest.approx(pd.DataFrame(**result["metrics"])["change"]["nll"])
    jobs.now = {"status": "done", "result": result}
    at.run()
    assert not at.exception
    assert len(at.get("plotly_chart")) == 2
    assert "strength asked for" in texts(at)


def test_upweighting_a_valuable_row_is_forecast_to_help(open_page, prepared, psi):
    row = int(psi.argmax())
    keep(Draft(selection=(row,)))
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    button(at, "Mark up-weight").click().run()
    assert dict(now().upweight.items()) == {row: 1.0}
    assert forecast(at) == pytest.approx(-psi[row] / len(psi))


def test_a_box_selects_on_the_server_and_modes_combine(open_page, prepared):
    name = Index.of(home(), "radial", None).embeddings["own columns"]
    x = Store(home() / "cache").load(name).arrays["xy"][:, 0]
    keep()
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    draw(at, box=[{"x": [0, 5], "y": [-5, 5]}])
    right = np.flatnonzero(x >= 0)
    assert now().selection.tolist() == right.tolist()
    at.segmented_control(key="mode").set_value("subtract").run()
    draw(at, box=[{"x": [1, 5], "y": [-5, 5]}])
    assert now().selection.tolist() == np.flatnonzero((x >= 0) & (x < 1)).tolist()
    draw(at, lasso=[{"x": [90, 91, 91], "y": [90, 90, 91]}])
    assert now().selection.tolist() == np.flatnonzero((x >= 0) & (x < 1)).tolist()


def test_an_outline_right_after_a_change_of_mode_is_taken_in_that_mode(open_page, prepared):
    keep(Draft(selection=(1, 2, 3)))
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    at.segmented_control(key="mode").set_value("subtract")  # both come in one rerun
    draw(at, box=[{"x": [-9, 9], "y": [-9, 9]}])
    assert len(now().selection) == 0


def spec(at, chart=0):
    """A chart as the browser gets it."""
    return json.loads(at.get("plotly_chart")[chart].proto.spec)


def ends(axis):
    """What an axis of the map shows at least."""
    return [axis["autorangeoptions"][end] for end in ("minallowed", "maxallowed")]


def test_a_box_is_zoomed_into_instead_of_selected_when_asked_and_left_again(open_page, prepared):
    keep(Draft(selection=(1, 2, 3)))
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    whole = spec(at)["layout"]
    assert "600 drawn, 3 selected of 600 rows" in texts(at)
    button(at, "Zoom to box").click().run()
    assert spec(at)["layout"]["dragmode"] == "select"
    draw(at, box=[{"x": [1, -1], "y": [0, 2]}])
    zoomed = spec(at)["layout"]
    assert (ends(zoomed["xaxis"]), ends(zoomed["yaxis"])) == ([-1, 1], [0, 2])
    assert zoomed["dragmode"] == "lasso"
    name = Index.of(home(), "radial", None).embeddings["own columns"]
    x, y = Store(home() / "cache").load(name).arrays["xy"].T
    inside = ((abs(x) <= 1) & (y >= 0) & (y <= 2)).sum()
    drawn = int(re.search(r"(\d+) drawn, 3 selected of 600 rows", texts(at))[1])
    assert 0 < inside < drawn < 600  # and some around it
    assert now().selection.tolist() == [1, 2, 3]
    draw(at, box=[{"x": [-1, 1], "y": [0, 2]}])  # the next one selects again, and the window stays
    assert len(now().selection) == inside
    assert ends(spec(at)["layout"]["xaxis"]) == [-1, 1]
    button(at, "Reset zoom").click().run()
    assert spec(at)["layout"]["xaxis"] == whole["xaxis"]
    assert "Reset zoom" not in [b.label for b in at.button]


def test_psi_is_one_click_away_from_any_other_colour(open_page, prepared):
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    assert "Colour by psi" not in [b.label for b in at.button]
    at.selectbox(key="colour").set_value("label").run()
    button(at, "Colour by psi").click().run()
    assert at.selectbox(key="colour").value == "psi of cross-entropy"
    assert "**600 training rows by psi of cross\\-entropy**" in texts(at)


@pytest.mark.parametrize("colour", ["label", "prediction", "fit", "cluster"])
def test_the_map_can_be_coloured_by_anything_known(open_page, prepared, colour):
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    at.selectbox(key="colour").set_value(colour).run()
    assert not at.exception
    assert len(at.get("plotly_chart")) == 1


def test_psi_of_another_criterion_is_computed_on_request(open_page, prepared, jobs):
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    at.selectbox(key="colour").set_value("psi of Brier score").run()
    task, params = jobs.submitted[-1]
    assert (task, params["criterion"]) == ("value", "brier")


USABLE = {
    "cross_entropy": "cross-entropy",
    "brier": "Brier score",
    "calibration": "calibration (soft-binned ECE)",
    "margin": "margin (smooth error rate)",
    "worst_group": "worst group's cross-entropy",
    "adversarial": "adversarial cross-entropy (PGD)",
}


def test_criteria_are_offered_where_the_project_can_use_them(open_page, prepared):
    """Radial has no groups: no gap between groups can be shown or held."""
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    offered = [option for option in at.selectbox(key="colour").options if option.startswith("psi of ")]
    assert offered == [f"psi of {label}" for label in USABLE.values()]
    keep(Draft(remove=(1, 2, 3)))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert at.multiselect(key="hold").options == list(USABLE.values())
    at.multiselect(key="hold").set_value(list(USABLE)).run()
    assert not at.exception
    told = [at.number_input(key=f"tolerance-{key}").label for key in USABLE]
    assert "worst group's cross-entropy: may get worse by (nats)" in told
    assert "margin (smooth error rate): may get worse by (fraction of rows)" in told


def test_every_criterion_offered_can_be_held(open_page, prepared, psi):
    worst = tuple(np.argsort(psi)[:5].tolist())
    name = patched(prepared, remove=worst, hold=list(USABLE), tolerance={key: 1.0 for key in USABLE})
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception
    verdicts = next(d.value for d in at.dataframe if "verdict" in d.value)
    told = verdicts["rail"].str.rsplit(", ", n=1).str[0]
    assert told.tolist() == ["error rate", *USABLE.values()]
    assert set(verdicts["verdict"][1:]) == {"✓ pass"}


def test_a_column_of_the_data_never_passes_for_one_of_ours():
    from puma_dash.ui.explore import column_label

    assert [column_label(name) for name in ("psi", "label", "cluster")] == [
        "data: psi",
        "data: label",
        "cluster",
    ]


def test_patch_without_marks_points_to_the_map(open_page, prepared):
    keep()
    assert "No rows are marked yet" in texts(open_page(PATCH, project="radial", draft=DRAFT))


def test_patch_says_what_its_button_does_and_starts_that(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 3), upweight={7: 2.0}))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    button(at, "Patch: remove 3, up-weight 1").click().run()
    task, params = jobs.submitted[-1]
    plan = Store(home() / "cache").load(params["plan"]).info
    assert task == "patch"
    assert plan["remove"] == [1, 2, 3]
    assert plan["upweight"] == {"7": 2.0}
    assert plan["hold"] == ["cross_entropy"]
    assert "Working" in str([p.proto for p in at.get("progress")])


def test_patch_warns_of_a_class_that_would_vanish(open_page, prepared):
    rows = tuple(range(0, 600, 2))  # every row of class A
    keep(Draft(remove=rows))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "a whole class cannot be patched away" in texts(at)
    assert button(at, "Patch: remove 300").disabled


def test_adjusting_starts_from_how_the_last_patch_was_asked_for(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2, 3)))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    at.multiselect(key="hold").set_value(["brier"]).run()
    at.slider(key="steps").set_value(5).run()
    button(at, "Patch: remove 3").click().run()
    jobs.now = {"status": "cancelled"}
    again = open_page(PATCH, project="radial", draft=DRAFT)
    assert again.multiselect(key="hold").value == ["brier"]
    assert again.slider(key="steps").value == 5


def test_a_draft_of_another_project_is_not_opened(open_page, prepared):
    drafts.save(home() / "drafts", DRAFT, "digits None", History((Draft(remove=(700, 999)),)))
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    assert not at.exception
    assert next(m for m in at.metric if m.label == "Marked").value == "0"


def test_accepted_versions_can_be_found_again(open_page, prepared, psi):
    name = patched(prepared, remove=tuple(np.argsort(psi)[:10].tolist()))
    made = prepared.accept({"source": "radial", "version": None, "patch": name}, lambda *_: None, None)
    at = open_page("app.py", project="radial")
    name = state.ledger().versions("radial").name(made["version"])
    assert f"{name}, accepted" in str([link.proto for link in at.get("page_link")])
    prepared.prepare({"source": "radial", "version": made["version"]}, lambda *_: None, None)
    at = open_page(EXPLORE, project="radial", version=str(made["version"]))
    assert not at.exception
    assert f"{name} (current)" in texts(at)
    names = [trace.get("name") for trace in spec(at)["data"]]
    assert "removed before (10)" in names


def test_a_failed_patch_keeps_the_draft(open_page, prepared, jobs):
    keep(Draft(remove=(1, 2)), jobs={"patch": JOB})
    jobs.submitted.append(("patch", {"source": "radial", "version": None, "plan": "p"}))
    jobs.now = {"status": "died", "error": "The worker stopped unexpectedly (signal 9)."}
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "The worker stopped unexpectedly" in texts(at)
    assert button(at, "Patch: remove 2")
    assert now().remove.tolist() == [1, 2]


def test_compare_without_a_patch_says_so(open_page, prepared):
    keep()
    assert "no patch to compare yet" in texts(open_page(COMPARE, project="radial", draft=DRAFT))


def patched(tasks, **settings):
    """The key of a patch, computed as the worker would."""
    from puma_dash.ui.patching import keep_plan, plan_of_draft

    plan = keep_plan(plan_of_draft(Draft(remove=settings.pop("remove")), **settings))
    params = {"source": "radial", "version": None, "plan": plan, "device": "cpu", "seed": 0}
    return tasks.patch(params, lambda *_: None, None)["patch"]


def test_compare_shows_decides_and_remembers(open_page, prepared, psi):
    name = patched(prepared, remove=tuple(np.argsort(psi)[:20].tolist()))
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception, at.exception
    assert "of 600 validation rows" in texts(at)
    titles = str([chart.proto for chart in at.get("plotly_chart")])
    for title in (
        "Accuracy against",
        "Predicted and",
        "By class",
        "taken for what",
        "What the model answers",
    ):
        assert title in titles
    button(at, "Discard").click().run()
    assert "Discarded by" in texts(at)
    prepared.accept({"source": "radial", "version": None, "patch": name}, lambda *_: None, None)
    at.run()
    assert "Accepted as version" in texts(at)
    assert "of 1,200 test rows" in texts(at)
    opened = state.ledger().openings("radial")
    assert f"has been opened {opened} time" in texts(at)


def test_a_patch_that_no_strength_allows_says_which_criterion_binds(open_page, prepared, psi):
    valuable = tuple(np.argsort(-psi)[:150].tolist())
    name = patched(prepared, remove=valuable, options={"weight_max": 0.0})
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert "Nothing was applied" in texts(at)
    assert button(at, "Accept").disabled


def test_a_criterion_of_ones_own_can_be_valued_and_held(open_page, prepared, psi):
    record = {"criterion": "cross_entropy", "split": "validation", "rows": [0, 3, 5]}
    params = {"source": "radial", "version": None, "method": "psi", "criterion": record}
    own = prepared.value({**params, "label": "three errors"}, lambda *_: None, None)["criterion"]
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    at.selectbox(key="colour").set_value("psi of three errors").run()
    assert not at.exception
    assert len(at.get("plotly_chart")) == 1
    keep(Draft(remove=np.argsort(psi)[:3]))
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "three errors" in at.multiselect(key="hold").options
    plan = {"hold": [own], "tolerance": {own: 1.0}}
    criteria = Index.of(home(), "radial", None).criteria
    keep(patch=patched(prepared, remove=np.argsort(psi)[:3], criteria=criteria, **plan))
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert not at.exception
    verdicts = next(d.value for d in at.dataframe if "verdict" in d.value)
    assert verdicts["rail"].tolist() == ["error rate, fraction of rows", "three errors, nats"]


GUIDE = "pages/7_Guide.py"


def test_the_guide_needs_no_project(open_page):
    at = open_page(GUIDE)
    assert not at.exception
    assert "Which training rows" in texts(at) or "which training rows" in texts(at)
    assert "torch 2.13.0" in texts(at)


def test_the_tour_leads_from_stop_to_stop(open_page, prepared, psi, monkeypatch):
    monkeypatch.setenv("PUMA_DASH_PRESENT", "1")
    keep()
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    assert "**1 of 6**" in texts(at)
    button(at, "50 most harmful").click().run()
    assert "**2 of 6**" in texts(at)
    button(at, "Mark remove").click().run()
    assert "**3 of 6**" in texts(at)
    at = open_page(PATCH, project="radial", draft=DRAFT)
    assert "**4 of 6**" in texts(at)
    keep(patch=patched(prepared, remove=np.argsort(psi)[:13]))
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    assert "**5 of 6**" in texts(at)
    at.button(key="tour-away").click().run()
    assert "of 6**" not in texts(at)


def test_without_being_asked_for_there_is_no_tour(open_page, prepared):
    assert "of 6**" not in texts(open_page(EXPLORE, project="radial", draft=DRAFT))
