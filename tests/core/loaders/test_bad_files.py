"""Tables of bad weight files: what may be wrong with a file, and words that its answer must contain."""

import argparse
import collections
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch
from torch import nn

import puma_dash as puma

from .makers import (
    IMAGES,
    ROWS,
    Runs,
    assert_same,
    changed,
    check_answer,
    convolutional,
    dense,
    exported,
    put,
    read,
    saved,
    written,
)

STATE, IMAGE_STATE = dense().state_dict(), convolutional().state_dict()
MLP = {"architecture": "mlp", "hidden": [5]}


def state(name="m.pt", **changes):
    """The weights of the small network with some tensors changed or added, as a file."""
    keys = {key: key.replace("_", ".") for key in changes}
    return lambda folder: saved({**STATE, **{keys[k]: v for k, v in changes.items()}}, folder / name)


def checkpoint(value, name="m.pt"):
    return lambda folder: saved(value, folder / name)


def layers(*modules, name="m.pt"):
    """The weights of these modules in a row."""
    return lambda folder: saved(nn.Sequential(*modules).state_dict(), folder / name)


def sparse_file(folder):
    """5 GiB that take no room on the disk."""
    path = folder / "m.safetensors"
    with path.open("wb") as file:
        file.truncate(5 * 2**30)
    return path


def bomb(name, size, record="m/data/0"):
    """An archive of zeros that unpacks to ``size`` bytes in records of a GiB at most."""

    def make(folder):
        archive = zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        with archive, archive.open(record, "w") as file:
            for _ in range(size >> 24):
                file.write(bytes(2**24))
        return folder / name

    return make


def lying(name, record, size):
    """An archive whose directory says that a record unpacks to ``size`` bytes."""

    def make(folder):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(record, b"{}")
        data = bytearray((folder / name).read_bytes())
        directory = data.index(b"PK\x01\x02")
        data[directory + 24 : directory + 28] = struct.pack("<I", size)
        return put(folder / name, bytes(data))

    return make


