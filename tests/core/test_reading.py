"""Scores and lists of rows from files: what comes in is what was written, and bad files are told in words."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import puma_dash as puma
from puma_dash.core.reading import scores_in
from puma_dash.core.saved import Ids, ids_of

N = 12
NAMES = [f"c{k}" for k in range(N)]
IDS = Ids("customer_id", np.array(NAMES, dtype=object))
SCORES = np.random.default_rng(0).standard_normal(N)


def project(meta=None):
    x, y = torch.randn(N, 3, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 2
    rows = puma.Split(x, y)
    return puma.Project(
        name="p", model=torch.nn.Linear(3, 2), train=puma.Split(x, y, meta=meta), validation=rows, test=rows
    )


NAMED = pd.DataFrame({"age": range(N), "customer_id": NAMES})


def write(path, frame):
    """The table in a file of whatever kind its name says."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".json":
        frame.to_json(path, orient="records", double_precision=15)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


# --- there and back ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.csv", "v.parquet", "v.json"])
@pytest.mark.parametrize("meta", [None, NAMED], ids=["numbers", "ids"])
def test_scores_come_back(tmp_path, name, meta):
    mine = project(meta)
    valued = puma.value(mine, "loss")
    valued.save(tmp_path / name, mine)
    back = puma.read_scores(tmp_path / name, mine)
    np.testing.assert_allclose(back.scores, valued.scores, rtol=1e-15)
    assert back.harmful(4).tolist() == valued.harmful(4).tolist()
    assert back.fingerprint == valued.fingerprint


def test_the_table_says_row_id_and_psi(tmp_path):
    mine = project(NAMED)
    valued = puma.value(mine, criterion="brier")
    valued.save(tmp_path / "v.csv", mine)
    table = pd.read_csv(tmp_path / "v.csv")
    assert list(table) == ["row", "customer_id", "psi"]
    assert table["customer_id"].tolist() == NAMES
    valued.save(tmp_path / "v.json", mine)
    told = json.loads((tmp_path / "v.json").read_text())
    assert (told["criterion"], told["project"]) == ("brier", mine.fingerprint)
    assert told["rows"][3]["customer_id"] == "c3"
    assert told["rows"][3]["psi"] == valued.scores[3]
    puma.value(mine, "loss").save(tmp_path / "v.parquet")
    assert list(pd.read_parquet(tmp_path / "v.parquet")) == ["row", "score"]


def test_a_table_goes_to_a_file_of_a_known_kind(tmp_path):
    valued = puma.value(project(), "loss")
    with pytest.raises(puma.ProjectError, match=r"ends in \.csv, \.parquet, \.json"):
        valued.save(tmp_path / "v.xlsx")
    with pytest.raises(puma.ProjectError, match="expected a folder"):
        valued.save(tmp_path / "absent" / "v.csv")


# --- whose score is it -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s.csv", "s.tsv", "s.parquet", "s.json"])
@pytest.mark.parametrize("by", [["row"], ["customer_id"], ["id"], ["row", "customer_id"], ["row", "id"]])
@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(N)))
def test_lines_may_come_in_any_order(tmp_path_factory, name, by, order):
    known = {"row": order, "customer_id": [NAMES[k] for k in order], "id": [NAMES[k] for k in order]}
    frame = pd.DataFrame({**{key: known[key] for key in by}, "shapley": SCORES[order]})
    path = write(tmp_path_factory.mktemp("s") / name, frame)
    scores, column = scores_in(path, N, IDS)
    np.testing.assert_allclose(scores, SCORES, rtol=1e-14)
    assert column == "shapley"


@pytest.mark.parametrize("name", ["s.csv", "s.txt", "s.npy", "s.json"])
def test_a_bare_list_is_in_the_order_of_the_rows(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, SCORES)
    elif path.suffix == ".json":
        path.write_text(json.dumps(SCORES.tolist()))
    else:
        np.savetxt(path, SCORES)
    np.testing.assert_allclose(scores_in(path, N, None)[0], SCORES, rtol=1e-15)


def test_names_count_under_whatever_column_they_stand(tmp_path):
    """A file of the right length in another order must not be taken for one in the order of the rows."""
    frame = pd.DataFrame({"note": ["x"] * N, "who": NAMES[::-1], "score": SCORES})
    path = write(tmp_path / "s.csv", frame)
    np.testing.assert_allclose(scores_in(path, N, IDS)[0], SCORES[::-1])
    with pytest.raises(puma.ProjectError, match="rows have no names, but it names them by who; try without"):
        scores_in(path, N, None)
    assert puma.read_rows(path, project(NAMED)).rows.tolist() == list(range(N))


def test_whole_ids_are_the_same_in_whatever_type(tmp_path):
    ids = Ids("id", np.array([str(100 + k) for k in range(N)], dtype=object))
    for kind in (int, float, str):
        frame = pd.DataFrame({"id": np.arange(100, 100 + N)[::-1].astype(kind), "score": SCORES})
        scores, _ = scores_in(write(tmp_path / f"{kind.__name__}.parquet", frame), N, ids)
        assert scores.tolist() == SCORES[::-1].tolist()


