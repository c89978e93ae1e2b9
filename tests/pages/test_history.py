"""The History page: empty, one entry, many, a broken chain, weights that are not those accepted."""

import io
import json
import shutil
import sqlite3
import subprocess
import zipfile
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from puma_dash.ui import history, state
from puma_dash.ui.patching import keep_plan, plan_of_draft
from puma_dash.workspace import projects, tasks, weights
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.index import Index
from puma_dash.workspace.ledger import Ledger, digest
from tests.pages.conftest import button, texts

PAGE, COMPARE = "pages/5_History.py", "pages/4_Compare.py"


def quiet(*_):
    pass


def own_home(folder, patch):
    """Makes ``folder`` the home, which reads the shared cache; of the versions of others it knows none."""
    shared = tasks.home()
    patch.setenv("PUMA_DASH_HOME", str(folder))
    (folder / "cache").symlink_to(shared / "cache")
    (folder / "projects").mkdir()
    shutil.copy(Index.of(shared, "radial", None).path, folder / "projects")
    projects.close()


@pytest.fixture
def home(prepared, tmp_path, monkeypatch):
    """A home of its own for each test."""
    own_home(tmp_path, monkeypatch)
    yield tmp_path
    projects.close()


@pytest.fixture
def ledger(home):
    """The ledger of that home."""
    return Ledger(home)


def patched(remove, version=None, **settings):
    """The key of a patch of the radial demo, computed as the worker would."""
    plan = keep_plan(plan_of_draft(Draft(remove=tuple(remove)), **settings))
    params = {"source": "radial", "version": version, "plan": plan, "device": "cpu", "seed": 0}
    return tasks.patch(params, quiet, None)["patch"]


def accept(remove, version=None, why="", **settings):
    """The entry of a new version."""
    name = patched(remove, version, **settings)
    params = {"source": "radial", "version": version, "patch": name, "why": why}
    return tasks.accept(params, quiet, None)["version"]


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory):
    """A folder with three versions and a discarded patch, and the entries of the versions."""
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        own_home(folder, patch)
        loose = {"tolerance": {"cross_entropy": 9.0}}
        first = accept(range(0, 30), why="first *try*", **loose)
        second = accept(range(40, 60), first, why="more", **loose)
        third = accept(range(60, 90), why="another way", hold=["brier"], tolerance={"brier": 9.0})
        name = patched(range(100, 110), first, **loose)
        about = {
            "source": "radial",
            "parent": first,
            "patch": name,
            "details": projects.store().load(name).info,
        }
        Ledger(folder).append("discarded", why="no", **about)
    projects.close()
    return folder, (first, second, third)


@pytest.fixture
def many(made, home):
    """The entries of the three versions, in a copy of that folder."""
    folder, entries = made
    shutil.copy(folder / "ledger.db", home)
    shutil.copytree(folder / "versions", home / "versions")
    return entries


def chosen(at):
    """The field that says which entry is shown in full."""
    return next(field for field in at.selectbox if field.label == "Entry")


def test_without_a_project_it_offers_the_demo(open_page):
    at = open_page(PAGE)
    assert not at.exception
    assert button(at, "Try digits")


def test_without_entries_it_says_how_they_come_about(open_page, home):
    at = open_page(PAGE, project="radial")
    assert not at.exception
    assert "0 entries, chain intact." in texts(at)
    assert "Nothing was decided on this project yet" in texts(at)
    assert len(at.get("plotly_chart")) == 0


def test_entries_of_other_projects_are_not_shown_but_chained(open_page, ledger):
    ledger.append("test opened", source="digits", parent=None, why="elsewhere")
    at = open_page(PAGE, project="radial")
    assert "1 entry, chain intact." in texts(at)
    assert "Nothing was decided on this project yet" in texts(at)