def tar(folder):
    """What PyTorch 0.1 wrote."""
    with tarfile.open(folder / "m.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return folder / "m.pt"


def twice(folder):
    path = saved(STATE, folder / "m.pt")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("m/data/0", bytes(60))
    return path


def cut(name, share):
    """The first part of a file."""

    def make(folder):
        path = saved(STATE, folder / name)
        data = path.read_bytes()
        return put(path, data[: int(len(data) * share)])

    return make


def header(text, rest=b""):
    return struct.pack("<Q", len(text)) + text + rest


SHAPED = b'{"0.weight":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,16]}}'

FILES = {
    "missing": (lambda folder: folder / "m.pt", "no file of that name"),
    "a folder": (lambda folder: (folder / "m.pt").mkdir() or folder / "m.pt", "a folder"),
    "empty": (written("m.pt", b""), "the file is empty"),
    "empty safetensors": (written("m.safetensors", b""), "the file is empty"),
    "a pointer of Git LFS": (
        written("m.pt", b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "a web page": (written("m.safetensors", b"<!DOCTYPE html><html>"), "a web page"),
    "Keras weights": (written("m.pt", b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "a pickle by its name": (written("m.pkl", pickle.dumps(1)), "unpickling runs code"),
    "joblib by its name": (written("m.joblib", b"x"), "skops.io.dump"),
    "ONNX": (written("m.onnx", b"x"), "torch.export.save"),
    "another name": (written("model.bin", b"x"), ".safetensors, .pt, .pth, .pt2, .skops"),
    "too large": (sparse_file, "at most 4 GiB, but m.safetensors has 5 GiB"),
    "noise in a .pt": (written("m.pt", b"\x13noise" * 50), "cannot be read"),
    "text in a .pth": (written("m.pth", b"weights: 1 2 3"), "cannot be read"),
    "noise in a .safetensors": (written("m.safetensors", b"\x13noise" * 50), "cannot be read"),
    "noise in a .pt2": (written("m.pt2", b"noise" * 50), "broken or cut off"),
    "noise in a .skops": (written("m.skops", b"noise" * 50), "broken or cut off"),
    "a .pt cut off": (cut("m.pt", 0.6), "broken or cut off"),
    "a .safetensors cut off": (cut("m.safetensors", 0.9), "cannot be read"),
    "an absurd header": (written("m.safetensors", struct.pack("<Q", 2**60) + b"{}"), "cannot be read"),
    "a header that is no JSON": (written("m.safetensors", header(b"{'a': 1}")), "cannot be read"),
    "a shape larger than the file": (written("m.safetensors", header(SHAPED, bytes(16))), "cannot be read"),
    "safetensors named .pt": (written("m.pt", header(SHAPED)), "try naming it m.safetensors"),
    "a program named .pt": (
        lambda folder: exported(dense(), ROWS, folder / "m.pt2").rename(folder / "m.pt"),
        "try naming it m.pt2",
    ),
    "TorchScript": (
        lambda folder: torch.jit.save(torch.jit.trace(dense(), ROWS), folder / "m.pt") or folder / "m.pt",
        "TorchScript",
    ),
    "a bomb": (
        changed(lambda _, data: data, checkpoint(STATE), compression=zipfile.ZIP_DEFLATED),
        "uncompressed records",
    ),
    "a .skops bomb": (bomb("m.skops", 2**28 + 2**24, "schema.json"), "at most 0.25 GiB"),
    "an archive that says it is large": (lying("m.skops", "schema.json", 2**31), "unpacks to 2 GiB"),
    "a record twice": (twice, "some names occur twice"),
    "a tar archive": (tar, "a tar archive"),
    "an archive of other things": (bomb("m.pt", 2**24, "photos/1"), "uncompressed"),
}

CHECKPOINTS = {
    "a whole model": (checkpoint(dense()), "holds pickled objects (torch.nn.modules"),
    "arguments beside the weights": (
        checkpoint({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}),
        "(argparse.Namespace)",
    ),
    "arrays of numpy": (checkpoint({k: v.numpy() for k, v in STATE.items()}), "pickled objects (numpy"),
    "code": (checkpoint({**STATE, "x": Runs()}), "would call posix.mkdir, which is no part of a model"),
    "code in an old pickle": (written("m.pt", pickle.dumps(Runs(), protocol=2)), "posix.mkdir"),
    "a tensor": (checkpoint(torch.ones(3)), "a single tensor"),
    "a list": (checkpoint([torch.ones(3)]), "list alone"),
    "a number": (checkpoint(3), "int alone"),
    "nothing": (checkpoint({}), "holds nothing"),
    "no tensors": (checkpoint({"epoch": 3, "lr": 0.1}), "it holds epoch (int), lr (float)"),
    "no tensors in safetensors": (written("m.safetensors", header(b"{}")), "holds none"),
    "two states": (checkpoint({"model": STATE, "ema": STATE}), "ema and model could be it", {}),
    "a key that is not there": (checkpoint({"model": STATE}), "(model), but got 'net'", {"key": "net"}),
    "a key for safetensors": (state("m.safetensors"), "no key for m.safetensors", {"key": "model"}),
    "NaN": (state(**{"0_weight": torch.full((5, 3), torch.nan)}), "0.weight holds NaN"),
    "infinity": (state(**{"0_bias": torch.full((5,), torch.inf)}), "gives NaN or infinity"),
    "complex numbers": (state(**{"0_bias": torch.ones(5) * 1j}), "0.bias in m.pt is torch.complex64"),
    "eight bits": (state(**{"0_bias": torch.ones(5).to(torch.float8_e4m3fn)}), "float8"),
    "whole numbers": (state(**{"0_weight": torch.ones(5, 3, dtype=torch.int8)}), "before quantisation"),
    "whole numbers for an MLP": (
        state(**{"0_weight": torch.ones(5, 3, dtype=torch.int8)}),
        "0.weight is torch.int8",
        MLP,
    ),
    "sparse": (state(**{"0_weight": torch.ones(5, 3).to_sparse()}), "0.weight in m.pt is sparse"),
    "a billion from one number": (
        state(**{"0_weight": torch.ones(1).expand(10**5, 10**5)}),
        "m.pt expands to 37.25 GiB",
    ),
}

RESNET = puma.ARCHITECTURES["resnet18"](width=1)((1, 8, 8), 3)
ALIKE = collections.OrderedDict(
    (f"{name}.{part}", torch.ones(3, 3) if part == "weight" else torch.ones(3))
    for name in ("first", "second")
    for part in ("weight", "bias")
)

SHAPES = {
    "a residual network": (checkpoint(RESNET.state_dict()), "downsample", {"inputs": IMAGES}),
    "a convolution along a line": (layers(nn.Conv1d(3, 4, 2), nn.Linear(4, 3)), "0 (weight (4, 3, 2)"),
    "layer norm": (layers(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "1 (weight (4,), bias (4,))"),
    "recurrent": (layers(nn.LSTM(3, 4), nn.Linear(4, 3)), "weight_hh_l0"),
    "attention": (layers(nn.MultiheadAttention(3, 1), nn.Linear(3, 3)), "in_proj_bias"),
    "a parameter of its own": (state(**{"scale": torch.ones(1)}), "the top level has scale"),
    "no linear layer": (layers(nn.Conv2d(1, 2, 3)), "a Linear layer at the end", {"inputs": IMAGES}),
    "a convolution behind": (
        layers(nn.Linear(3, 4), nn.Conv2d(1, 2, 3)),
        "no convolution behind a Linear layer",
    ),
    "two norms": (layers(nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 3)), "a layer of its own"),
    "half a norm": (
        checkpoint({"0.running_mean": torch.ones(3), "0.running_var": torch.ones(4), **STATE}),
        "parts of a layer",
    ),
    "a bias too long": (state(**{"0_bias": torch.ones(6)}), "bias (6,)"),
    "no outputs": (
        state(**{"2_weight": torch.ones(0, 5), "2_bias": torch.ones(0)}),
        "parts of a layer to fit together",
    ),
    "a layer too wide": (state(**{"2_weight": torch.ones(3, 7)}), "2 takes 7 features and 0 has 5"),
    "other rows": (
        checkpoint(STATE),
        "takes 3 features and a row of inputs has 4",
        {"inputs": ROWS.repeat(1, 2)[:, :4]},
    ),
    "more outputs": (checkpoint(STATE), "shape (6, 4) for 6 rows", {"outputs": 4}),
    "rows for convolutions": (
        checkpoint(IMAGE_STATE),
        "one row has the shape (64,)",
        {"inputs": IMAGES.flatten(1)},
    ),
    "other channels, and names that are sorted": (
        lambda folder: saved(
            {k.replace("8.", "a.8.").replace("11.", "a.11."): v for k, v in IMAGE_STATE.items()},
            folder / "m.safetensors",
        ),
        "0 takes 1 channels and a row of inputs has 3",
        {"inputs": IMAGES.repeat(1, 3, 1, 1)},
    ),
    "channels last": (
        layers(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)),
        "takes 3 channels and a row of inputs has 8",
        {"inputs": torch.ones(6, 8, 8, 3)},
    ),
    "token ids": (checkpoint(STATE), "they are torch.int64", {"inputs": torch.ones(6, 3, dtype=torch.long)}),
    "images of another size": (
        checkpoint(IMAGE_STATE),
        "leave 4 pixels of images of 7 x 7",
        {"inputs": IMAGES[:, :, 1:, 1:]},
    ),
    "several readings": (
        checkpoint({"a.weight": torch.ones(2, 1, 1, 1), "b.weight": torch.ones(3, 32)}),
        "2 readings fit",
        {"inputs": IMAGES},
    ),
    "padding of another layer": (
        checkpoint(IMAGE_STATE),
        "padding for each of 2",
        {"inputs": IMAGES, "padding": [1]},
    ),
    "padding of words": (
        checkpoint(IMAGE_STATE),
        "padding to be a list",
        {"inputs": IMAGES, "padding": "same"},
    ),
    "padding below zero": (checkpoint(IMAGE_STATE), "from 0", {"inputs": IMAGES, "padding": -1}),
    "a stride of none": (checkpoint(IMAGE_STATE), "from 1", {"inputs": IMAGES, "stride": 0}),
    "an order that names tell not": (checkpoint(ALIKE, "m.safetensors"), "both fit; try order"),
    "an order that names tell not, of an MLP": (
        checkpoint(ALIKE, "m.safetensors"),
        "several orders",
        {"architecture": "mlp", "hidden": [3]},
    ),
    "an order of other layers": (checkpoint(STATE), "(0, 2), but got 0, 1", {"order": ["0", "1"]}),
    "an order in one word": (checkpoint(STATE), "to be a list", {"order": "0"}),
    "an architecture of no name": (checkpoint(STATE), "logistic, mlp, lenet", {"architecture": "vgg"}),
    "an architecture of no text": (checkpoint(STATE), "logistic, mlp, lenet", {"architecture": ["mlp"]}),
    "an architecture and a factory": (checkpoint(STATE), "but got both", {**MLP, "factory": "a:b"}),
    "a setting of no architecture": (
        checkpoint(STATE),
        "hidden, activation, key or order",
        {**MLP, "width": 4},
    ),
    "a setting of no plain network": (checkpoint(STATE), "pooling, padding", {"hidden": [4]}),
    "hidden units in words": (checkpoint(STATE), "hidden to be a list", {**MLP, "hidden": "5"}),
    "absurd hidden units": (
        checkpoint(STATE),
        "7.weight, 7.bias; unexpected",
        {**MLP, "hidden": [2**20] * 3},
    ),
    "other sizes": (checkpoint(STATE), "0.weight is 5x3, not 7x3", {**MLP, "hidden": [7]}),
    "layers missing": (checkpoint(STATE), "missing: 1.weight, 1.bias, 3.weight", {**MLP, "hidden": [5, 5]}),
    "layers unexpected": (checkpoint(STATE), "unexpected: 0.weight", {"architecture": "logistic"}),
    "images too small": (checkpoint(STATE), "large enough", {"inputs": IMAGES, "architecture": "lenet"}),
    "a factory of nobody": (checkpoint(STATE), "PUMA_DASH_FACTORIES=os", {"factory": "os:abort"}),
    "a factory beside the one trusted": (
        checkpoint(STATE),
        "trusts (tests.core.loaders.makers)",
        {"factory": "tests.core.loaders.makers_of_others:dense"},
    ),
    "a factory that is not there": (
        checkpoint(STATE),
        "has no attribute 'sparse'",
        {"factory": "tests.core.loaders.makers:sparse"},
    ),
    "a factory that fails": (
        checkpoint(STATE),
        "unexpected keyword",
        {"factory": "tests.core.loaders.makers:dense", "width": 4},
    ),
    "a factory of no module": (
        checkpoint(STATE),
        "but got PosixPath",
        {"factory": "tests.core.loaders.makers:Path"},
    ),
    "a factory of another network": (
        checkpoint(STATE),
        "missing: 1.weight",
        {"factory": "tests.core.loaders.makers:convolutional", "inputs": IMAGES},
    ),
}


TABLE = {
    f"{part}: {name}": entry
    for part, table in (("file", FILES), ("checkpoint", CHECKPOINTS), ("network", SHAPES))
    for name, entry in table.items()
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("entry", TABLE.values(), ids=TABLE)
def test_bad_files_are_answered_in_words(entry, tmp_path, monkeypatch):
    check_answer(entry, tmp_path, monkeypatch)


class Net(nn.Sequential):
    """A class that a pickle names."""


PICKLED = {
    "a whole model": lambda: Net(*dense()),
    "arrays of numpy": lambda: {name: value.numpy() for name, value in STATE.items()},
    "weights beside their arguments": lambda: {**STATE, "args": argparse.Namespace(lr=0.1)},
}


@pytest.mark.parametrize("make", PICKLED.values(), ids=PICKLED)
def test_the_three_lines_convert_what_is_refused(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(make(), tmp_path / "m.pt")
    with pytest.raises(puma.ProjectError) as caught:
        read(path)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 3
    exec("\n".join(lines), {})
    assert_same(read(tmp_path / "m.safetensors").model, dense(), ROWS)
