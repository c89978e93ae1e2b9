"""Drafts: what an edit changes, what undo brings back, and what a disk keeps of it."""

import json

import numpy as np
import pytest

from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History, Marks

ID, PROJECT = "0123456789abcdef", "digits None"


def marks(draft):
    """Everything that is marked, in plain types."""
    return (
        draft.remove.tolist(),
        dict(draft.upweight.items()),
        {row: int(label) for row, label in draft.relabel.items()},
    )


def test_a_row_has_one_mark_and_the_last_one_wins():
    draft = Draft(selection=[5, 2, 9]).marking_remove()
    assert marks(draft) == ([2, 5, 9], {}, {})
    draft = draft.selecting([2], "").marking_upweight(1.5).selecting([9, 11], "").marking_relabel(3)
    assert marks(draft) == ([5], {2: 1.5}, {9: 3, 11: 3})
    draft = draft.selecting([2, 9], "").marking_remove()
    assert marks(draft) == ([2, 5, 9], {}, {11: 3})
    assert draft.marked == 4
    assert draft.marked_rows.tolist() == [2, 5, 9, 11]
    assert marks(draft.unmarking([5, 11, 400])) == ([2, 9], {}, {})
    assert marks(draft.unmarking()) == ([], {}, {})


def test_rows_get_a_label_each_and_marks_can_name_their_rows():
    draft = Draft(selection=[5, 2, 9]).marking_relabel([1, 0, 7])
    assert marks(draft) == ([], {}, {2: 1, 5: 0, 9: 7})
    draft = draft.marking_relabel([4, 3], [1, 9]).marking_remove([2, 8])
    assert marks(draft) == ([2, 8], {}, {1: 4, 5: 0, 9: 3})
    assert draft.selection.tolist() == [2, 5, 9]


def test_a_set_is_renamed_in_its_place():
    draft = Draft(selection=[1]).keeping("a").selecting([2], "").keeping("b").renaming("a", "c")
    assert {name: rows.tolist() for name, rows in draft.sets.items()} == {"c": [1], "b": [2]}
    assert list(draft.sets) == ["c", "b"]


def test_rows_are_sorted_once_each_and_not_to_be_written_to():
    draft = Draft(selection=[3, 1, 3], upweight={7: 2.0, 4: 1.0})
    assert draft.selection.tolist() == [1, 3]
    assert draft.upweight.rows.tolist() == [4, 7]
    with pytest.raises(ValueError, match="read-only"):
        draft.selection[0] = 9


def test_named_sets_stay_while_the_selection_moves():
    draft = Draft(selection=[1, 2]).keeping("odd ones").selecting([7], "")
    assert draft.sets["odd ones"].tolist() == [1, 2]
    assert draft.dropping("odd ones").sets == {}


def test_what_changes_nothing_is_the_same():
    draft = Draft(selection=[1, 2], remove=[3], relabel={4: 1})
    assert draft.same(draft.selecting(np.array([2, 1]), "again"))
    assert not draft.same(draft.selecting([1], ""))
    assert not draft.same(Draft(selection=[1, 2], remove=[3], relabel={4: 2}))
    assert not draft.same(draft.keeping("a"))


def test_undo_redo_and_a_new_edit():
    history = History().then(Draft(selection=[1], action="one")).then(Draft(selection=[2], action="two"))
    assert (history.undoes, history.redoes) == ("two", None)
    back = history.undone()
    assert (back.undoes, back.redoes) == ("one", "two")
    assert back.now.selection.tolist() == [1]
    assert back.redone().now.selection.tolist() == [2]
    assert back.then(Draft(action="other")).redoes is None
    assert back.undone().undone().undoes is None


@pytest.fixture(params=["remembered", "read"])
def reload(tmp_path, request):
    """Saves and loads; as the process that wrote it, and as another one."""

    def reloaded(history):
        drafts.save(tmp_path, ID, PROJECT, history)
        if request.param == "read":
            drafts._remembered.clear()
        return drafts.load(tmp_path, ID, PROJECT)

    return reloaded


def test_the_disk_gives_back_what_it_got(reload):
    rng = np.random.default_rng(0)
    rows = rng.choice(1_000_000, 300_000, replace=False)
    draft = Draft(
        rows,
        rows[:1000],
        Marks.of({5: 0.1, 1_000_000: 3.0}),
        {7: 2, 0: 1},
        {"a": [0], "b": rows, "none": []},
        "an action",
    )
    view = {"colour": "label", "zoom of a map": [[0, 1], [2, 3]]}
    history = History((Draft(), draft, Draft()), 1, {"patch": "1"}, "key", {"steps": 3}, view=view)
    back = reload(history)
    assert all(mine.same(theirs) for mine, theirs in zip(back.states, history.states, strict=True))
    np.testing.assert_array_equal(back.now.selection, np.sort(rows))
    assert marks(back.now) == (sorted(rows[:1000].tolist()), {5: 0.1, 1_000_000: 3.0}, {0: 1, 7: 2})
    assert (back.at, back.jobs, back.patch, back.settings, back.now.action, back.view) == (
        *(1, {"patch": "1"}, "key", {"steps": 3}),
        *("an action", view),
    )


def test_a_draft_from_before_views_were_kept_is_read(tmp_path):
    drafts.save(tmp_path, ID, PROJECT, History((Draft(remove=[1]),)))
    path = tmp_path / f"{ID}.json"
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "view"}
    path.write_text(json.dumps(older))
    assert drafts.load(tmp_path, ID, PROJECT).now.remove.tolist() == [1]


def test_what_another_process_wrote_is_read(tmp_path):
    drafts.save(tmp_path, ID, PROJECT, History((Draft(remove=[1]),)))
    text = (tmp_path / f"{ID}.json").read_text()
    drafts.save(tmp_path, ID, PROJECT, History((Draft(remove=[2]),)))
    assert drafts.load(tmp_path, ID, PROJECT).now.remove.tolist() == [2]
    other = tmp_path / "other"
    other.write_text(text)
    other.replace(tmp_path / f"{ID}.json")
    assert drafts.load(tmp_path, ID, PROJECT).now.remove.tolist() == [1]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"states": []}', '{"states": [{"selection": "?"}]}'])
def test_what_is_no_draft_is_none(tmp_path, text):
    (tmp_path / f"{ID}.json").write_text(text)
    assert drafts.load(tmp_path, ID, PROJECT) is None


def test_drafts_of_other_projects_and_other_names_are_none(tmp_path):
    drafts.save(tmp_path, ID, PROJECT, History())
    assert drafts.load(tmp_path, ID, "other None") is None
    assert drafts.load(tmp_path, "../" + ID, PROJECT) is None
    assert drafts.load(tmp_path, "f" * 16, PROJECT) is None
