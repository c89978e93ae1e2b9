"""The Explore page: ways to select, marks, the gallery, the story of a row, the forecast."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetState

from puma_dash.ui.panels import signed
from puma_dash.ui.text import escape
from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.index import Index
from puma_dash.workspace.store import Store, home
from tests.pages.conftest import button, texts

EXPLORE, DRAFT = "pages/2_Explore.py", "fedcba9876543210"


def entry(find):
    """Arrays of what the index of the prepared project names."""
    return Store(home() / "cache").load(find(Index.of(home(), "radial", None))).arrays


@pytest.fixture
def psi(prepared):
    return entry(lambda index: index.values["psi/cross_entropy"])["scores"]


@pytest.fixture
def known(prepared):
    """Label, prediction, confidence, loss of the training rows."""
    return entry(lambda index: index.overview)


@pytest.fixture
def opened(open_page, prepared):
    """Opens the page on a draft."""

    def explore(draft=None, **history):
        save(History((Draft(), draft or Draft()), 1, **history))
        at = open_page(EXPLORE, project="radial", draft=DRAFT)
        assert not at.exception, at.exception
        return at

    return explore


@pytest.fixture
def psi_of(prepared):
    """Computes psi of another criterion, until the test ends."""
    index = Index.of(home(), "radial", None)
    before = index.path.read_text()

    def computed(criterion):
        params = {"source": "radial", "version": None, "method": "psi", "criterion": criterion}
        prepared.value(params, lambda *_: None, None)
        return entry(lambda index: index.values[f"psi/{criterion}"])["scores"]

    yield computed
    index.path.write_text(before)


def save(history):
    drafts.save(home() / "drafts", DRAFT, "radial None", history)


def now():
    """The draft as it is on disk."""
    return drafts.load(home() / "drafts", DRAFT, "radial None").now


def counts(at):
    return {m.label: m.value for m in at.metric}


def click(at, label):
    button(at, label).click().run()
    assert not at.exception, at.exception
    return at


def pick(at, rows=(), cells=()):
    """Ticks rows of the gallery, or clicks a cell of it, which AppTest has no call for."""
    event = {"selection": {"rows": list(rows), "columns": [], "cells": [list(cell) for cell in cells]}}
    states = at._tree.get_widget_states()
    states.widgets.append(WidgetState(id=gallery(at).proto.id, string_value=json.dumps(event)))
    at = at._run(states)
    assert not at.exception, at.exception
    return at


def gallery(at):
    return next(d for d in at.dataframe if "prediction" in d.value)


# --- the tray -------------------------------------------------------------------------


def test_three_counts_and_what_is_selected(opened, psi):
    at = opened(Draft(selection=[1, 4, 6], remove=[4, 9]))
    assert counts(at) == {"All rows": "600", "Selected": "3", "Marked": "2"}
    assert signed(psi[[1, 4, 6]].mean(), 3) in texts(at)
    assert len(at.get("image")) == 1


def test_a_rule_says_how_many_rows_match_and_selects_them(opened, psi, known):
    at = opened(Draft(selection=[0, 1]))
    assert button(at, "Select 0 rows").disabled
    at.number_input(key="value-0-psi of cross-entropy").set_value(-0.01).run()
    harmful = np.flatnonzero(psi < -0.01)
    assert f"**{len(harmful):,}** of 600 rows match" in texts(at)
    click(at, "Add a condition")
    at.selectbox(key="field-1").set_value("label").run()
    at.multiselect(key="value-1-label").set_value(["class A"]).run()
    both = np.flatnonzero((psi < -0.01) & (known["target"] == 0))
    assert 0 < len(both) < len(harmful)
    click(at, f"Select {len(both)} rows")
    assert now().selection.tolist() == both.tolist()
    assert now().action == "select psi of cross-entropy < -0.01 and label is class A"


def test_the_conditions_of_a_rule_may_be_any_and_one_may_go(opened, psi, known):
    at = opened()
    at.number_input(key="value-0-psi of cross-entropy").set_value(-0.01).run()
    click(at, "Add a condition")
    at.selectbox(key="field-1").set_value("confidence").run()
    at.number_input(key="value-1-confidence").set_value(0.9).run()
    at.segmented_control(key="any").set_value("any of these").run()
    either = ((psi < -0.01) | (known["confidence"] < 0.9)).sum()
    assert f"**{either:,}** of 600 rows match" in texts(at)
    at.button(key="drop-1").click().run()
    assert f"**{(psi < -0.01).sum():,}** of 600 rows match" in texts(at)


@pytest.mark.parametrize("mode", ["replace", "add", "subtract", "intersect"])
def test_pasted_rows_meet_the_selection(opened, mode):
    at = opened(Draft(selection=[1, 2, 3]))
    at.text_area(key="pasted").set_value("3, 5-6\n700").run()
    assert "Not there: 700" in texts(at)
    at.segmented_control(key="mode-paste").set_value(mode).run()
    at.button(key="apply-paste").click().run()
    expected = {"replace": [3, 5, 6], "add": [1, 2, 3, 5, 6], "subtract": [1, 2], "intersect": [3]}
    assert now().selection.tolist() == expected[mode]


def test_sets_are_kept_combined_renamed_and_dropped(opened):
    at = opened(Draft(selection=[1, 2, 3]))
    at.text_input(key="set_name").set_value("odd ones").run()
    click(at, "Keep")
    at.number_input(key="top_k").set_value(5).run()
    click(at, "5 most harmful")
    at.segmented_control(key="mode-set").set_value("add").run()
    at.button(key="apply-set").click().run()
    assert {1, 2, 3} < set(now().selection.tolist())
    at.text_input(key="rename-odd ones").set_value("odd").run()
    click(at, "Rename")
    assert {name: rows.tolist() for name, rows in now().sets.items()} == {"odd": [1, 2, 3]}
    at.button(key="drop_set").click().run()
    assert now().sets == {}
    at.button(key="undo").click().run()
    assert list(now().sets) == ["odd"]


def test_invert_and_deselect(opened):
    at = opened(Draft(selection=[0, 1, 2]))
    at.button(key="invert_colors").click().run()
    assert now().selection.tolist() == list(range(3, 600))
    at.button(key="deselect").click().run()
    assert not len(now().selection)


def test_the_most_harmful_are_those_of_the_colour_of_the_map(opened, psi_of):
    brier = psi_of("brier")
    at = opened()
    at.selectbox(key="colour").set_value("psi of Brier score").run()
    click(at, "50 most harmful")
    assert now().selection.tolist() == sorted(np.argsort(brier, kind="stable")[:50].tolist())
    shown = gallery(at).value
    assert shown["row"].tolist()[0] == brier.argmin()
    np.testing.assert_array_equal(shown["psi"], brier[shown["row"]])


def test_relabelling_to_the_prediction_leaves_the_rest_as_it_is(opened, known):
    wrong = np.flatnonzero(known["predicted"] != known["target"])[:2]
    right = np.flatnonzero(known["predicted"] == known["target"])[:3]
    at = opened(Draft(selection=np.concatenate([wrong, right])))
    assert "3 of 5 already have that label" in texts(at)
    click(at, "Mark 2 to relabel")
    assert dict(now().relabel.items()) == {int(row): known["predicted"][row] for row in wrong}
    assert "leaves out the 2 new labels" in texts(at)
    at.selectbox(key="new_label").set_value(1).run()
    others = int((known["target"][now().selection] != 0).sum())
    click(at, f"Mark {others} to relabel")
    assert set(dict(now().relabel.items()).values()) >= {0}


def test_unmarking_the_selected_rows(opened):
    at = opened(Draft(selection=[1, 2], remove=[2, 3], upweight={1: 2.0}))
    click(at, "Unmark")
    assert now().marked_rows.tolist() == [3]


def test_the_selected_rows_are_exported_with_what_is_known_of_them(prepared, psi, known, monkeypatch):
    from puma_dash.ui import tray
    from puma_dash.ui.explore import Rows
    from puma_dash.ui.state import Context

    here = Context("radial", None, DRAFT, Index.of(home(), "radial", None))
    draft = Draft(selection=[4, 9, 11], remove=[9], upweight={4: 1.5}, relabel={11: 1})
    table = pd.read_csv(io.BytesIO(tray.export(here, Rows.of(here), draft)))
    assert table["row"].tolist() == [4, 9, 11]
    assert table["mark"].tolist() == ["weight 2.5", "remove", "label class B"]
    np.testing.assert_allclose(table["psi of cross-entropy"], psi[[4, 9, 11]])
    np.testing.assert_allclose(table["loss"], known["loss"][[4, 9, 11]], rtol=1e-5)
    assert table["label"].tolist() == [["class A", "class B"][k] for k in known["target"][[4, 9, 11]]]


# --- scores as files ------------------------------------------------------------------


@pytest.fixture
def index(prepared):
    """The index of the project; what a test adds to it goes when it ends."""
    found = Index.of(home(), "radial", None)
    before = found.path.read_text()
    yield lambda: Index.of(home(), "radial", None)
    found.path.write_text(before)


def take_in(at, name, content):
    at.get("file_uploader")[0].set_value((name, content, "text/csv")).run()
    click(at, "Take in")
    return at


def test_scores_of_another_tool_colour_rank_and_select(opened, index):
    """They are there for whoever opens the project next, too."""
    other = np.random.default_rng(3).permutation(600) - 300.0
    table = pd.DataFrame({"row": range(600), "score": other}).sample(frac=1, random_state=0)
    take_in(opened(), "tool.csv", table.to_csv(index=False).encode())
    at = opened(view={"colour": "scores: tool", "top_k": 40})
    assert at.selectbox(key="colour").value == "scores: tool"
    assert gallery(at).value["row"].tolist() == np.argsort(other)[:60].tolist()
    click(at, "40 most harmful")
    assert now().selection.tolist() == np.flatnonzero(other < -260).tolist()
    at.selectbox(key="field-0").select("scores: tool").run()
    at.number_input(key="value-0-scores: tool").set_value(-295).run()
    assert "**5** of 600 rows match" in texts(at)


def test_taking_in_colours_the_map_and_survives_a_refresh(opened, open_page, index):
    take_in(opened(), "tool.json", json.dumps(np.arange(600.0).tolist()).encode())
    again = open_page(EXPLORE, project="radial", draft=DRAFT)
    assert again.selectbox(key="colour").value == "scores: tool"
    assert Store(home() / "cache").load(index().scores["tool"]).info == {
        "file": "tool.json",
        "column": "",
        "negated": False,
    }


def test_scores_of_the_same_name_replace_the_earlier_ones(opened, index):
    first, second = np.arange(600.0), -np.arange(600.0)
    drawn = []
    for scores in (first, second):
        take_in(opened(), "tool.txt", "\n".join(map(str, scores)).encode())
        at = opened(view={"colour": "scores: tool"})
        drawn.append(at.get("plotly_chart")[0].proto.spec)
    assert drawn[0] != drawn[1]
    assert gallery(at).value["row"].tolist() == np.argsort(second)[:60].tolist()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("short.csv", b"score\n1\n2\n", "expected 600 scores, one per training row, but short.csv has 2"),
        ("odd/../<b>.json", b"{", "cannot be read"),
        ("two.csv", b"a,b\n" + b"1,2\n" * 600, "expected one column of scores in two.csv, but it has 2"),
    ],
)
def test_scores_that_do_not_fit_are_told_and_nothing_changes(opened, index, name, content, sentence):
    before = index()
    at = take_in(opened(), name, content)
    assert sentence in texts(at).replace("\\", "")
    assert index() == before


def test_high_scores_may_be_the_suspicious_ones_and_columns_are_named(opened, index):
    table = pd.DataFrame({"row": range(600), "a": 0.0, "b": np.arange(600.0)})
    at = opened()
    at.get("file_uploader")[0].set_value(("t.csv", table.to_csv(index=False).encode(), "text/csv")).run()
    at.text_input(key="scores_column").set_value("b").run()
    at.toggle(key="scores_negate").set_value(True).run()
    click(at, "Take in")
    at = opened(view={"colour": "scores: t"})
    assert gallery(at).value["row"].tolist()[:3] == [599, 598, 597]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_the_page_writes_comes_back(prepared, psi, index, psi_of, tmp_path, kind):
    """In Python, by command and on another page: psi of the plain loss, with the others beside it."""
    import puma_dash as puma
    from puma_dash.ui import scores
    from puma_dash.ui.explore import Rows
    from puma_dash.ui.state import Context

    brier = psi_of("brier")
    here = Context("radial", None, DRAFT, index())
    path = tmp_path / f"scores.{kind}"
    path.write_bytes(scores.written(here, Rows.of(here), kind))
    project = prepared.open_project("radial", None)
    np.testing.assert_allclose(puma.read_scores(path, project).scores, psi, rtol=1e-14)
    column = "psi of Brier score"
    np.testing.assert_allclose(puma.read_scores(path, project, column).scores, brier, rtol=1e-14)


def test_rows_with_names_are_read_and_written_by_name(open_page, prepared, index, tmp_path, monkeypatch):
    from puma_dash.ui import scores
    from puma_dash.ui.explore import Rows, ids
    from puma_dash.ui.state import Context

    here = Context("radial", None, DRAFT, index())
    rows = Rows.of(here)
    names = [f"k{i}" for i in range(rows.n)]
    monkeypatch.setattr(scores, "ids", lambda _: {name: i for i, name in enumerate(names)})
    rows = replace(rows, id="customer_id")
    frame = scores.table(here, rows)
    assert frame["customer_id"].tolist() == names
    assert ids is not scores.ids
    other = np.random.default_rng(1).standard_normal(rows.n)
    given = pd.DataFrame({"customer_id": names[::-1], "other": other})
    monkeypatch.setattr(Context, "keep", lambda *_: None)
    scores.take_in(here, rows, "theirs", "t.csv", given.to_csv(index=False).encode(), None, False)
    held = Store(home() / "cache").load(index().scores["theirs"]).arrays["scores"]
    np.testing.assert_allclose(held, other[::-1], rtol=1e-14)


# --- the gallery ----------------------------------------------------------------------


def test_without_a_selection_all_rows_are_shown_a_page_at_a_time(opened, psi):
    at = opened()
    assert "1 to 60 shown of all 600 rows" in texts(at)
    assert gallery(at).value["row"].tolist() == np.argsort(psi, kind="stable")[:60].tolist()


ORDERS = {
    "most valuable": lambda known, psi: -psi,
    "least confident": lambda known, psi: known["confidence"],
    "largest loss": lambda known, psi: -known["loss"],
    "row number": lambda known, psi: np.arange(len(psi)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_gallery_is_sorted(opened, psi, known, order):
    at = opened(Draft(selection=np.arange(5, 300)))
    at.selectbox(key="order").set_value(order).run()
    keys = ORDERS[order](known, psi)[5:300]
    assert gallery(at).value["row"].tolist() == (5 + np.argsort(keys, kind="stable")[:60]).tolist()
    assert "1 to 60 shown of 295 selected of 600" in texts(at)


@pytest.mark.parametrize("page", [1, 2, 5])
def test_pages_are_parts_of_one_order(page):
    from puma_dash.ui.gallery import page_of

    keys = np.random.default_rng(0).integers(0, 20, 290)
    chosen = np.arange(290) * 3
    expected = chosen[np.argsort(keys, kind="stable")][60 * (page - 1) : 60 * page]
    assert page_of(keys, chosen, page).tolist() == expected.tolist()


def test_ticked_rows_narrow_the_selection(opened, psi):
    selection = np.arange(20)
    at = pick(opened(Draft(selection=selection)), rows=[0, 2])
    order = np.argsort(psi[:20], kind="stable")
    assert "**2 ticked**" in texts(at)
    click(at, "Take these out")
    assert now().selection.tolist() == sorted(order[[1, *range(3, 20)]].tolist())
    assert "**0 ticked**" in texts(at)
    pick(at, rows=[1])
    click(at, "Mark to remove")
    assert now().remove.tolist() == [order[3]]
    pick(at, rows=[0])
    click(at, "Keep only these")
    assert now().selection.tolist() == [order[1]]


# --- the story ------------------------------------------------------------------------


def told(prepared, row):
    params = {"source": "radial", "version": None, "row": row}
    return json.loads(json.dumps(prepared.story(params, lambda *_: None, None)))


def test_a_click_on_a_row_asks_for_its_story(opened, jobs, psi):
    at = pick(opened(), cells=[(1, "psi")])
    row = int(np.argsort(psi, kind="stable")[1])
    assert jobs.submitted[-1] == ("story", {"source": "radial", "version": None, "row": row})
    assert f"Row {row}" in texts(at)
    assert f"Finding the story of row {row}" in texts(at)
    jobs.now = {"status": "failed", "error": "expected rows; try others."}
    assert "expected rows" in texts(at.run())
    at.button(key="close_story").click().run()
    assert "Story" in [element.value for element in at.subheader]


def test_the_story_tells_whom_it_hurts_and_what_is_like_it(opened, jobs, prepared, psi):
    row = int(psi.argmin())
    at = opened()
    at.number_input(key="story_number").set_value(row).run()
    jobs.now = {"status": "done", "result": told(prepared, row)}
    at.run()
    assert not at.exception, at.exception
    found = Store(home() / "cache").load(jobs.now["result"]["story"])
    said = texts(at)
    for title in ("Hurts most", "Helps most", "Nearest with its label", "Nearest with another label"):
        assert f"**{title}**" in said
    assert found.info["space"] in said
    for kind, _ in found.info["suspicions"]:
        assert f"**Suspected {kind}**" in said
    assert found.info["suspicions"] or "Nothing speaks for" in said
    hurt = next(d.value for d in at.dataframe if "influence" in d.value)
    assert hurt["row"].tolist() == np.argsort(found.arrays["influence"], kind="stable")[:5].tolist()


def test_one_ticked_row_opens_its_story(opened, jobs):
    at = pick(opened(Draft(selection=[7])), rows=[0])
    click(at, "Story")
    assert jobs.submitted[-1] == ("story", {"source": "radial", "version": None, "row": 7})


# --- the forecast ---------------------------------------------------------------------


def test_the_forecast_is_told_for_every_computed_criterion(opened, prepared, psi_of, jobs):
    margin = psi_of("margin")
    at = opened(Draft(remove=[1, 2], upweight={5: 0.5}, relabel={9: 0}))
    table = at.table[0].value
    expected = (margin[[1, 2]].sum() - 0.5 * margin[5]) / 600
    assert table.loc["margin (smooth error rate) (fraction of rows)", "change"] == pytest.approx(expected)
    click(at, "Refine")
    assert {"cross_entropy", "margin"} <= set(jobs.submitted[-1][1]["criteria"])
    result = json.loads(json.dumps(prepared.forecast(jobs.submitted[-1][1], lambda *_: None, None)))
    jobs.now = {"status": "done", "result": result}
    at.run()
    refined = at.table[0].value["refined"]
    assert refined["margin (smooth error rate) (fraction of rows)"] == result["refined"]["margin"]
    assert "leaves out" not in texts(at)


def test_the_tray_tells_the_psi_that_the_map_shows(opened, psi, psi_of):
    some, brier = [1, 2, 3], psi_of("brier")
    for colour, scores in (("psi of cross-entropy", psi), ("psi of Brier score", brier), ("loss", psi)):
        at = opened(Draft(selection=tuple(some)), view={"colour": colour})
        named = colour if colour != "loss" else "psi of cross-entropy"
        assert f"**Mean {escape(named)}** {signed(scores[some].mean(), 3)}" in texts(at)
