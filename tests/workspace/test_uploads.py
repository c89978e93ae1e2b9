"""Uploads: received, unpacked, explained, described, deleted; and nothing in one is ever run."""

import io
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import puma_dash as puma
from puma_dash.core.loaders.unpack import Limits
from puma_dash.workspace import opening, places, uploads
from puma_dash.workspace.index import Index
from puma_dash.workspace.ledger import Ledger
from puma_dash.workspace.store import Store
from tests.core.loaders.folders import KINDS, arrays, edit, tables
from tests.core.loaders.makers import exported

ROOT = Path(__file__).parents[2]
PACKED = Limits().packed


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where uploads are kept."""
    monkeypatch.setenv("PUMA_DASH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(places.ROOT, raising=False)
    return tmp_path / "home"


@pytest.fixture
def shop(tmp_path):
    """A project folder."""
    (tmp_path / "shop").mkdir()
    return tables(tmp_path / "shop")


def archive(folder, inner=""):
    """The folder as a zip file; the same bytes for the same content."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = zipfile.ZipInfo(inner + str(path.relative_to(folder)))
                packed.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return made.getvalue()


def sent(content, name="shop.zip"):
    return uploads.receive(io.BytesIO(content), name)


def run(task, **params):
    return task(params, lambda *_: None, None)


def uploaded(content, name="shop.zip", packed=PACKED):
    """What is known of an archive once the worker has looked at it."""
    upload = sent(content, name)
    run(opening.unpack, upload=upload.id, packed=packed)
    return uploads.load(upload.id)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("inner", ["", "my shop/"])
def test_a_project_folder_becomes_a_project(home, tmp_path, kind, inner):
    (tmp_path / "in").mkdir()
    folder = kind(tmp_path / "in")
    upload = uploaded(archive(folder, inner))
    assert (upload.ready, upload.problems, upload.choices) == (True, (), {})
    assert upload.path == upload.files / inner
    assert not upload.archive.exists()
    assert opening.of_files(upload.source).fingerprint == puma.load(folder).fingerprint
    assert places.place(upload.source) == (upload.path, upload.files, False)
    assert places.title(upload.source) == "shop.zip"
    assert [path.name for path in (home / "uploads").iterdir()] == [upload.id]


def test_the_same_archive_is_the_same_project(home, shop):
    content = archive(shop)
    first = uploaded(content)
    assert uploaded(content, "again.zip") == first
    assert uploads.uploads() == [first]
    edit(shop, "0.01", "0.02")
    other = uploaded(archive(shop))
    assert other.source != first.source
    assert [each.id for each in uploads.uploads()] == [other.id, first.id]


def test_problems_are_listed_each_with_its_fix(home, shop):
    (shop / "model.safetensors").unlink()
    edit(shop, "test.csv", "tests.csv")
    upload = uploaded(archive(shop))
    assert not upload.ready
    assert places.place(upload.source) is None
    assert len(upload.problems) == 2
    assert "expected a file 'model.safetensors'" in upload.problems[0]
    assert "try 'test.csv'" in upload.problems[1]
    with pytest.raises(puma.ProjectError, match="is on this server"):
        opening.of_files(upload.source)


def test_what_is_no_archive_is_refused_and_not_kept(home, tmp_path):
    upload = uploaded(b"hello")
    assert "expected a zip archive" in upload.problems[0]
    assert [path.name for path in upload.home.iterdir()] == ["upload.json"]


def test_the_limit_is_that_of_the_server(home, shop):
    assert "an upload of at most" in uploaded(archive(shop), packed=100).problems[0]
    assert uploaded(archive(shop)).ready  # sent again, under a larger limit


def test_one_number_limits_the_browser_the_page_and_the_archive():
    told = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text("utf-8"))
    assert told["server"]["maxUploadSize"] * 2**20 == Limits().packed


def test_what_a_stopped_worker_left_is_unpacked_again(home, shop):
    upload = sent(archive(shop))
    upload.files.mkdir()
    (upload.files / "half").write_text("")
    run(opening.unpack, upload=upload.id, packed=PACKED)
    assert uploads.load(upload.id).ready
    assert not (upload.files / "half").exists()


@pytest.mark.parametrize("told", ["", "{", "[]", '{"id": "x"}', '{"problems": 3}'])
def test_a_damaged_record_is_no_upload(home, shop, told):
    upload = uploaded(archive(shop))
    (upload.home / "upload.json").write_text(told)
    assert uploads.uploads() == []
    assert places.place(upload.source) is None


@pytest.mark.parametrize("name", ["", "..", "../x", "A" * 32, "0" * 31, "0" * 33, "0" * 32])
def test_an_id_that_is_none(home, name):
    assert uploads.load(name) is None
    with pytest.raises(puma.ProjectError, match="deleted"):
        opening.of_files(f"upload:{name}")


