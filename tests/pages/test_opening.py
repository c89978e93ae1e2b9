"""Workspace in each state of its three cards, and of what was uploaded."""

import io

import pytest
import streamlit as st

from puma_dash.core.loaders.unpack import Limits
from puma_dash.workspace import opening, places, uploads
from puma_dash.workspace.ledger import Ledger
from puma_dash.workspace.store import home
from tests.core.loaders.folders import edit, idx, linear, tables
from tests.pages.conftest import button, texts
from tests.workspace.test_uploads import archive


@pytest.fixture(autouse=True)
def server(tmp_path, monkeypatch):
    """A server with a home of its own, and no root."""
    monkeypatch.setenv("PUMA_DASH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(places.ROOT, raising=False)


@pytest.fixture
def shop(tmp_path):
    """A project folder below a folder that may become the root."""
    (tmp_path / "top" / "shop").mkdir(parents=True)
    return tables(tmp_path / "top" / "shop")


@pytest.fixture
def allowed(shop, monkeypatch):
    """The root, with one project."""
    monkeypatch.setenv(places.ROOT, str(shop.parent))
    return shop.parent


def plain(at):
    """What the page says, without the backslashes that keep Markdown from reading it otherwise."""
    return texts(at).replace("\\", "")


def work(jobs):
    """Does what the page has submitted last, as the worker would."""
    from puma_dash.workspace import tasks

    task, params = jobs.submitted[-1]
    jobs.now = {"status": "done", "result": tasks.TASKS[task](params, lambda *_: None, None)}


def upload(at, content, name="shop.zip"):
    """Chooses a file in the uploader; what the browser does after that is left out."""
    return at.file_uploader[0].set_value((name, content, "application/zip")).run()


# --- a demo ---


def test_mnist_that_is_not_at_hand_says_what_to_do(open_page, jobs, monkeypatch, tmp_path):
    """The worker's sentence, and the cards to choose something else."""
    from puma_dash.core.types import ProjectError
    from puma_dash.workspace import tasks

    monkeypatch.setenv("PUMA_DASH_MNIST", str(tmp_path))
    at = open_page("app.py")
    assert "PUMA_DASH_MNIST" in plain(at)
    button(at, "Try MNIST").click().run()
    task, params = jobs.submitted[-1]
    assert (task, params) == ("prepare", {"source": "mnist", "version": None})
    with pytest.raises(ProjectError) as caught:
        tasks.TASKS[task](params, lambda *_: None, None)
    jobs.now = {"status": "failed", "error": str(caught.value)}
    at.run()
    assert not at.exception
    assert f"expected the four files of MNIST in {tmp_path}" in plain(at)
    assert button(at, "Try digits")


# --- a project folder -------------------------------------------------------------------


def test_without_a_root_the_card_says_how_to_allow_one(open_page):
    at = open_page("app.py")
    assert not at.exception
    assert "None is allowed yet" in texts(at)
    assert "puma-dash serve --root FOLDER" in [code.value for code in at.code]
    assert not at.selectbox


def test_a_root_without_projects_says_how_to_make_one(open_page, monkeypatch, tmp_path):
    monkeypatch.setenv(places.ROOT, str(tmp_path))
    at = open_page("app.py")
    assert f"Below {tmp_path} no folder" in plain(at)
    assert "puma-dash init FOLDER" in [code.value for code in at.code]


def test_the_one_project_below_the_root_is_chosen_already(open_page, allowed, jobs):
    at = open_page("app.py")
    assert at.selectbox(key="folder").options == ["Shop · shop"]
    button(at, "Open the folder").click().run()
    source = str(allowed / "shop")
    assert jobs.submitted[-1] == ("prepare", {"source": source, "version": None})
    assert at.query_params["project"] == source
    assert "**shop**" in plain(at)


def test_many_projects_are_chosen_from_by_name_and_path(open_page, allowed, jobs):
    for name in ("b", "a"):
        (allowed / "more" / name).mkdir(parents=True)
        (allowed / "more" / name / "project.toml").write_text('name = "Same"')
    at = open_page("app.py")
    chooser = at.selectbox(key="folder")
    assert chooser.options == ["Same · more/a", "Same · more/b", "Shop · shop"]
    assert chooser.value is None
    assert button(at, "Open the folder").disabled
    chooser.set_value(str(allowed / "more" / "b")).run()
    button(at, "Open the folder").click().run()
    assert jobs.submitted[-1][1]["source"] == str(allowed / "more" / "b")


def test_more_projects_than_are_listed(open_page, allowed, monkeypatch):
    monkeypatch.setattr(places, "MOST_PROJECTS", 1)
    (allowed / "another").mkdir()
    (allowed / "another" / "project.toml").touch()
    assert "There are more than are listed" in texts(open_page("app.py"))


@pytest.mark.parametrize("where", ["{top}/../other", "{top}/../other/", "other", "/", "{top}", "{top}/shop/"])
@pytest.mark.parametrize("page", ["app.py", "pages/2_Explore.py"])
def test_a_path_outside_of_the_root_is_refused(open_page, allowed, jobs, where, page):
    (allowed.parent / "other").mkdir()
    tables(allowed.parent / "other")
    at = open_page(page, project=where.format(top=allowed))
    assert not at.exception
    assert "No project is open." in texts(at)
    assert jobs.submitted == []


def test_a_deep_link_to_a_folder_below_the_root_opens_it(open_page, allowed, jobs):
    open_page("app.py", project=str(allowed / "shop"))
    assert jobs.submitted[-1] == ("prepare", {"source": str(allowed / "shop"), "version": None})


def test_what_does_not_open_is_listed_and_the_cards_stay(open_page, allowed, jobs):
    jobs.now = {"status": "failed", "error": "expected a; try b.\n\nexpected c; try:\nimport d"}
    at = open_page("app.py", project=str(allowed / "shop"))
    assert [error.value.replace("\\", "") for error in at.error] == ["expected a; try b.", "expected c; try:"]
    assert "import d" in [code.value for code in at.code]
    assert button(at, "Try digits")


def test_what_was_loaded_is_said_with_what_to_know(open_page, allowed, prepared, jobs):
    source = str(allowed / "shop")
    at = open_page("app.py")
    button(at, "Open the folder").click().run()
    work(jobs)
    at.run()
    assert not at.exception
    said = plain(at)
    assert "Data** 60 training, 30 validation, 30 test rows of 2 classes: no, yes" in said
    assert "Model** Linear" in said or "Model** Sequential" in said
    assert "with weight decay 0.01" in said
    assert "No validation rows were given: 30 of 60 test rows (at random within each class" in said
    assert button(at, "Explore the training rows")  # there is something to read first
    assert at.query_params["project"] == source


def test_a_project_without_a_test_split_says_so(open_page, allowed, prepared):
    folder = allowed / "digits"
    folder.mkdir()
    idx(folder)
    source = str(folder)
    prepared.prepare({"source": source, "version": None}, lambda *_: None, None)
    assert "48 training, 12 validation, no test rows" in plain(open_page("app.py", project=source))


def test_what_the_server_was_started_with_can_be_opened_again(open_page, prepared, monkeypatch, jobs):
    monkeypatch.setenv("PUMA_DASH_PROJECT", "tests.pages.task_projects:values")
    prepared.prepare({"source": "radial", "version": None}, lambda *_: None, None)
    at = open_page("app.py", project="radial")
    button(at, "Open it").click().run()
    assert jobs.submitted[-1][1]["source"] == "tests.pages.task_projects:values"


# --- an upload --------------------------------------------------------------------------


def test_the_limit_is_stated_before(open_page, monkeypatch):
    assert "at most 500 MB" in texts(open_page("app.py"))
    option = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: 7 if name == "server.maxUploadSize" else option(name))
    assert "at most 7 MB" in texts(open_page("app.py"))


