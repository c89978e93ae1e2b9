"""Encodings of columns: against scikit-learn and pandas, and the same wherever a row comes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import puma_dash as puma
from puma_dash.core.loaders import Categorical, Folder, Numeric, Tables
from puma_dash.core.loaders.encoding import MOST_VALUES, column_of, encode, fitted
from puma_dash.core.loaders.tables import read_table

from .folders import tables

WORDS = st.sampled_from(["a", "b", "c", "ü", "a b", "1", "1.0", "nan", "None", "NA", "'", '"'])
FRAMES = st.integers(2, 20).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "text": st.lists(WORDS, min_size=n, max_size=n),
            "whole": st.lists(st.integers(-(10**6), 10**6), min_size=n, max_size=n),
            "real": st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=n, max_size=n),
        }
    )
)


@settings(max_examples=60, deadline=None)
@given(FRAMES)
def test_fitted_columns_are_those_of_scikit_learn(columns):
    frame = pd.DataFrame(columns)
    kinds, left_out = fitted(frame)
    assert left_out == []
    parts = {
        "text": OneHotEncoder(sparse_output=False).fit_transform(frame[["text"]]),
        "whole": StandardScaler().fit_transform(frame[["whole"]]),
        "real": StandardScaler().fit_transform(frame[["real"]]),
    }
    expected = np.hstack([parts[name] for name in columns])
    np.testing.assert_allclose(encode(frame, kinds, "x.csv"), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.randoms())
def test_a_row_is_encoded_alike_wherever_it_stands(columns, random):
    """Alone, in another order, or beside other rows: what is stored decides, not the file."""
    frame = pd.DataFrame(columns)
    kinds, _ = fitted(frame)
    whole = encode(frame, kinds, "x.csv")
    order = list(range(len(frame)))
    random.shuffle(order)
    np.testing.assert_array_equal(encode(frame.iloc[order], kinds, "x.csv"), whole[order])
    np.testing.assert_array_equal(encode(frame.iloc[:1], kinds, "x.csv"), whole[:1])


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.sampled_from([",", ";", "\t", "|"]))
def test_a_table_written_is_read_back(tmp_path_factory, columns, separator):
    """Through a text file and through Parquet, with the words that pandas would take for missing."""
    path, frame = tmp_path_factory.mktemp("tables"), pd.DataFrame(columns)
    kinds, _ = fitted(frame)
    frame.to_csv(path / "x.csv.gz", index=False, sep=separator)
    frame.to_parquet(path / "x.parquet")
    expected = encode(frame, kinds, "x")
    for name in ("x.csv.gz", "x.parquet"):
        loader = Tables(target="whole", columns=tuple(kinds.items()), separator=separator)
        found = read_table(path / name, loader)
        np.testing.assert_array_equal(encode(found, kinds, name), expected)


def test_a_base_has_no_place_as_in_get_dummies():
    column = pd.Series(["red", "green", "blue", "green"])
    kind = Categorical(("blue", "green", "red"), base="blue")
    expected = pd.get_dummies(column, drop_first=True).to_numpy(float)
    np.testing.assert_array_equal(kind(column, "x"), expected)


@pytest.mark.parametrize(
    ("other", "expected"),
    [("column", [[1, 0, 0], [0, 0, 1], [0, 0, 1]]), ("zeros", [[1, 0], [0, 0], [0, 0]])],
)
def test_others_and_missing_ones(other, expected):
    column = pd.Series(["a", "z", None])
    np.testing.assert_array_equal(Categorical(("a", "b"), None, other)(column, "x"), expected)


def test_whole_numbers_are_categories_too():
    """As text in a CSV file and as numbers with gaps in Parquet."""
    kind = column_of({"values": [1, 2]}, "x")
    expected = [[1, 0], [0, 1]]
    np.testing.assert_array_equal(kind(pd.Series(["1", "2"]), "x"), expected)
    np.testing.assert_array_equal(kind(pd.Series([1, 2], dtype="Int64"), "x"), expected)


def test_missing_numbers_stand_for_what_is_stored():
    column = pd.Series([1.0, None, 5.0])
    np.testing.assert_allclose(Numeric(mean=1, std=2, missing=3)(column, "x").ravel(), [0, 1, 2])
    kinds, _ = fitted(column.to_frame("x"))
    assert kinds == {"x": Numeric(mean=3.0, std=2.0, missing=3.0)}


def test_missing_texts_get_a_place_of_their_own():
    kinds, _ = fitted(pd.DataFrame({"x": ["b", None, "a"]}))
    assert kinds == {"x": Categorical(("a", "b"), None, "column")}


def test_a_constant_is_left_alone():
    kinds, _ = fitted(pd.DataFrame({"x": [0.1] * 7}))
    assert kinds["x"].std == 1.0


def test_prose_is_left_out():
    frame = pd.DataFrame({"x": [f"word {k}" for k in range(MOST_VALUES + 1)], "y": 1.0})
    assert fitted(frame)[1] == ["x"]


def test_texts_that_stand_for_nothing(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,y\n?,NA,1\n2, u ,0\n")
    kinds = {"a": {"missing": 7.0}, "b": {"values": ["NA", "u"]}}
    rows = Tables(target="y", columns=kinds, missing=["?"])({"inputs": "x.csv"}, Folder(tmp_path))
    np.testing.assert_array_equal(rows.inputs, [[7, 1, 0], [2, 0, 1]])


def test_a_table_without_a_header(tmp_path):
    """As the UCI archive has them: names apart, blanks after commas, comments."""
    (tmp_path / "x.data").write_text("|a comment\n1, u, 0\n2, v, 1\n\n")
    loader = Tables(target="y", columns=["a"], header=["a", "b", "y"], comment="|", meta=["b"], separator=",")
    rows = loader({"inputs": "x.data"}, Folder(tmp_path))
    np.testing.assert_array_equal(rows.inputs, [[1], [2]])
    assert rows.meta.b.tolist() == ["u", "v"]
    assert rows.targets.tolist() == ["0", "1"]


def test_a_column_called_id_names_the_rows(tmp_path):
    (tmp_path / "x.csv").write_text("id,a,y\n70,1,0\n80,2,1\n")
    rows = Tables(target="y", columns=["a"])({"inputs": "x.csv"}, Folder(tmp_path))
    assert rows.meta.id.tolist() == [70, 80]


def test_odd_columns_of_parquet_are_kept_as_texts(tmp_path):
    """Lists, decimals, bytes: nothing that hashing or counting would trip over."""
    from decimal import Decimal

    frame = pd.DataFrame({"y": [0, 1], "a": [1.5, 2.5], "l": [[1], [2, 3]], "d": [Decimal("1.5"), None]})
    frame.to_parquet(tmp_path / "x.parquet")
    rows = Tables(target="y", columns=["a"])({"inputs": "x.parquet"}, Folder(tmp_path))
    assert rows.meta.l.tolist() == ["[1]", "[2 3]"]
    assert rows.meta.d[0] == "1.5"


def test_the_same_folder_gives_the_same_project(tmp_path):
    """Whatever rows the file has besides: the encoding is stored."""
    before = puma.load(tables(tmp_path))
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(lines[:30]) + "\n")
    after = puma.load(tmp_path)
    np.testing.assert_array_equal(before.train.inputs[:29], after.train.inputs)
    assert before.fingerprint != after.fingerprint
