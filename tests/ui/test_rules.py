"""Rules against pandas, the lowest scores against a stable sort, and what a person may paste."""

import numpy as np
import pandas as pd
import pytest

from puma_dash.ui.rules import MISSING, Condition, Field, Text, lowest, matching, pasted

NOTES = ["Grüße, Anna", "refund (late)", "", "late REFUND  twice", "a.c"]


def texts(lines):
    encoded = [f"{line}\n".encode() for line in lines]
    return Text(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *[len(line) for line in encoded]]))


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "psi": random.normal(size=200).round(1),
            "label": random.integers(-1, 3, 200),
            "note": random.choice(NOTES, 200),
        }
    )


@pytest.fixture
def fields(table):
    return {
        "psi": Field(table["psi"].to_numpy()),
        "label": Field(table["label"].to_numpy(), ["a", "b", "c"]),
        "note": Field(texts(table["note"])),
    }


CONDITIONS = {
    "psi < -0.5": Condition("psi", "<", -0.5),
    "psi <= 0.3": Condition("psi", "≤", 0.3),
    "psi > 0.3": Condition("psi", ">", 0.3),
    "psi >= 0.3": Condition("psi", "≥", 0.3),
    "psi == 0.3": Condition("psi", "=", 0.3),
    "label in [0, 2]": Condition("label", "is", ["a", "c"]),
    "label not in [0, 2]": Condition("label", "is not", ["a", "c"]),
    "label in [-1]": Condition("label", "is", [MISSING]),
    "note.str.contains('refund', case=False)": Condition("note", "contains", "refund"),
    "~note.str.contains('a.c', regex=False)": Condition("note", "does not contain", "a.c"),
    "note.str.contains('üß')": Condition("note", "contains", "üß"),
}


@pytest.mark.parametrize("query", CONDITIONS)
def test_one_condition(table, fields, query):
    expected = table.query(query, engine="python").index
    assert 0 < len(expected) < len(table)
    assert matching(fields, [CONDITIONS[query]]).tolist() == expected.tolist()


def test_several_conditions(table, fields):
    both = [Condition("psi", "<", 0.0), Condition("label", "is", ["b"])]
    one, other = table["psi"] < 0, table["label"] == 1
    assert matching(fields, both).tolist() == np.flatnonzero(one & other).tolist()
    assert matching(fields, both, any_of=True).tolist() == np.flatnonzero(one | other).tolist()


@pytest.mark.parametrize("empty", [None, "", []])
def test_a_condition_that_says_nothing_is_left_out(fields, empty):
    said = Condition("psi", "<", 0.0)
    assert matching(fields, [Condition("label", "is", empty)]).tolist() == []
    with_it = matching(fields, [said, Condition("label", "is", empty)])
    assert with_it.tolist() == matching(fields, [said]).tolist()


def test_missing_numbers_meet_no_condition():
    fields = {"x": Field(np.array([np.nan, 1.0]))}
    assert matching(fields, [Condition("x", "<", 5.0)]).tolist() == [1]


def test_a_match_never_spans_two_rows():
    assert texts(["ab", "cd"]).containing("b\nc").tolist() == [False, False]
    assert texts(["ab", "cd", ""]).of([1, 2, 0]) == ["cd", "", "ab"]


def test_conditions_in_words():
    assert str(Condition("psi of x", "<", -0.25)) == "psi of x < -0.25"
    assert str(Condition("label", "is", ["a", "b"])) == "label is a or b"
    assert str(Condition("note", "contains", "late")) == "note contains late"


@pytest.mark.parametrize("k", [1, 7, 49, 50, 90])
def test_the_lowest_scores_with_ties_by_row(k):
    scores = np.random.default_rng(1).integers(0, 9, 50).astype(float)
    assert lowest(scores, k).tolist() == sorted(np.argsort(scores, kind="stable")[:k].tolist())


PASTED = {
    "3, 1;2\n1": ([1, 2, 3], []),
    "2-4 9": ([2, 3, 4, 9], []),
    "2 – 4": ([2, 3, 4], []),
    "8-12": ([8, 9], ["10-12"]),
    "10": ([], ["10"]),
    "4-2 x -1 1.5": ([], ["4-2", "x", "-1", "1.5"]),
    "0-99999999999999": (list(range(10)), ["10-99999999999999"]),
    "": ([], []),
}


@pytest.mark.parametrize("given", PASTED)
def test_pasted_row_numbers(given):
    found = pasted(given, 10)
    assert (found.rows.tolist(), found.unknown) == PASTED[given]


def test_pasted_ids():
    found = pasted("b-2, a1 zz\nb-2", 3, {"a1": 2, "b-2": 0})
    assert (found.rows.tolist(), found.unknown) == ([0, 2], ["zz"])