def test_a_good_zip_opens_and_is_prepared_like_a_demo(open_page, prepared, shop, jobs):
    (shop / "test.csv").rename(shop / "validation.csv")  # nothing to put aside, and so nothing to read first
    edit(shop, 'test = "test.csv"', 'validation = "validation.csv"')
    at = upload(open_page("app.py"), archive(shop))
    (known,) = uploads.uploads()
    assert jobs.submitted == [("unpack", {"upload": known.id, "packed": Limits().packed})]
    assert "Unpacking" in texts(at)
    assert "shop.zip" in plain(at)
    work(jobs)
    jobs.now = {"status": "running", "message": "Working"}
    uploaded = at.run()
    assert jobs.submitted[-1] == ("prepare", {"source": known.source, "version": None})
    assert "Preparing the project" in texts(uploaded)
    assert "**shop.zip**" in plain(uploaded)
    assert at.query_params["project"] == known.source
    work(jobs)
    at.run()
    assert not at.exception
    assert "opening" not in at.session_state  # it went on to Explore


def test_the_archive_is_no_longer_held_in_memory(open_page, shop, monkeypatch):
    freed = []
    monkeypatch.setattr("puma_dash.ui.opening._forget", freed.append)
    at = upload(open_page("app.py"), archive(shop))
    assert [file.name for file in freed] == ["shop.zip"]
    assert at.file_uploader[0].value is None