def test_one_version(open_page, ledger):
    accept(range(10), why="they are *wrong*", tolerance={"cross_entropy": 9.0})
    at = open_page(PAGE, project="radial")
    assert not at.exception, at.exception
    table = at.dataframe[0].value
    assert table["what"].tolist() == ["Accepted as version 1", "Test opened"]
    assert table["why"].tolist()[0] == "they are *wrong*"
    assert table["rows"].tolist()[0] == "10 removed"
    assert "→" in table["on test"].tolist()[0]
    assert len(at.get("plotly_chart")) == 2
    assert "of 1,200 test rows" in texts(at)
    assert at.code[0].value.startswith("puma-dash replay 2 --home ")
    assert "they are \\*wrong\\*" in texts(at)


def test_many_versions_are_a_tree_and_can_be_opened(open_page, many):
    first, second, third = many
    at = open_page(PAGE, project="radial", version=str(first))
    assert not at.exception, at.exception
    choice = at.selectbox(key="chosen version")
    assert choice.options == ["Version 3 (current)", "Version 2", "Version 1", "Original"]
    assert choice.value == third
    assert button(at, "Roll back to it").disabled
    assert len(at.get("plotly_chart")) == 3  # the tree, cross-entropy, Brier
    assert "version 1" in texts(at)
    what = at.dataframe[0].value["what"].tolist()
    assert what[0] == "Discarded a patch of version 1"
    assert [w for w in what if w.startswith("Accepted")] == [f"Accepted as version {k}" for k in (3, 2, 1)]
    choice.set_value(second).run()
    button(at, "Open this version").click().run()
    assert at.query_params["version"] == str(second)


def test_a_roll_back_asks_why_and_is_a_new_entry(open_page, many):
    first, _, third = many
    at = open_page(PAGE, project="radial")
    at.selectbox(key="chosen version").set_value(first).run()
    button(at, "Roll back to it").click().run()
    before = len(state.ledger().entries("radial"))
    button(at, "Roll back to version 1").click().run()
    assert "Say why in a few words" in texts(at)
    assert len(state.ledger().entries("radial")) == before
    at.text_input[0].set_value("worse at the other site")
    button(at, "Roll back to version 1").click().run()
    assert not at.exception
    entry = state.ledger().entries("radial")[-1]
    assert (entry.kind, entry.parent, entry.target) == ("rolled back", third, first)
    assert entry.why == "worse at the other site"
    assert state.ledger().versions("radial").current == first
    assert at.dataframe[0].value["what"].tolist()[0] == "Rolled back to version 1"
    chosen(at).set_value(entry.id).run()
    assert "worse at the other site" in texts(at)


def test_a_broken_chain_is_said_first(open_page, many, home):
    with sqlite3.connect(home / "ledger.db") as connection:
        connection.execute("DROP TRIGGER entries_no_update")
        connection.execute("UPDATE entries SET why = 'nicer' WHERE id = 2")
    connection.close()
    at = open_page(PAGE, project="radial")
    assert not at.exception
    assert "The chain is broken at entry 2" in at.error[0].value
    assert "chain intact" not in texts(at)


def test_weights_that_changed_are_said_and_not_exported(open_page, many, home, ledger):
    file = weights.file(home, ledger.entry(many[2]).details["kept"]["model"])
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    at = open_page(PAGE, project="radial", draft="f" * 16)
    chosen(at).set_value(many[2]).run()
    assert "its content has changed" in texts(at)
    chosen(at).set_value(many[0]).run()
    assert "its content has changed" not in texts(at)
    assert chosen(open_page(PAGE, project="radial", draft="f" * 16)).value == many[0]


def test_a_ledger_of_an_older_version_is_a_sentence_on_every_page(open_page, home):
    with sqlite3.connect(home / "ledger.db") as connection:
        connection.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, created DATETIME)")
    connection.close()
    for page in ("app.py", PAGE):
        at = open_page(page, project="radial")
        assert not at.exception
        assert "an older one wrote it" in at.error[0].value