def test_of_several_columns_one_is_named(tmp_path):
    path = write(tmp_path / "s.csv", pd.DataFrame({"row": range(N), "a": SCORES, "b": -SCORES}))
    mine = project()
    with pytest.raises(puma.ProjectError, match=r"one column of scores in s.csv, but it has 2 \(a, b\)"):
        puma.read_scores(path, mine)
    np.testing.assert_allclose(puma.read_scores(path, mine, "b").scores, -SCORES)
    np.testing.assert_allclose(puma.read_scores(path, mine, "a", negate=True).scores, -SCORES)
    both = write(tmp_path / "p.csv", pd.DataFrame({"loss": 3.0, "psi": SCORES}))
    np.testing.assert_allclose(puma.read_scores(both, mine).scores, SCORES)
    with pytest.raises(puma.ProjectError, match=r"expected a column 'c' in s.csv, but it has row, a, b"):
        puma.read_scores(path, mine, "c")


FINE = {"row": list(range(N)), "score": SCORES.tolist()}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            {"score": FINE["score"][:-1]},
            "expected 12 scores, one per training row, but s.csv has 11; try a c",
        ),
        ({"row": range(11), "score": SCORES[:11]}, "has none for rows 11"),
        (
            {"row": [0, *range(11)], "score": SCORES},
            "expected each training row once in s.csv, but rows 0 come",
        ),
        ({"row": range(1, 13), "score": SCORES}, "expected training rows 0 to 11 in s.csv, but got 12"),
        ({"row": range(-1, 11), "score": SCORES}, "expected training rows 0 to 11 in s.csv, but got -1"),
        ({"row": [*range(11), 11.5], "score": SCORES}, "expected whole row numbers in s.csv, but got 11.5"),
        ({"row": [*range(11), None], "score": SCORES}, "expected whole row numbers in s.csv, but got nan"),
        (
            {"row": [*range(11), "inf"], "score": SCORES},
            "expected training rows 0 to 11 in s.csv, but got inf",
        ),
        ({**FINE, "score": [*SCORES[:-1], None]}, "in s.csv rows 11 have none"),
        ({**FINE, "score": [*SCORES[:-1], "inf"]}, "in s.csv rows 11 have none"),
        ({**FINE, "score": [*SCORES[:-2], "high", "low"]}, "in s.csv rows 10, 11 have none"),
        ({**FINE, "score": ["2020-01-01"] * N}, "in s.csv rows 0, 1, 2"),
        ({"row": range(N)}, "expected one column of scores in s.csv, but it has none"),
        ({"customer_id": [*NAMES[:-1], "x"], "score": SCORES}, "of customer_id .* in s.csv there are x; try"),
        ({"customer_id": [*NAMES[:-1], "c0"], "score": SCORES}, "once in s.csv, but rows 0 come again"),
        ({**FINE, "customer_id": NAMES[::-1]}, "row and customer_id in s.csv to name the same training row"),
    ],
)
def test_scores_of_other_rows_are_refused(tmp_path, table, sentence):
    path = write(tmp_path / "s.csv", pd.DataFrame(table))
    with pytest.raises(puma.ProjectError, match=sentence):
        puma.read_scores(path, project(NAMED))


def test_dates_are_no_scores(tmp_path):
    frame = pd.DataFrame({"row": range(N), "when": pd.date_range("2020-01-01", periods=N)})
    with pytest.raises(puma.ProjectError, match="expected a finite number as the score"):
        puma.read_scores(write(tmp_path / "s.parquet", frame), project())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=N) | st.dictionaries(st.sampled_from(["row", "id", "psi"]), inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(held=JSON)
def test_whatever_a_json_file_holds_is_scores_or_one_sentence(tmp_path_factory, held):
    path = tmp_path_factory.mktemp("j") / "s.json"
    path.write_text(json.dumps(held))
    _scores_or_sentence(path)


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".csv", ".txt", ".json", ".parquet", ".npy"]))
def test_whatever_a_file_holds_is_scores_or_one_sentence(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("b") / f"s{suffix}"
    path.write_bytes(content)
    _scores_or_sentence(path)


def _scores_or_sentence(path):
    for ids in (None, IDS):
        try:
            scores, _ = scores_in(path, 3, ids)
        except puma.ProjectError as error:
            told = str(error)
        else:
            told = "expected " * (scores.shape == (3,) and bool(np.isfinite(scores).all()))
        assert told.startswith("expected ")


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.integers(-2, N + 1), max_size=N + 2),
    score=st.floats(allow_nan=True, allow_infinity=True),
)
def test_scores_are_taken_where_every_row_has_one_finite_score(tmp_path_factory, rows, score):
    """The rule, said another way."""
    path = tmp_path_factory.mktemp("r") / "s.parquet"
    values = np.arange(len(rows), dtype=float)
    values[-1:] = score
    pd.DataFrame({"row": np.array(rows, np.int64), "score": values}).to_parquet(path)
    if sorted(rows) == list(range(N)) and np.isfinite(values).all():
        scores, _ = scores_in(path, N, None)
        assert scores[rows].tolist() == values.tolist()
    else:
        with pytest.raises(puma.ProjectError, match=r"^expected "):
            scores_in(path, N, None)


