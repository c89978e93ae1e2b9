"""Writing a project.toml: from flags, by asking, and completing one; then it opens."""

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import puma_dash as puma
from puma_dash.cli import app
from puma_dash.core.loaders.project_folder import read_data
from puma_dash.core.loaders.starter import guesses, start, toml

from .folders import KINDS, arrays, linear, tables, write

PLAIN = st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(), PLAIN, max_size=3)
TABLE = st.dictionaries(
    st.text(min_size=1) | st.sampled_from(["columns", "labels"]), VALUES, min_size=1, max_size=4
)


@given(st.dictionaries(st.text(), VALUES | TABLE, max_size=4))
def test_toml_is_read_back(settings):
    try:
        repr(settings).encode()
    except UnicodeEncodeError:
        return  # no text file holds half a character
    kept = {key: value for key, value in settings.items() if value != {}}
    assert tomllib.loads(toml(kept)) == kept


def told(path):
    return tomllib.loads((path / "project.toml").read_text("utf-8"))


def init(path, *words, answers=None):
    return CliRunner().invoke(app, ["init", str(path), *words], input=answers)


def test_from_flags_to_a_project(tmp_path):
    tables(tmp_path)
    (tmp_path / "project.toml").unlink()
    words = [
        "--train",
        "train.csv",
        "--test",
        "test.csv",
        "--target",
        "bought",
        "--weights",
        "model.safetensors",
    ]
    done = init(tmp_path, *words, "--set", 'data.groups = ["region"]', "--set", 'data.id = "customer"')
    assert done.exit_code == 0, done.output
    assert "makes 7 inputs of 4 columns" in done.output
    assert "is it no, yes?" in done.output
    found = told(tmp_path)
    assert found["class_names"] == ["no", "yes"]
    assert list(found["data"]["columns"]) == ["amount", "colour", "region", "times"]
    assert found["data"]["columns"]["colour"] == {"values": ["green", "red"], "other": "column"}
    train = read_data(tmp_path).splits["train"].inputs.double()
    np.testing.assert_allclose(train[:, [0, -1]].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train[:, [0, -1]].std(0, correction=0), 1, atol=1e-6)
    linear(tmp_path, train.shape[1], 2)
    assert puma.load(tmp_path).name == tmp_path.name


def test_by_asking(tmp_path):
    arrays(tmp_path)
    (tmp_path / "project.toml").unlink()
    done = init(tmp_path, "--ask", answers="\nx.npy,y.npy\n\n\n\n\n")
    assert done.exit_code == 0, done.output
    assert told(tmp_path)["data"] == {"train": {"inputs": "x.npy", "targets": "y.npy"}, "test": "test.npz"}
    assert len(puma.load(tmp_path).test) == 30


def test_nothing_is_asked_where_nobody_answers(tmp_path):
    arrays(tmp_path)
    (tmp_path / "project.toml").unlink()
    assert isinstance(init(tmp_path).exception, puma.ProjectError)


def test_proposals(tmp_path):
    for name in ("net.pth", "X_train.npy", "val.csv", "my_test.csv", ".train"):
        (tmp_path / name).write_bytes(b"")
    assert guesses(tmp_path) == {
        "weights": "net.pth",
        "train": "X_train.npy",
        "validation": "val.csv",
        "test": "my_test.csv",
        "loss": "cross_entropy",
    }


def test_columns_are_added_and_the_rest_is_kept(tmp_path):
    """Comments too."""
    tables(tmp_path)
    text = "# mine\n" + (tmp_path / "project.toml").read_text().split("[data.columns]")[0]
    write(tmp_path, text)
    done = init(tmp_path)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "project.toml").read_text().startswith(text)
    assert list(told(tmp_path)["data"]["columns"]) == ["amount", "colour", "region"]
    linear(tmp_path, 6, 2)
    puma.load(tmp_path)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_project_that_is_complete_is_left_alone(tmp_path, kind):
    before = (kind(tmp_path) / "project.toml").read_text()
    assert init(tmp_path).exit_code == 0
    assert (tmp_path / "project.toml").read_text() == before


def test_class_names_from_numbers_that_do_not_start_at_0(tmp_path):
    """As German Credit has them: 1 and 2."""
    write(tmp_path, "x,y\n" + "1,1\n2,2\n3,1\n4,2\n" * 5, "train.csv")
    start(tmp_path, {"data": {"train": "train.csv", "target": "y"}, "model": {"weights": "m"}})
    assert told(tmp_path)["class_names"] == ["1", "2"]
    assert sorted(set(read_data(tmp_path).splits["train"].targets.tolist())) == [0, 1]


BAD = {
    "no folder": (lambda p: start(p / "absent", {"name": "x"}), "try making it"),
    "a project already": (lambda p: start(tables(p), {"name": "x"}), "has one; try editing it"),
    "nothing told": (lambda p: start(p, {}), "try --train FILE --weights FILE"),
    "no train": (lambda p: start(p, {"name": "x"}), "train in [data]"),
    "too many classes": (
        lambda p: (
            write(p, "x,y\n" + "".join(f"{k},v{k}\n" for k in range(2000)), "train.csv"),
            start(p, {"data": {"train": "train.csv", "target": "y"}}),
        ),
        "the target has 2,000 different values",
    ),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_written_is_said(tmp_path, call, words):
    with pytest.raises(puma.ProjectError) as caught:
        call(tmp_path)
    assert words in str(caught.value)


def test_a_line_that_is_no_toml(tmp_path):
    done = init(tmp_path, "--set", "data.groups = sex")
    assert "expected lines of project.toml" in str(done.exception)


def test_check_lists_everything_and_leaves_with_2(tmp_path):
    tables(tmp_path)
    text = (tmp_path / "project.toml").read_text()
    write(tmp_path, text.replace("model.safetensors", "absent").replace("std = 9.0", "std = -1"))
    done = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr.count("Error: ") == 2
    assert "absent" in done.stderr
    assert "std to be a number" in done.stderr


def test_check_of_a_folder_that_is_right(tmp_path):
    done = CliRunner().invoke(app, ["check", str(tables(tmp_path))])
    assert done.exit_code == 0, done.stderr
    assert '"name": "Shop"' in done.stdout
    assert "No validation rows were given" in done.stdout