def test_the_reason_reaches_the_ledger_from_compare(open_page, home, jobs, ledger):
    from tests.pages.test_pages import DRAFT, keep

    name = patched(range(5), tolerance={"cross_entropy": 9.0})
    keep(patch=name)
    at = open_page(COMPARE, project="radial", draft=DRAFT)
    at.text_input(key=f"why-{name[:8]}").set_value("looked at one by one").run()
    button(at, "Discard").click().run()
    entry = ledger.entries("radial")[-1]
    assert (entry.kind, entry.why) == ("discarded", "looked at one by one")
    assert entry.details["plan"]["remove"] == list(range(5))
    at.text_input(key=f"why-{name[:8]}").set_value("after all").run()
    button(at, "Accept").click().run()
    assert jobs.submitted[-1][0] == "accept"
    assert jobs.submitted[-1][1]["why"] == "after all"


def test_the_bundle_holds_all_and_can_be_checked(many, home, ledger, tmp_path_factory):
    import torch
    from safetensors.torch import load

    entry = ledger.entry(many[1])
    folder = tmp_path_factory.mktemp("bundle")
    with zipfile.ZipFile(io.BytesIO(history.entry_bundle(entry, ledger))) as archive:
        archive.extractall(folder)
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=True)
    assert done.stdout.count(b": OK") == 8
    said = json.loads((folder / "entry.json").read_text())
    assert (
        digest({name: value for name, value in said.items() if name != "hash"}) == said["hash"] == entry.hash
    )
    model = (folder / "model.safetensors").read_bytes()
    assert sha256(model).hexdigest() == said["details"]["kept"]["model"]
    project = projects.open_project("radial", many[1])
    project.model.load_state_dict(load(model))
    rows = load((folder / "rows.safetensors").read_bytes())
    assert torch.equal(rows["weights"], project.train.weights)
    chain = json.loads((folder / "chain.json").read_text())
    assert [link["id"] for link in chain] == list(range(1, len(chain) + 1))
    assert all(a["hash"] == b["previous"] for a, b in pairwise(chain))
    assert next(link["hash"] for link in chain if link["id"] == entry.id) == entry.hash
    assert "Patch report: Radial" in (folder / "report.html").read_text()
    assert json.loads((folder / "plan.json").read_text())["remove"] == list(range(40, 60))
    assert json.loads((folder / "comparison.json").read_text())["test"]["n"] == 1200


def test_the_chart_pairs_predicted_with_measured(many, ledger):
    entries, versions = ledger.entries("radial"), ledger.versions("radial")
    patches = history.agreement(entries, versions)
    assert patches["criterion"].value_counts().to_dict() == {"cross_entropy": 3, "brier": 1}
    brier = patches[patches["criterion"] == "brier"].iloc[0]
    details = ledger.entry(many[2]).details
    assert (brier["predicted"], brier["measured"]) == (
        details["predicted"]["brier"],
        details["measured"]["brier"],
    )
    figure = history.agreement_figure(
        pd.DataFrame(
            {
                "predicted": [1.0, -2.0],
                "measured": [0.5, -3.0],
                "accepted": [True, False],
                "patch": ["<b>", "q"],
            }
        ),
        title="cross-entropy",
        unit="nats",
    )
    identity = next(trace for trace in figure.data if trace.line.dash == "dot")
    assert np.array_equal(identity.x, identity.y)
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
    points = {trace.name: (trace.x[0], trace.y[0]) for trace in figure.data if trace.mode == "markers"}
    assert points == {"accepted": (1.0, 0.5), "discarded": (-2.0, -3.0)}
    assert "<b>" not in str(figure.data)


def test_the_tree_joins_each_version_to_the_one_it_was_made_from(many, ledger):
    versions = ledger.versions("radial")
    figure = history.tree_figure(versions, opened=None)
    lines = [(trace.y[0], trace.y[-1]) for trace in figure.data if trace.mode == "lines"]
    assert lines == [(0, 1), (1, 2), (0, 3)]
    largest = max((t for t in figure.data if t.mode == "markers"), key=lambda t: t.marker.size)
    assert largest.y[0] == 3
    assert "version 2 from version 1; version 3 from original" in history.tree_alt(versions)
