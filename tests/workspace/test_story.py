"""The story of a row against the calls it is made of; what the overview keeps of texts and ids."""

import numpy as np
import pandas as pd
import pytest

import puma_dash as puma
from puma_dash.core.engine import engine_of
from puma_dash.ui.rules import Text
from puma_dash.workspace.overview import overview_of
from puma_dash.workspace.story import story_of
from tests.core.cases import CASES, trained


def test_the_story_of_a_row():
    case = trained()
    inputs, targets = (part.copy() for part in case.train)
    inputs[20] = inputs[8]
    project = case.but(train=(inputs, targets)).project()
    arrays, info = story_of(project, 8)
    expected = puma.pairwise_influence(project, train_rows=[8])[:, 0]
    np.testing.assert_allclose(arrays["influence"], expected, rtol=1e-5)
    assert arrays["copies"].tolist() == [20]
    assert arrays["neighbours"][0] == 20
    assert set(targets[arrays["same"]]) == {targets[8]}
    assert targets[8] not in targets[arrays["other"]]
    assert info["suspicions"][0][0] == "duplicate"
    np.testing.assert_allclose(arrays["values"], inputs[8], rtol=1e-6)


def test_a_row_of_weight_zero_moves_nothing():
    case = CASES["weighted softmax"]
    weights = case.weights.copy()
    weights[3] = 0
    arrays, info = story_of(case.but(weights=weights).project(), 3)
    assert info["weight"] == 0
    assert not arrays["influence"].any()


@pytest.mark.parametrize("row", [-1, 60])
def test_no_such_row(row):
    with pytest.raises(puma.ProjectError, match="from 0 to 59"):
        story_of(trained().project(), row)


def test_texts_and_ids_are_kept():
    case = trained()
    notes = [f"note {i}\n of  Ü{i % 7}" for i in range(60)]
    notes[3] = None
    meta = pd.DataFrame({"few": ["a", "b"] * 30, "note": notes, "case_id": [f"c-{i}" for i in range(60)]})
    project = case.project(train=puma.Split(*case.train, meta=meta))
    arrays, info = overview_of(project, engine_of(project), "case")
    assert (info["texts"], info["id"]) == (["note", "case_id"], "case_id")
    kept = Text(arrays["text.note"], arrays["starts.note"])
    assert kept.of([0, 3, 59]) == ["note 0 of Ü0", "", "note 59 of Ü3"]
    assert np.flatnonzero(kept.containing("note 1")).tolist() == [1, *range(10, 20)]
    assert [column["name"] for column in info["columns"]] == ["few"]


def test_a_column_with_repetitions_is_no_id():
    case = trained()
    meta = pd.DataFrame({"id": [1] * 60, "KEY": range(60)})
    project = case.project(train=puma.Split(*case.train, meta=meta))
    assert overview_of(project, engine_of(project), "case")[1]["id"] == "KEY"
    assert overview_of(case.project(), engine_of(case.project()), "case")[1]["id"] is None
