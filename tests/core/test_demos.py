"""Demos: the same for the same seed, and what they promise."""

import dataclasses
import sys
import types

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import puma_dash as puma

SIZES = {"digits": (1_000, 397, 400), "two-moons": (800, 1_000, 2_000), "radial": (600, 600, 1_200)}


@pytest.fixture(scope="module")
def projects():
    return {key: puma.load(key) for key in SIZES}


@pytest.mark.parametrize("key", SIZES)
def test_sizes_and_classes(projects, key):
    project = projects[key]
    splits = (project.train, project.validation, project.test)
    assert tuple(len(split) for split in splits) == SIZES[key]
    assert len(project.class_names) == (10 if key == "digits" else 2)
    assert all(np.unique(split.targets).size == len(project.class_names) for split in splits)
    assert project.weight_decay > 0
    assert project.trainer is not None


@pytest.mark.parametrize("key", SIZES)
def test_the_same_seed_gives_the_same_project(projects, key):
    assert puma.DEMOS[key]()().fingerprint == projects[key].fingerprint
    other = dataclasses.replace(puma.DEMOS[key](), seed=1).untrained()
    assert not np.array_equal(other.train.inputs, projects[key].train.inputs)


@pytest.mark.parametrize("key", ["digits", "two-moons"])
def test_flips_are_known(projects, key):
    train = projects[key].train
    changed = train.targets.numpy() != train.meta["true_label"].to_numpy()
    assert changed.tolist() == train.meta["flipped"].tolist()
    assert changed.sum() == len(train) // 10


def test_digits_are_the_real_ones(projects):
    images, labels = load_digits(return_X_y=True)
    train, rows = projects["digits"].train, projects["digits"].train.meta["source_row"]
    np.testing.assert_allclose(train.inputs.reshape(len(train), -1) * 16, images[rows], atol=1e-5)
    assert labels[rows].tolist() == train.meta["true_label"].tolist()


def test_no_row_is_in_two_splits(projects):
    for project in projects.values():
        parts = [
            split.inputs.reshape(len(split), -1)
            for split in (project.train, project.validation, project.test)
        ]
        rows = np.concatenate(parts)
        repeated = len(rows) - len(np.unique(rows, axis=0))
        assert repeated == 0


@pytest.mark.parametrize("key", ["digits", "two-moons"])
def test_psi_finds_the_flips_and_the_patch_mends_the_model(projects, key):
    project = projects[key]
    valuation = puma.value(project)
    assert roc_auc_score(project.train.meta["flipped"], -valuation.scores) > 0.9
    plan = puma.PatchPlan(remove=valuation.harmful(100), hold=("cross_entropy",))
    patch = puma.patch(project, plan)
    assert patch.strength == 1
    assert patch.measured["cross_entropy"] < 0
    table = puma.compare(project, patch, split="test").metrics["change"]
    assert table["accuracy"] > 0
    assert table["nll"] < 0


def test_radial_forgets_one_cluster(projects):
    """Removing a cluster raises its own loss more than that of any other cluster."""
    project = projects["radial"]
    cluster = project.train.meta["cluster"].to_numpy()
    patch = puma.patch(project, puma.PatchPlan(remove=np.flatnonzero(cluster == 2), method="influence"))
    rise = losses(patch.model, project) - losses(project.model, project)
    means = [rise[cluster == k].mean() for k in range(6)]
    assert np.argmax(means) == 2


def losses(model, project):
    return project.loss(model(project.train.inputs), project.train.targets).detach().numpy()


@pytest.fixture
def module(monkeypatch, projects):
    made = types.ModuleType("someones_project")
    made.make, made.number, made.wrong = (lambda: projects["radial"]), 3, (lambda: "not a project")
    monkeypatch.setitem(sys.modules, "someones_project", made)


@pytest.mark.usefixtures("module")
def test_load_from_a_module(projects):
    assert puma.load("someones_project:make") is projects["radial"]


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("source", "fragment"),
    [
        ("nothing", "digits"),
        ("", "digits"),
        ("no_such_module:make", "no_such_module"),
        ("someones_project:", "function"),
        ("someones_project:absent", "absent"),
        ("someones_project:number", "number"),
        ("someones_project:wrong", "returned str"),
        (":make", "module"),
        ("..up:make", "module"),
    ],
)
def test_load_refuses(source, fragment):
    with pytest.raises(puma.ProjectError, match=fragment):
        puma.load(source)
