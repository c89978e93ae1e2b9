"""What a refresh, or a server that was started anew, leaves as it was: every choice and every pick."""

import numpy as np
import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetState

from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.store import home
from tests.pages.conftest import button, draw, texts
from tests.pages.test_health import click, inject
from tests.pages.test_pages import COMPARE, EXPLORE, PATCH, ends, keep, patched, psi, spec  # noqa: F401

HEALTH = "pages/1_Health.py"
DRAFT = "0123456789abcdef"


@pytest.fixture
def visit(open_page, prepared, psi):  # noqa: F811
    """Opens a page on one draft, each time as a new session that reads the disk."""
    worst = tuple(np.argsort(psi)[:23].tolist())  # a patch that no other test decides on
    keep(Draft(selection=range(130), remove=worst), patch=patched(prepared, remove=worst))

    def opened(page, draft=DRAFT):
        drafts._remembered.clear()
        at = open_page(page, project="radial", draft=draft)
        assert not at.exception, at.exception
        return at

    return opened


CHOICES = [
    (EXPLORE, "selectbox", "colour", "label"),
    (EXPLORE, "selectbox", "map", "PCA of inputs"),
    (EXPLORE, "segmented_control", "mode", "subtract"),
    (EXPLORE, "selectbox", "order", "largest loss"),
    (EXPLORE, "number_input", "top_k", 7),
    (HEALTH, "selectbox", "part", "the last"),
    (HEALTH, "segmented_control", "bins", "equal mass"),
    (PATCH, "selectbox", "method", "influence"),
    (PATCH, "multiselect", "hold", ["brier"]),
    (PATCH, "number_input", "tolerance-cross_entropy", 0.25),
    (PATCH, "slider", "steps", 6),
    (COMPARE, "segmented_control", "flips-validation", "kept right"),
    (COMPARE, "selectbox", "by-validation", "cluster"),
]


@pytest.mark.parametrize(("page", "kind", "key", "value"), CHOICES, ids=[key for _, _, key, _ in CHOICES])
def test_a_choice_is_kept(visit, page, kind, key, value):
    at = visit(page)
    widget = getattr(at, kind)(key=key)
    if key == "part":
        value = widget.options[-1]
    assert widget.value != value
    widget.set_value(value).run()
    assert getattr(visit(page), kind)(key=key).value == value


def test_a_zoom_and_the_tool_are_kept_and_the_zoom_can_be_left(visit):
    at = visit(EXPLORE)
    whole = spec(at)["layout"]["xaxis"]
    draw(at, box=[{"x": [-9, 9], "y": [-9, 9]}])
    button(at, "Zoom to box").click().run()
    draw(at, box=[{"x": [1, -1], "y": [0, 2]}])
    again = visit(EXPLORE)
    layout = spec(again)["layout"]
    assert (ends(layout["xaxis"]), ends(layout["yaxis"])) == ([-1, 1], [0, 2])
    assert layout["dragmode"] == "select"
    button(again, "Reset zoom").click().run()
    assert spec(visit(EXPLORE))["layout"]["xaxis"] == whole


def test_the_page_of_the_gallery_is_kept(visit):
    at = visit(EXPLORE)
    states = at._tree.get_widget_states()
    (pages,) = at.get("pagination")
    states.widgets.append(WidgetState(id=pages.proto.id, int_value=2))
    assert "61 to 120 shown of 130" in texts(at._run(states))
    assert "61 to 120 shown of 130" in texts(visit(EXPLORE))


def test_a_picked_cell_and_a_picked_bin_are_kept(visit):
    at = click(visit(HEALTH), 0, 0)
    assert "**class A, rightly so**" in texts(at)
    before = at.button(key="explore-bin").label
    told = click(at, 1, 0).button(key="explore-bin").label
    assert told != before
    again = visit(HEALTH)
    assert "**class A, rightly so**" in texts(again)
    assert again.button(key="explore-bin").label == told


def test_a_picked_slice_is_kept_and_ticked(visit):
    at = visit(HEALTH)
    name = at.dataframe[0].value["name"].iloc[3]
    assert f"**{name}**" not in texts(at)
    assert f"**{name}**" in texts(inject(at, at.dataframe[0], {"rows": [3], "columns": [], "cells": []}))
    again = visit(HEALTH)
    assert f"**{name}**" in texts(again)
    assert '"rows": [3]' in again.dataframe[0].proto.selection_default


def why(at):
    """The field that asks for the reason of a decision."""
    return next(field for field in at.text_input if field.label == "Why")


def test_a_reason_half_written_is_kept(visit):
    why(visit(COMPARE)).set_value("the labels were").run()
    assert why(visit(COMPARE)).value == "the labels were"


def test_what_is_there_no_more_falls_back(visit):
    history = drafts.load(home() / "drafts", DRAFT, "radial None")
    view = {"colour": "psi of nothing", "cell": [7, 9], "slice": "gone", "top_k": 10**9, "bins": "oval"}
    drafts.save(home() / "drafts", DRAFT, "radial None", History(history.states, history.at, view=view))
    at = visit(EXPLORE)
    assert at.selectbox(key="colour").value == "psi of cross-entropy"
    assert at.number_input(key="top_k").value == 50
    at = visit(HEALTH)
    assert at.segmented_control(key="bins").value == "equal width"


def test_two_people_on_one_draft_look_at_what_they_like(visit):
    one, other = visit(EXPLORE), visit(EXPLORE)
    whole = spec(one)["layout"]["xaxis"]
    other.selectbox(key="colour").set_value("loss").run()
    button(other, "Zoom to box").click().run()
    draw(other, box=[{"x": [1, -1], "y": [0, 2]}])
    one.run()
    assert one.selectbox(key="colour").value == "psi of cross-entropy"
    assert spec(one)["layout"]["xaxis"] == whole


def test_another_draft_starts_with_a_view_of_its_own(visit):
    visit(EXPLORE).selectbox(key="colour").set_value("loss").run()
    assert visit(EXPLORE, "f" * 16).selectbox(key="colour").value == "psi of cross-entropy"
