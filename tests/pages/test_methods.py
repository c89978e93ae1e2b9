"""The Methods page: each section before anything ran, while it runs, after it failed, and with results."""

from types import SimpleNamespace

import numpy as np
import pytest

import puma_dash as puma
from puma_dash.core.types import ProjectError
from puma_dash.core.valuation import LeaveOneOut
from puma_dash.ui import method_texts
from puma_dash.ui.methods import Costs, flips_sentence
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.index import Index
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import JOB, button, texts
from tests.pages.test_pages import DRAFT, EXPLORE, keep

METHODS = "pages/6_Methods.py"
SOURCE = {"source": "radial", "version": None}


def quiet(*_):
    """No progress is told."""


@pytest.fixture(scope="module")
def costs(prepared):
    prepared.TASKS["costs"](SOURCE, quiet, None)
    return prepared


def at_section(open_page, name, **view):
    """The page at one of its questions."""
    keep(view.pop("draft", Draft()), view={"methods-section": name, **view})
    at = open_page(METHODS, project="radial", draft=DRAFT)
    assert not at.exception
    return at


def submitted(jobs, task):
    """The parameters of the last job of that kind."""
    return next(params for name, params in reversed(jobs.submitted) if name == task)


def done(prepared, jobs, at, task):
    """The page after the worker has run the last job of that kind."""
    result = prepared.TASKS[task](submitted(jobs, task), quiet, None)
    jobs.now = {"status": "done", "result": result}
    at.run()
    assert not at.exception
    return at


def test_what_methods_cost_is_estimated_first(open_page, prepared, jobs):
    index = Index.of(home(), "radial", None)
    if "costs" in index.findings:
        Store(home() / "cache").remove(index.findings["costs"])
    at = at_section(open_page, "Scores")
    assert jobs.submitted[-1] == ("costs", SOURCE)
    assert "Estimating what each method costs" in texts(at)
    assert not at.dataframe
    done(prepared, jobs, at, "costs")
    table = at.dataframe[0].value
    assert table["method"].iloc[0] == "psi"
    assert len(table) == len(method_texts.VALUATIONS)
    assert table["method"].is_unique
    assert table.loc["psi", "took"].startswith("✓")
    assert table.loc["leave_one_out", "about"].endswith("min")
    assert table.loc["tracin", "needs"] == "a criterion, records of training"
    assert button(at, "Tick methods to score the rows by").disabled


def test_a_failed_estimate_says_why(open_page, jobs, prepared):
    Store(home() / "cache").remove(Index.of(home(), "radial", None).findings.get("costs", "0" * 64))
    keep(view={"methods-section": "Scores"}, jobs={"costs": JOB})
    jobs.submitted.append(("costs", SOURCE))
    jobs.now = {"status": "failed", "error": "expected a device of this machine."}
    at = open_page(METHODS, project="radial", draft=DRAFT)
    assert "expected a device" in texts(at)
    assert not at.exception
    prepared.TASKS["costs"](SOURCE, quiet, None)


def test_rows_scored_by_other_methods_colour_and_rank_on_explore(open_page, costs, jobs):
    params = {**SOURCE, "methods": ["knn_shapley", "gradient_dot", "random"], "criterion": "cross_entropy"}
    assert costs.TASKS["score"](params, quiet, None) == {"refused": {}}
    index = Index.of(home(), "radial", None)
    assert {"KNN-Shapley", "gradient dot product of cross-entropy", "random"} <= set(index.scores)
    keep(Draft())
    at = open_page(EXPLORE, project="radial", draft=DRAFT)
    assert "scores: KNN-Shapley" in at.selectbox(key="colour").options
    at = at_section(open_page, "Scores")
    assert at.dataframe[0].value.loc["random", "took"].startswith("✓")
    at = at_section(open_page, "Agreement")
    assert "Most agree" in texts(at)
    scores = Store(home() / "cache").load(index.scores["KNN-Shapley"]).arrays["scores"]
    assert scores.shape == (len(puma.DEMOS["radial"]().untrained().train),)


