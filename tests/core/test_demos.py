"""Demos: the same for the same seed, and what they promise."""

import dataclasses
import gzip
import sys
import types
import urllib.error

import numpy as np
import pytest
import sklearn.datasets
import torch
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


@pytest.fixture(scope="module")
def mnist_folder(test_data):
    folder = test_data / "mnist"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the four files of MNIST as they are published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUMA_DASH_MNIST", str(folder))
        yield folder


@pytest.fixture(scope="module")
def mnist(mnist_folder):
    return puma.load("mnist")


def test_mnist_is_what_was_published(mnist, mnist_folder):
    """Every pixel of the rows it names, and no row in both splits; the test rows in their order."""

    def pixels(name):
        raw = np.frombuffer(gzip.decompress((mnist_folder / name).read_bytes()), np.uint8, offset=16)
        return raw.reshape(-1, 28, 28)

    assert [len(split) for split in (mnist.train, mnist.validation, mnist.test)] == [10_000, 5_000, 10_000]
    images = pixels("train-images-idx3-ubyte.gz")[mnist.train.meta["source_row"]]
    for split, expected in ((mnist.train, images), (mnist.test, pixels("t10k-images-idx3-ubyte.gz"))):
        found = split.inputs[:, 0] * 0.3081 + 0.1307
        torch.testing.assert_close(found, torch.tensor(expected) / 255, atol=1e-6, rtol=0)
    both = torch.cat([mnist.train.inputs, mnist.validation.inputs]).flatten(1).numpy()
    assert len(np.unique(both, axis=0)) == 15_000


def test_mnist_has_known_flips_that_the_loss_finds(mnist):
    meta = mnist.train.meta
    changed = mnist.train.targets.numpy() != meta["true_label"].to_numpy()
    assert changed.tolist() == meta["flipped"].tolist()
    assert changed.sum() == 1_000
    assert roc_auc_score(changed, -puma.value(mnist, "loss").scores) > 0.98
    with torch.no_grad():
        said = mnist.model(mnist.test.inputs).argmax(1)
    assert (said == mnist.test.targets).float().mean() > 0.97


def test_mnist_brings_records_of_80_megabytes_at_most(mnist):
    records, trained = mnist.records, [p.detach().ravel() for p in mnist.model.parameters()]
    assert records.bytes < 80e6
    assert records.epochs == tuple(range(2, 21, 2))
    torch.testing.assert_close(records.start + records.updates.sum(0), torch.cat(trained), atol=1e-4, rtol=0)
    assert torch.equal(records.checkpoints[-1], torch.cat(trained))


@pytest.mark.usefixtures("mnist_folder")
def test_mnist_is_drawn_from_its_seed(mnist):
    same, other = (puma.DEMOS["mnist"](seed=seed).untrained() for seed in (0, 1))
    assert torch.equal(same.train.inputs, mnist.train.inputs)
    assert torch.equal(same.train.targets, mnist.train.targets)
    start = torch.cat([p.detach().ravel() for p in same.model.parameters()])
    assert torch.equal(start, mnist.records.start)
    assert not torch.equal(other.train.inputs, mnist.train.inputs)
    assert not torch.equal(next(other.model.parameters()), next(same.model.parameters()))


def test_mnist_says_what_to_do_without_a_network(monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.delenv("PUMA_DASH_MNIST", raising=False)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", unreachable)
    with pytest.raises(
        puma.ProjectError, match=r"not known.*; try PUMA_DASH_MNIST=FOLDER, with its four files"
    ):
        puma.load("mnist")


def test_mnist_names_the_file_that_its_folder_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("PUMA_DASH_MNIST", str(tmp_path))
    with pytest.raises(puma.ProjectError, match=r"train-images-idx3-ubyte is not there.*; try another"):
        puma.load("mnist")


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
        ("nothing", "digits, two-moons, radial, mnist"),
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