def test_deleting_keeps_the_ledger_and_the_same_archive_goes_on(home, shop):
    from puma_dash.workspace import tasks

    upload = uploaded(archive(shop))
    run(tasks.prepare, source=upload.source, version=None)
    index, store = Index.of(home, upload.source, None), Store(home / "cache")
    ledger = Ledger(home)
    ledger.append("test opened", source=upload.source, parent=None)
    assert store.load(index.overview) is not None
    uploads.delete(upload, [None])
    assert not upload.home.exists()
    assert store.load(index.overview) is None
    assert Index.of(home, upload.source, None).overview == ""
    assert places.place(upload.source) is None
    with pytest.raises(puma.ProjectError, match="the same archive is the same project"):
        run(tasks.prepare, source=upload.source, version=None)
    assert ledger.openings(upload.source) == 1
    assert uploaded(archive(shop)).source == upload.source
    run(tasks.prepare, source=upload.source, version=None)
    assert Index.of(home, upload.source, None).fingerprint == index.fingerprint


# --- an archive without project.toml --------------------------------------------------------


@pytest.fixture
def bare(shop):
    (shop / "project.toml").unlink()
    for name in ("train.csv", "test.csv"):
        lines = (shop / name).read_text().splitlines()
        (shop / name).write_text(
            "\n".join(",".join(line.split(",")[1:4:2] + line.split(",")[5:]) for line in lines)
        )
    return shop


def test_what_is_missing_is_said_and_guessed(home, bare):
    upload = uploaded(archive(bare))
    assert "expected a project.toml" in upload.problems[0]
    assert "model.safetensors, test.csv, train.csv" in upload.problems[0]
    choices = upload.choices
    assert choices["weights"] == ["model.safetensors"]
    assert choices["data"] == ["test.csv", "train.csv"]
    assert choices["columns"] == ["amount", "region", "bought"]
    guesses = {"train": "train.csv", "test": "test.csv", "target": "bought", "loss": "cross_entropy"}
    assert choices["guesses"] == {**guesses, "weights": "model.safetensors"}


def test_the_column_called_like_a_label_is_guessed(home, bare):
    edit(bare, "amount", "Class", "train.csv")
    assert uploaded(archive(bare)).choices["guesses"]["target"] == "Class"


def test_an_archive_that_is_described_opens(home, bare):
    from tests.core.loaders.folders import linear

    linear(bare, 3, 2)
    upload = uploaded(archive(bare), "my shop.zip")
    answers = {**upload.choices["guesses"], "validation": "", "loss": "squared_error"}
    run(opening.describe, upload=upload.id, answers=answers)
    assert "no" in uploads.load(upload.id).problems[0]  # texts are no values to predict
    run(opening.describe, upload=upload.id, answers=upload.choices["guesses"])
    done = uploads.load(upload.id)
    assert done.problems == ()
    assert "is it no, yes?" in " ".join(done.remarks)
    project = opening.of_files(done.source)
    assert (project.name, project.class_names) == ("my shop", ("no", "yes"))


@pytest.mark.parametrize(
    "answers", [{"train": "../../x.csv"}, {"weights": "/etc/passwd"}, {"loss": "x"}, {"set": "a"}]
)
def test_only_what_was_offered_can_be_answered(home, bare, answers):
    upload = uploaded(archive(bare))
    with pytest.raises(puma.ProjectError, match="one of the choices"):
        run(opening.describe, upload=upload.id, answers={**upload.choices["guesses"], **answers})
    assert not (upload.path / "project.toml").exists()


def test_arrays_without_project_toml_come_with_the_command_only(home, tmp_path):
    (tmp_path / "in").mkdir()
    arrays(tmp_path / "in")
    for name in ("project.toml", "test.npz", "rows.csv"):
        (tmp_path / "in" / name).unlink()
    upload = uploaded(archive(tmp_path / "in"))
    assert upload.choices == {}
    assert "try puma-dash init FOLDER" in upload.problems[0]


# --- nothing is ever run --------------------------------------------------------------------


class Runs:
    """Would leave a trace if anybody unpickled it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def factory(folder, mark):
    edit(folder, "[model]", f'[model]\nfactory = "os:mkdir"\npath = "{mark}"')


def pickled(name):
    def make(folder, mark):
        torch.save({"0.weight": Runs(mark)}, folder / name)
        edit(folder, "model.safetensors", name)

    return make


def pickled_program(folder, mark):
    """A program whose weights are said to be a pickle."""
    exported(torch.nn.Linear(6, 2), torch.zeros(3, 6), folder / "model.pt2")
    with zipfile.ZipFile(folder / "model.pt2") as old:
        records = {record: old.read(record) for record in old.namelist()}
    evil = io.BytesIO()
    torch.save(Runs(mark), evil)
    with zipfile.ZipFile(folder / "model.pt2", "w") as new:
        for record, content in records.items():
            if record.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            new.writestr(record, evil.getvalue() if "data/weights/weight_" in record else content)
    edit(folder, "model.safetensors", "model.pt2")


def foreign_call(folder, mark):
    """A program that calls a function of Python's."""
    exported(torch.nn.Linear(6, 2), torch.zeros(3, 6), folder / "model.pt2")
    with zipfile.ZipFile(folder / "model.pt2") as old:
        records = {record: old.read(record) for record in old.namelist()}
    with zipfile.ZipFile(folder / "model.pt2", "w") as new:
        for record, content in records.items():
            new.writestr(record, content.replace(b"torch.ops.aten.linear.default", b"os.mkdir"))
    edit(folder, "model.safetensors", "model.pt2")


