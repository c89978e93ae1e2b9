"""Folders that are right: what comes out of them, against what was put in."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.loaders.labels import put_aside
from puma_dash.core.loaders.normalise import Normalise, standard
from puma_dash.core.loaders.project_folder import open_folder, problems, read_data

from .folders import KINDS, ROWS, arrays, edit, idx, images, linear, tables, write


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_folder_opens_and_can_be_valued(tmp_path, kind):
    project = puma.load(str(kind(tmp_path)))
    assert np.isfinite(puma.value(project).scores).all()
    assert problems(tmp_path) == []
    assert puma.load(tmp_path / "project.toml").fingerprint == project.fingerprint


def test_a_table_by_hand(tmp_path):
    """Every input, label, weight, group and id, computed from the file by pandas alone."""
    data = read_data(tables(tmp_path))
    frame = pd.read_csv(tmp_path / "train.csv", keep_default_na=False)
    expected = np.stack(
        [
            (frame.amount - 50) / 9,
            frame.colour == "green",
            frame.colour == "red",
            frame.colour == "",
            frame.region == "north",
            frame.region == "south",
        ],
        axis=1,
    )
    train = data.splits["train"]
    assert train.inputs.dtype == torch.float32
    np.testing.assert_allclose(train.inputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(train.targets, frame.bought == "yes")
    np.testing.assert_array_equal(train.weights, frame.times)
    assert train.groups.region.tolist() == frame.region.tolist()
    assert train.meta.id.tolist() == frame.customer.tolist()
    assert list(train.meta) == ["id", "amount", "colour"]
    assert data.class_names == ("no", "yes")


def test_validation_rows_are_put_aside_and_that_is_said(tmp_path):
    project = open_folder(tables(tmp_path))
    whole = pd.read_csv(tmp_path / "test.csv")
    parts = [project.validation, project.test]
    assert [len(part) for part in parts] == [ROWS // 2, ROWS // 2]
    assert sorted(pd.concat([part.meta.id for part in parts])) == sorted(whole.customer)
    for part in parts:
        own = whole.set_index("customer").loc[part.meta.id]
        assert (part.targets.numpy() == (own.bought == "yes")).all()
        assert part.targets.float().mean() == 0.5
    (note,) = project.notes
    assert note.startswith("No validation rows were given: 30 of 60 test rows (at random within each class, ")
    assert [found.sentence for found in puma.health(project) if found.check == "data"] == [note]


def test_validation_rows_from_train_come_with_a_warning(tmp_path):
    """Their ids are the row numbers in the file, so that a row is found again."""
    project = open_folder(idx(tmp_path))
    assert (len(project.train), len(project.validation), project.test) == (48, 12, None)
    assert "if the model was trained on them" in project.notes[0]
    ids = [*project.train.meta.id, *project.validation.meta.id]
    assert sorted(ids) == list(range(ROWS))
    assert (project.validation.targets.numpy() == project.validation.meta.id % 2).all()


def test_validation_rows_of_their_own_are_taken(tmp_path):
    edit(tables(tmp_path), 'test = "test.csv"', 'validation = "test.csv"')
    project = open_folder(tmp_path)
    assert (len(project.validation), project.test, project.notes) == (ROWS, None, ())


def test_arrays_stay_what_they_are(tmp_path):
    train = read_data(arrays(tmp_path)).splits["train"]
    np.testing.assert_array_equal(train.inputs, np.load(tmp_path / "x.npy"))
    np.testing.assert_array_equal(train.targets, np.load(tmp_path / "y.npy"))
    assert list(train.meta) == ["id", "who", "sex"]
    edit(tmp_path, "[data]", '[data]\nid = "who"\ngroups = ["sex"]')
    edit(tmp_path, 'test = "test.npz"', "")
    train = read_data(tmp_path).splits["train"]
    assert train.groups.sex[0] == "mf"[int(train.meta.id[0][1:]) % 2]


def test_pictures_are_read_in_order(tmp_path):
    from PIL import Image

    train = read_data(images(tmp_path)).splits["train"]
    assert tuple(train.inputs.shape) == (12, 1, 8, 6)
    assert train.meta.id.tolist() == [
        f"{c}/{k}.{'png' if k % 2 else 'jpg'}" for c in ("cat", "dog") for k in range(6)
    ]
    assert train.targets.tolist() == [0] * 6 + [1] * 6
    for row in (1, 6):
        pixels = np.asarray(Image.open(tmp_path / "train" / train.meta.id[row]), dtype=np.float32) / 255
        np.testing.assert_allclose(train.inputs[row, 0], pixels, rtol=1e-6)


def test_classes_of_pictures_take_the_order_given(tmp_path):
    images(tmp_path)
    (tmp_path / "project.toml").write_text(
        'class_names = ["dog", "cat"]\n' + (tmp_path / "project.toml").read_text()
    )
    assert open_folder(tmp_path).train.targets.tolist() == [1] * 6 + [0] * 6


def test_pictures_resized_and_coloured(tmp_path):
    edit(images(tmp_path), "[data]", '[data]\nsize = [4, 4]\nchannels = 3\nformat = "images"')
    train = read_data(tmp_path).splits["train"]
    assert tuple(train.inputs.shape) == (12, 3, 4, 4)
    np.testing.assert_array_equal(train.inputs[:, 0], train.inputs[:, 2])
    assert train.inputs.min() >= 0
    assert train.inputs.max() <= 1


def test_what_is_known_of_pictures_is_found_by_their_path(tmp_path):
    images(tmp_path)
    ids = read_data(tmp_path).splits["train"].meta.id.tolist()
    lines = [f"{name},{k % 2}\n" for k, name in enumerate(ids)]
    (tmp_path / "rows.csv").write_text("path,lens\n" + "".join(reversed(lines)))
    edit(tmp_path, 'train = "train"', 'train = { inputs = "train", rows = "rows.csv" }\nid = "path"')
    train = read_data(tmp_path).splits["train"]
    assert train.meta.id.tolist() == ids
    assert train.meta.lens.tolist() == [k % 2 for k in range(12)]


@pytest.mark.parametrize("per", ["one", "feature"])
def test_normalised_in_front_is_normalised_before(tmp_path, per):
    """Outputs and psi as with data normalised beforehand, under the same names of parameters."""
    mean, std = ([0.3], [1.7]) if per == "one" else ([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0])
    plain = open_folder(arrays(tmp_path))
    edit(tmp_path, "[model]", f"normalise = {{ mean = {mean}, std = {std} }}\n\n[model]")
    project = open_folder(tmp_path)

    def before(split):
        return puma.Split(
            (split.inputs - torch.tensor(mean)) / torch.tensor(std), split.targets, split.weights
        )

    by_hand = puma.Project(
        name="", model=plain.model, train=before(plain.train), validation=before(plain.validation)
    )
    np.testing.assert_allclose(puma.value(project).scores, puma.value(by_hand).scores, rtol=1e-4, atol=1e-7)
    assert dict(project.model.named_parameters()).keys() == dict(plain.model.named_parameters()).keys()
    assert project.model.state_dict().keys() == plain.model.state_dict().keys()
    torch.testing.assert_close(project.train.inputs, plain.train.inputs)
    assert project.fingerprint != plain.fingerprint


def test_a_patch_keeps_the_normalisation_and_the_names_of_weights(tmp_path):
    from safetensors.torch import load_file

    edit(arrays(tmp_path), "[model]", 'normalise = "standard"\n\n[model]')
    project = open_folder(tmp_path)
    made = puma.patch(project, puma.PatchPlan(remove=(0, 1, 2), hold=("cross_entropy",)))
    made.save(tmp_path / "patched.safetensors")
    assert (
        load_file(tmp_path / "patched.safetensors").keys() == load_file(tmp_path / "model.safetensors").keys()
    )
    edit(tmp_path, "model.safetensors", "patched.safetensors")
    torch.testing.assert_close(
        open_folder(tmp_path).model(project.test.inputs), made.model(project.test.inputs)
    )


@pytest.mark.parametrize(("shape", "axes"), [((50, 7), 0), ((20, 3, 5, 4), (0, 2, 3)), ((30, 6, 2), None)])
def test_standard_is_numpy_mean_and_std(monkeypatch, shape, axes):
    monkeypatch.setattr("puma_dash.core.loaders.normalise.CHUNK_NUMBERS", 64)
    x = np.random.default_rng(0).normal(1000, 3, shape).astype(np.float32)
    found = standard(torch.from_numpy(x))
    np.testing.assert_allclose(found.mean, np.ravel(x.mean(axes, dtype=np.float64)), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.ravel(x.std(axes, dtype=np.float64)), rtol=1e-9)


def test_a_constant_feature_is_left_alone():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert standard(x) == Normalise((2.0, 5.0), (1.0, 1.0))


def test_whole_numbers_are_normalised_in_the_type_of_the_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    model.register_forward_pre_hook(Normalise((2.0,), (4.0,)))
    pixels = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2)
    expected = model[1]((pixels.double().reshape(2, 4) - 2) / 4)
    torch.testing.assert_close(model(pixels), expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_every_class_is_split_alike(share):
    labels = np.repeat(np.arange(4), [2, 10, 300, 1000])
    aside = put_aside(labels, len(labels), share, seed=1)
    for k, count in enumerate([2, 10, 300, 1000]):
        assert abs(aside[labels == k].sum() - share * count) <= 1
        assert 0 < aside[labels == k].sum() < count
    assert (aside == put_aside(labels, len(labels), share, seed=1)).all()
    assert (aside != put_aside(labels, len(labels), share, seed=2)).any()


def test_put_aside_is_a_fair_draw():
    """Each row as often as any other of its class."""
    labels = np.arange(40) % 2
    often = sum(put_aside(labels, 40, 0.25, seed) for seed in range(2000)) / 2000
    assert abs(often - 0.25).max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


REGRESSION = """
loss = "squared_error"

