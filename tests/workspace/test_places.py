"""Folders below the root: what can be opened, what is listed, and what leads out."""

import os

import pytest

import puma_dash as puma
from puma_dash.workspace import opening, places
from tests.core.loaders.folders import edit, tables


@pytest.fixture
def top(tmp_path, monkeypatch):
    """The root, with a project in shop."""
    monkeypatch.setenv("PUMA_DASH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "top"
    (folder / "shop").mkdir(parents=True)
    tables(folder / "shop")
    monkeypatch.setenv(places.ROOT, str(folder))
    return folder


def project(folder, text=""):
    """A folder with a project.toml."""
    folder.mkdir(parents=True)
    (folder / "project.toml").write_text(text)
    return folder


def test_a_project_below_the_root_opens_as_it_does_by_its_path(top):
    found = places.place(str(top / "shop"))
    assert found == (top / "shop", top, True)
    assert opening.of_files(str(top / "shop")).fingerprint == puma.load(top / "shop").fingerprint
    assert places.title(str(top / "shop")) == "shop"


def test_the_root_itself_may_be_a_project(top, monkeypatch):
    monkeypatch.setenv(places.ROOT, str(top / "shop"))
    assert places.place(str(top / "shop"))
    assert [found.where for found in places.projects_below(top / "shop")[0]] == ["."]


def outside(top):
    return project(top.parent / "elsewhere")


def linked(name, to):
    def make(top):
        outside(top)
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).symlink_to(to)
        return top / name

    return make


def linked_toml(top):
    outside(top)
    (top / "mine").mkdir()
    (top / "mine" / "project.toml").symlink_to(top.parent / "elsewhere" / "project.toml")
    return top / "mine"


BAD = {
    "outside": outside,
    "beside, with the same beginning": lambda top: project(top.parent / "top2"),
    "dots": lambda top: f"{top}/../{outside(top).name}",
    "dots that come back": lambda top: f"{top}/shop/../shop",
    "a slash behind": lambda top: f"{top}/shop/",
    "relative": lambda top: "shop",
    "its project.toml": lambda top: top / "shop" / "project.toml",
    "a folder without": lambda top: top,
    "nothing there": lambda top: top / "absent",
    "a link out": linked("out", "../elsewhere"),
    "a link within": linked("again", "shop"),
    "a link out above": lambda top: linked("up", "..")(top) / "elsewhere",
    "a project.toml that is a link out": linked_toml,
    "a folder called project.toml": lambda top: project(top / "odd" / "project.toml").parent,
    "a zero": lambda top: f"{top}/shop\0",
    "too long": lambda top: f"{top}/" + "x/" * 3000,
    "a long name": lambda top: f"{top}/" + "x" * 300,
    "code": lambda top: "os:system",
    "an upload that is a path": lambda top: f"upload:../../{top.name}/shop",
    "our own home": lambda top: project(top.parent / "home" / "uploads" / "a"),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_nothing_else_is_offered(top, make):
    assert places.place(str(make(top))) is None


def test_our_home_stays_closed_though_it_lies_below_the_root(top, monkeypatch):
    """What was uploaded could else be opened as if its sender could write on the server."""
    monkeypatch.setenv(places.ROOT, str(top.parent))
    inside = project(top.parent / "home" / "uploads" / "a")
    assert places.place(str(inside)) is None
    assert places.place(str(top / "shop"))
    assert [found.where for found in places.projects_below(top.parent)[0]] == ["top/shop"]


@pytest.mark.parametrize("value", [None, "", "/absent", __file__])
def test_without_a_root_nothing_is_offered(top, monkeypatch, value):
    monkeypatch.delenv(places.ROOT) if value is None else monkeypatch.setenv(places.ROOT, value)
    assert places.root() is None
    assert places.place(str(top / "shop")) is None


def test_what_becomes_a_link_out_is_not_opened_either(top):
    """Between the look at the page and the worker's, somebody moves things."""
    source = str(top / "shop")
    (top / "shop").rename(top.parent / "shop")
    (top / "shop").symlink_to("../shop")
    assert os.path.exists(source)
    with pytest.raises(puma.ProjectError, match="without links that lead out of it"):
        opening.of_files(source)


def test_files_outside_the_root_are_not_read(top):
    (top / "shop" / "train.csv").rename(top.parent / "train.csv")
    (top / "shop" / "train.csv").symlink_to("../../train.csv")
    with pytest.raises(puma.ProjectError, match="leads out of it"):
        opening.of_files(str(top / "shop"))


def test_everything_that_is_wrong_is_said(top):
    edit(top / "shop", "weight_decay = 0.01", "weight_decay = -1")
    edit(top / "shop", "test.csv", "absent.csv")
    edit(top / "shop", "weight_decay = -1", "label_smoothing = 7")
    (top / "shop" / "model.safetensors").unlink()
    with pytest.raises(puma.ProjectError) as caught:
        opening.of_files(str(top / "shop"))
    assert "label_smoothing" in str(caught.value)
    edit(top / "shop", "label_smoothing = 7", "")
    with pytest.raises(puma.ProjectError) as caught:
        opening.of_files(str(top / "shop"))
    first, second = str(caught.value).split("\n\n")
    assert "model.safetensors" in first
    assert "absent.csv" in second


def test_code_below_the_root_runs_where_the_owner_trusts_it_only(top, monkeypatch):
    edit(top / "shop", "[model]", '[model]\nfactory = "os:abort"')
    for trusted in ("", "mymodule", "osx"):
        monkeypatch.setenv("PUMA_DASH_FACTORIES", trusted)
        with pytest.raises(puma.ProjectError, match="a module that this server trusts"):
            opening.of_files(str(top / "shop"))
    monkeypatch.setenv("PUMA_DASH_FACTORIES", "torch.nn")
    edit(top / "shop", '"os:abort"', '"torch.nn:Linear"\nin_features = 6\nout_features = 2')
    assert type(opening.of_files(str(top / "shop")).model).__name__ == "Linear"


def names(top):
    return [(found.name, found.where) for found in places.projects_below(top)[0]]


def test_projects_are_listed_by_name_and_path(top, monkeypatch):
    project(top / "a" / "deep", 'name = "Deep one"')
    project(top / "b", "name = 3")
    project(top / "c", "name = [broken")
    project(top / "d", "name = ' '")
    project(top / ".hidden" / "e")
    project(top / "shop" / "inside")
    outside(top)
    (top / "link").symlink_to("../elsewhere")
    (top / "circle").symlink_to(".")
    monkeypatch.setattr(places, "MOST_FOLDERS", 7)  # none is looked at twice
    expected = [("Deep one", "a/deep"), ("b", "b"), ("c", "c"), ("d", "d"), ("Shop", "shop")]
    assert names(top) == expected
    assert places.projects_below(top)[1]
    assert all(places.place(found.source) for found in places.projects_below(top)[0])


def test_the_search_is_bounded(top, monkeypatch):
    project(top.joinpath("1", "2", "3", "4"))
    project(top.joinpath("x", "2", "3", "4", "5"))
    assert names(top)[0] == ("4", "1/2/3/4")
    assert len(names(top)) == 2
    monkeypatch.setattr(places, "MOST_PROJECTS", 1)
    assert places.projects_below(top)[1] is False
    assert len(names(top)) == 1
    monkeypatch.setattr(places, "MOST_FOLDERS", 1)
    assert places.projects_below(top) == ([], False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_is_not_ours_is_passed_over(top):
    project(top / "closed" / "in")
    (top / "closed").chmod(0)
    assert names(top) == [("Shop", "shop")]
    (top / "closed").chmod(0o700)