def test_agreement_asks_for_scores_first(open_page, costs, jobs, monkeypatch):
    from puma_dash.ui import methods

    monkeypatch.setattr(methods, "VALUATIONS", {"psi": method_texts.VALUATIONS["psi"]})
    at = at_section(open_page, "Agreement")
    assert "Score them by other methods first" in texts(at)
    button(at, "Go to Scores").click().run()
    assert not at.exception


def test_wrong_labels_flipped_in_copies_are_searched_for(open_page, costs, jobs):
    view = {"flips-methods": ["psi", "loss", "random"], "flips-source": "flipped in copies"}
    at = at_section(open_page, "Wrong labels", **view, **{"flips-repeats": 1})
    assert "in 1 copy" in texts(at)
    button(at, "Ask 3 methods").click().run()
    assert submitted(jobs, "flips")["repeats"] == 1
    assert "Searching for wrong labels" in texts(at)
    done(costs, jobs, at, "flips")
    table = at.dataframe[0].value
    assert set(table["method"]) == {"psi", "training loss", "random"}
    assert float(table["AUC"][0].split()[0]) >= float(table["AUC"][2].split()[0])
    found = table.set_index("method")["found at 10 %"].str.split().str[0].astype(float)
    assert f"Most wrong labels in 10 % of the rows: {found.idxmax()}" in texts(at).replace("\\", "")
    at.multiselect(key="flips-methods").set_value(["psi", "loss", "random", "knn_shapley"]).run()
    assert button(at, "Ask 1 more method")


def test_methods_that_take_no_time_are_asked_without_being_chosen():
    refused = {"psi": None, "random": None, "loss": "not here", "dvrl": None, "leave_one_out": None}
    known = {"psi": 0.1, "random": 0.0, "loss": 0.1, "dvrl": 60.0, "leave_one_out": None}
    assert Costs({}, refused, known, None).quick == ["psi", "random"]


def test_the_best_finder_is_named_with_those_whose_intervals_overlap():
    shares = {"psi": (0.5, 0.1), "loss": (0.8, 0.05), "knn_shapley": (0.9, 0.05), "random": (0.1, None)}
    found = {
        method: SimpleNamespace(info={"line": {"found at 10 %": share, "found at 10 % ±": half}})
        for method, (share, half) in shares.items()
    }
    found["dvrl"] = SimpleNamespace(info={"refused": "it cannot"})
    assert flips_sentence(found) == (
        "Most wrong labels in 10 % of the rows: KNN-Shapley, 0.900 ± 0.050 of them (intervals overlap: "
        "training loss); psi 0.500 ± 0.100."
    )
    assert flips_sentence({"psi": found["psi"]}).endswith(
        "Most wrong labels in 10 % of the rows: psi, 0.500 ± 0.100 of them."
    )


def test_a_failed_search_says_why_and_can_be_tried_again(open_page, costs, jobs):
    keep(view={"methods-section": "Wrong labels"}, jobs={"flips": JOB})
    jobs.submitted.append(("flips", {**SOURCE, "methods": ["loss"]}))
    jobs.now = {"status": "failed", "error": "expected a column of the training rows."}
    at = open_page(METHODS, project="radial", draft=DRAFT)
    assert not at.exception
    assert "expected a column" in texts(at)
    assert button(at, "Try again")


def test_trust_takes_a_removal_apart(open_page, costs, jobs):
    rows = tuple(range(0, 40, 2))
    chosen = "the 20 rows marked to remove"
    at = at_section(open_page, "Trust", draft=Draft(remove=rows), **{"trust-rows": chosen})
    button(at, "Take apart the removal of 20 rows").click().run()
    assert submitted(jobs, "trust")["rows"] == list(rows)
    done(costs, jobs, at, "trust")
    table = at.dataframe[0].value
    assert list(table["assumption"]) == [
        "warm start",
        "proximity",
        "non-convergence",
        "linearisation",
        "solver",
    ]
    assert "Retraining moved the criterion by" in texts(at)
    info = Store(home() / "cache").load(Index.of(home(), "radial", None).findings["trust"]).info
    gap = info["influence"] - info["retrained"]
    assert table["change"].sum() == pytest.approx(gap, abs=1e-9)