@pytest.fixture
def sent(shop):
    """Uploads a folder and lets the worker look at it."""

    def made(folder=shop, **params):
        content = folder if isinstance(folder, bytes) else archive(folder)
        known = uploads.receive(io.BytesIO(content), "shop.zip")
        opening.unpack({"upload": known.id, "packed": Limits().packed, **params}, lambda *_: None, None)
        return uploads.load(known.id)

    return made


def test_a_bad_zip_is_refused_in_words(open_page, jobs):
    at = upload(open_page("app.py"), b"hello")
    work(jobs)
    at.run()
    assert not at.exception
    assert "expected a zip archive in upload.zip" in plain(at)
    assert button(at, "Delete shop\\.zip")
    assert not [b for b in at.button if b.label in ("Open", "Unpack")]


def test_problems_are_listed(open_page, sent, shop, jobs):
    (shop / "model.safetensors").unlink()
    edit(shop, "test.csv", "tests.csv")
    sent()
    at = open_page("app.py")
    errors = [error.value.replace("\\", "") for error in at.error]
    assert len(errors) == 2
    assert "try 'test.csv'" in errors[1]
    assert jobs.submitted == []


def test_an_upload_is_listed_and_opened(open_page, sent, jobs):
    known = sent()
    at = open_page("app.py")
    assert "Uploaded" in texts(at)
    button(at, "Open").click().run()
    assert jobs.submitted[-1] == ("prepare", {"source": known.source, "version": None})


def test_a_deep_link_to_an_upload_opens_it_after_a_restart(open_page, sent, jobs):
    known = sent()
    at = open_page("pages/2_Explore.py", project=known.source)
    assert jobs.submitted[-1] == ("prepare", {"source": known.source, "version": None})
    assert "Preparing the project" in texts(at)


def test_a_deep_link_to_an_upload_that_is_not_here_says_what_to_do(open_page, jobs):
    at = open_page("app.py", project="upload:" + "0" * 32)
    assert "No project is open." in texts(at)
    assert "Upload its archive again" in texts(at)
    assert jobs.submitted == []


def test_an_upload_that_is_deleted_is_closed_and_keeps_its_ledger(open_page, sent, prepared, jobs):
    known = sent()
    prepared.prepare({"source": known.source, "version": None}, lambda *_: None, None)
    Ledger(home()).append("test opened", source=known.source, parent=None)
    at = open_page("app.py", project=known.source)
    button(at, "Delete shop\\.zip").click().run()
    assert not at.exception
    assert "No project is open." in texts(at)
    assert "project" not in at.query_params
    assert uploads.uploads() == []
    assert Ledger(home()).openings(known.source) == 1
    assert "No project is open." in texts(open_page("app.py", project=known.source))


def test_an_archive_without_project_toml_can_be_described(open_page, shop, sent, jobs):
    (shop / "project.toml").unlink()
    linear(shop, 67, 2)
    known = sent()
    at = open_page("app.py")
    assert "expected a project.toml" in plain(at)
    assert at.selectbox(key=f"train-{known.id}").value == "train.csv"
    assert at.selectbox(key=f"target-{known.id}").value == "bought"
    at.selectbox(key=f"test-{known.id}").set_value("test.csv")
    button(at, "Write project.toml and open").click().run()
    task, params = jobs.submitted[-1]
    assert (task, params["upload"]) == ("describe", known.id)
    assert params["answers"]["weights"] == "model.safetensors"
    assert params["answers"]["validation"] == ""
    work(jobs)
    done = uploads.load(known.id)
    assert done.problems == ()
    at.run()
    work(jobs)
    at.run()
    assert "is it no, yes?" in plain(at)
    assert button(at, "Explore the training rows")


@pytest.mark.parametrize(("status", "words"), [("cancelled", "Cancelled before"), ("died", "stopped")])
def test_an_upload_that_was_not_unpacked_can_be_tried_again(open_page, shop, jobs, status, words):
    at = upload(open_page("app.py"), archive(shop))
    jobs.now = {"status": status, "error": "The worker stopped unexpectedly."}
    at.run()
    assert words in texts(at)
    button(at, "Unpack").click().run()
    assert len(jobs.submitted) == 2
    work(jobs)
    assert uploads.uploads()[0].ready


def test_a_full_disk_is_told(open_page, shop, monkeypatch, jobs):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "receive", full)
    at = upload(open_page("app.py"), archive(shop))
    assert not at.exception
    assert "No space left on device" in texts(at)
    assert jobs.submitted == []