# --- rows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", "row\n7\n3\n"),
        ("r.csv", "customer_id,age\nc7,1\nc3,2\n"),
        ("r.csv", "7\n3\n"),
        ("r.txt", "7\n3\n"),
        ("r.txt", "row\n7\n3\n"),
        ("r.txt", "c7\nc3\n"),
        ("r.txt", "id\nc7\nc3\n"),
        ("r.json", "[7, 3]"),
        ("r.json", '["c7", "c3"]'),
        ("r.json", '[{"row": 7, "psi": -1}, {"row": 3, "psi": -2}]'),
        ("r.json", '{"criterion": "brier", "rows": [{"row": 7}, {"row": 3}]}'),
        ("r.json", '{"row": [7, 3]}'),
    ],
)
def test_rows_are_named_by_number_or_id(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert puma.read_rows(tmp_path / name, project(NAMED)).rows.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "r.csv",
            "age,sex\n3,f\n7,f\n",
            "expected a column row or customer_id in r.csv, but it has age, sex",
        ),
        ("r.csv", "row\n3\n12\n", "expected training rows 0 to 11"),
        ("r.csv", "row\n3\n3\n", "once in r.csv, but rows 3 come again"),
        ("r.txt", "c3\nc99\n", "there are c99"),
        ("r.json", "[]", "expected rows in r.json"),
        ("r.txt", "", "expected rows in r.txt"),
        ("r.xlsx", "", r"ends in \.csv"),
    ],
)
def test_rows_that_are_not_there_are_told(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(puma.ProjectError, match=sentence):
        puma.read_rows(tmp_path / name, project(NAMED))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(puma.ProjectError, match=r"expected a file at .*absent.csv, but there is none"):
        puma.read_rows(tmp_path / "absent.csv", project())


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        (NAMED, "customer_id"),
        (pd.DataFrame({"UUID": NAMES}), "UUID"),
        (pd.DataFrame({"customer_id": ["a"] * N}), None),
        (pd.DataFrame({"customer_id": [*NAMES[:-1], None]}), None),
        (pd.DataFrame({"name": NAMES}), None),
        (None, None),
    ],
)
def test_what_names_the_rows(meta, name):
    found = ids_of(project(meta).train)
    assert (found and found.name) == name


# --- patches ----------------------------------------------------------------------------


def test_a_patch_comes_back(tmp_path):
    mine = project()
    plan = puma.PatchPlan(
        remove=(1,),
        upweight={4: 0.5},
        relabel={7: 0},
        hold=("brier", puma.CrossEntropy(of_class=1)),
        tolerance={"brier": 0.5, "cross_entropy of class 1": 0.5},
        method=puma.Puma(sparsity=0.2),
        steps=2,
    )
    made = puma.patch(mine, plan)
    made.save(tmp_path / "p.safetensors")
    back = puma.read_patch(tmp_path / "p.safetensors", mine)
    assert back.plan == made.plan
    assert back.weights.tolist() == made.weights.tolist()
    assert (back.strength, back.predicted, back.measured) == (made.strength, made.predicted, made.measured)
    torch.testing.assert_close(back.delta, made.delta, rtol=1e-6, atol=1e-7)
    x = mine.validation.inputs
    assert torch.equal(back.model(x), made.model(x))
    for table in ("metrics", "verdicts", "marked"):
        one, other = (getattr(puma.compare(mine, patch), table) for patch in (made, back))
        pd.testing.assert_frame_equal(one, other)
    assert puma.apply(mine, back).fingerprint == puma.apply(mine, made).fingerprint


def test_a_patch_of_something_else_is_refused(tmp_path):
    mine, other = project(), project(NAMED)
    puma.patch(mine, puma.PatchPlan(remove=(1,))).save(tmp_path / "p.safetensors")
    with pytest.raises(puma.ProjectError, match="was made for another"):
        puma.read_patch(tmp_path / "p.safetensors", other)
    from safetensors.torch import save_file

    save_file(dict(mine.model.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(puma.ProjectError, match="it holds weights only"):
        puma.read_patch(tmp_path / "w.safetensors", mine)
    (tmp_path / "b.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(puma.ProjectError, match="cannot be read"):
        puma.read_patch(tmp_path / "b.safetensors", mine)
    with pytest.raises(puma.ProjectError, match="there is no file of that name"):
        puma.read_patch(tmp_path / "absent.safetensors", mine)