def test_retraining_ranks_the_methods(open_page, costs, jobs, monkeypatch):
    from puma_dash.ui import methods_panels

    monkeypatch.setattr(methods_panels, "SUBSETS", 8)
    monkeypatch.setattr(methods_panels, "TRAININGS", 1)
    at = at_section(open_page, "Retraining", **{"datamodeling-methods": ["psi", "random"]})
    button(at, "Retrain 8 times").click().run()
    params = submitted(jobs, "datamodeling")
    assert (params["subsets"], params["trainings"]) == (8, 1)
    done(costs, jobs, at, "datamodeling")
    assert "Foresees best what retraining does to cross\\-entropy" in texts(at)
    assert len(at.get("plotly_chart")) == 1


def test_the_race_needs_a_patch(open_page, costs, jobs):
    at = at_section(open_page, "Race")
    assert "mark rows and patch them first" in texts(at)


def test_an_experiment_of_the_paper_is_one_click(open_page, costs, jobs):
    at = at_section(open_page, "The paper", **{"experiment": "fig4", "experiment-seeds": 1})
    assert "puma-dash reproduce fig4" in texts(at)
    button(at, "Run").click().run()
    assert submitted(jobs, "experiment") == {**SOURCE, "experiment": "fig4", "seeds": 1}
    done(costs, jobs, at, "experiment")
    assert "1 seed" in texts(at)
    assert len(at.get("plotly_chart")) == 1
    assert at.dataframe


def test_every_section_has_an_empty_state(open_page, costs, jobs):
    for section in ("Scores", "Wrong labels", "Retraining", "Agreement", "Trust", "Race", "The paper"):
        at_section(open_page, section)


def test_without_a_project_the_demo_is_offered(open_page, jobs):
    at = open_page(METHODS)
    assert not at.exception
    assert "No project is open" in texts(at)


def test_a_method_that_cannot_be_asked_says_why(costs, monkeypatch):
    def refuse(*_):
        raise ProjectError("expected 201 retrainings to take at most 10 minutes.")

    monkeypatch.setattr(LeaveOneOut, "__call__", refuse)
    out = costs.TASKS["score"](
        {**SOURCE, "methods": ["leave_one_out", "random"], "criterion": "cross_entropy"}, quiet, None
    )
    assert set(out["refused"]) == {"leave_one_out"}
    assert "minutes" in out["refused"]["leave_one_out"]


def test_limits_named_here_are_those_of_the_computation():
    from puma_dash.core.evaluation import trust
    from puma_dash.ui import methods_panels

    assert methods_panels.LARGEST_MODEL == trust.LARGEST_MODEL
    assert methods_panels.MOST_ROWS == trust.MOST_ROWS


def test_trust_is_for_small_models(open_page, costs, jobs, monkeypatch):
    from puma_dash.ui import methods_panels

    monkeypatch.setattr(methods_panels, "LARGEST_MODEL", 10)
    at = at_section(open_page, "Trust")
    assert next(b for b in at.button if b.label.startswith("Take apart")).disabled
    assert "which this one is not" in texts(at)


def test_experiments_named_here_are_those_there_are():
    from puma_dash.core.experiments import EXPERIMENTS
    from puma_dash.core.valuation import VALUATIONS
    from puma_dash.ui import methods

    assert set(methods.EXPERIMENTS) == set(EXPERIMENTS)
    assert {need for kind in VALUATIONS.values() for need in kind.needs} == set(methods.NEEDS)
    assert np.all([methods.name_of(key) for key in VALUATIONS])