[training]
learning_rate = 0.01
epochs = 3

[model]
weights = "model.safetensors"

[data]
train = "train.csv"
target = ["a", "b"]
columns = ["c"]
"""


def test_a_regression_from_a_table(tmp_path):
    write(tmp_path, "a,b,c\n" + "".join(f"{k},{k / 2},{k % 7}\n" for k in range(20)), "train.csv")
    linear(tmp_path, 1, 2)
    write(tmp_path, REGRESSION)
    project = open_folder(tmp_path)
    ids = project.train.meta.id.to_numpy()
    np.testing.assert_allclose(project.train.targets, np.stack([ids, ids / 2], axis=1))
    np.testing.assert_allclose(project.train.inputs[:, 0], ids % 7)
    assert (project.trainer.epochs, project.trainer.learning_rate) == (3, 0.01)
    assert "(at random, seed 0)" in project.notes[0]


def test_a_binary_project_has_one_logit(tmp_path):
    edit(tables(tmp_path), "weight_decay", 'loss = "binary_cross_entropy"\nweight_decay')
    linear(tmp_path, 6, 1)
    assert open_folder(tmp_path).class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("labels", "settings", "expected"),
    [
        ("1 0 2", "", [1, 0, 2]),
        ("1.0 0.0 2.0", "", [1, 0, 2]),
        ("b a c", 'class_names = ["c", "b", "a"]', [1, 2, 0]),
        ("1 2 3", 'class_names = ["1", "2", "3"]', [0, 1, 2]),
        ("1 2 0", 'class_names = ["x", "y", "z"]', [1, 2, 0]),
        ("a. b c", 'class_names = ["a", "b", "c"]\ndata.labels = { "a." = "a" }', [0, 1, 2]),
        ("7 8 9", "data.labels = { 7 = '2', 8 = '1', 9 = '0' }", [2, 1, 0]),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, settings, expected):
    rows = "".join(f"{label},{k}\n" for k, label in enumerate(labels.split() * 10))
    write(tmp_path, "y,x\n" + rows, "train.csv")
    linear(tmp_path, 1, 3)
    data = 'data.train = "train.csv"\ndata.target = "y"\ndata.columns = ["x"]'
    write(tmp_path, f'{settings}\n{data}\nmodel.weights = "model.safetensors"\n')
    train = open_folder(tmp_path).train
    assert train.targets.tolist() == [expected[row % 3] for row in train.meta.id]