def estimator(folder, mark):
    pipe = make_pipeline(FunctionTransformer(os.mkdir), LogisticRegression())
    skops.io.dump(pipe, folder / "model.skops")
    edit(folder, "model.safetensors", "model.skops")


def objects(name, save):
    def make(folder, mark):
        save(folder / name, np.array([Runs(mark)], dtype=object))
        edit(folder, 'train = "train.csv"', f'train = "{name}"')

    return make


def outside(folder, mark):
    edit(folder, "model.safetensors", "../../../../model.safetensors")


EVIL = {
    "a factory": (factory, "expected a model without code"),
    "a pickle .pt": (pickled("model.pt"), "mkdir"),
    "a pickle .pth": (pickled("model.pth"), "mkdir"),
    "a pickle called .safetensors": (pickled("m.safetensors"), "safetensors file, but it cannot be read"),
    "a pickle .pkl": (pickled("model.pkl"), "no pickles"),
    "a pickle .joblib": (pickled("model.joblib"), "no pickles"),
    "a pickle called .pt2": (pickled("model.pt2"), "expected"),
    "a pickle called .skops": (pickled("model.skops"), "expected an estimator of skops"),
    "a program with a pickle": (pickled_program, "expected"),
    "a program that calls anything": (foreign_call, "os.mkdir"),
    "a function of skops": (estimator, "posix.mkdir"),
    "objects in .npy": (objects("x.npy", np.save), "Python objects"),
    "objects in .npz": (objects("x.npz", lambda file, array: np.savez(file, inputs=array)), "Python objects"),
    "a file elsewhere": (outside, "leads out of it"),
}


@pytest.mark.parametrize("trusted", ["", "os,posix,builtins"])
@pytest.mark.parametrize(("make", "words"), EVIL.values(), ids=EVIL)
def test_nothing_in_an_upload_is_run(home, shop, tmp_path, monkeypatch, make, words, trusted):
    """Not even what the owner trusts for folders on the server."""
    mark = tmp_path / "ran"
    make(shop, str(mark))
    monkeypatch.setenv("PUMA_DASH_FACTORIES", trusted)
    monkeypatch.setenv(places.ROOT, str(tmp_path))  # home lies below it
    upload = uploaded(archive(shop))
    assert words in " ".join(upload.problems)
    assert not upload.ready
    assert places.place(upload.source) is None
    assert places.place(str(upload.path)) is None
    assert not mark.exists()


def test_a_factory_written_later_is_not_run_either(home, shop, tmp_path, monkeypatch):
    upload = uploaded(archive(shop))
    factory(upload.path, str(tmp_path / "ran"))
    monkeypatch.setenv("PUMA_DASH_FACTORIES", "os")
    with pytest.raises(puma.ProjectError, match="a model without code"):
        opening.of_files(upload.source)
    assert not (tmp_path / "ran").exists()


MODULES = (
    "torch.py",
    "numpy/__init__.py",
    "sitecustomize.py",
    "usercustomize.py",
    "puma_dash/__init__.py",
    "conftest.py",
)
WORKER = """
import json, sys
from pathlib import Path
from puma_dash.workspace.jobs import Jobs
from puma_dash.workspace.store import home

jobs = Jobs(home() / "jobs")
for task, params in json.loads(sys.argv[1]):
    job = jobs.submit(task, params)
    while jobs.state(job).live:
        pass
    print(jobs.state(job).status)
jobs.close()
"""


def test_modules_in_an_upload_stand_for_no_library(home, shop, tmp_path):
    """In a worker of its own, as the server starts it."""
    for name in MODULES:
        (shop / name).parent.mkdir(exist_ok=True)
        (shop / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    upload = sent(archive(shop))
    steps = [
        ("unpack", {"upload": upload.id, "packed": PACKED}),
        ("prepare", {"source": upload.source, "version": None}),
    ]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, json.dumps(steps)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["done", "done"]
    assert uploads.load(upload.id).ready
    assert (upload.path / "torch.py").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", [("check", "."), ("patch", ".", "--top", "1")])
def test_modules_beside_a_project_stand_for_no_library(home, shop, tmp_path, words):
    """On the command line, standing in the project folder."""
    for name in MODULES:
        (shop / name).parent.mkdir(exist_ok=True)
        (shop / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    script = "import sys; from puma_dash.cli import main; sys.argv = ['puma-dash', *sys.argv[1:]]; main()"
    command = [sys.executable, "-P", "-c", script, *words]
    done = subprocess.run(
        command,
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
