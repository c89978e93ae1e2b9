"""Weights as people keep them: in which file, under which names, with what around them."""

import gzip

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.loaders.checkpoint import load_model

from .makers import IMAGES, ROWS, Named, assert_same, convolutional, dense, read, saved

SUFFIXES = (".safetensors", ".pt", ".PTH")
STATE = dense().state_dict()
HIDDEN = {"architecture": "mlp", "hidden": [5]}

WRAPPED = {
    "as it is": STATE,
    "under state_dict": {"state_dict": STATE, "epoch": 3, "args": {"lr": 0.1}},
    "beside an optimizer": {
        "model": STATE,
        "optimizer": torch.optim.Adam(dense().parameters()).state_dict(),
    },
    "of DataParallel": {f"module.{k}": v for k, v in STATE.items()},
    "compiled": {f"_orig_mod.{k}": v for k, v in STATE.items()},
    "compiled and parallel": {f"module._orig_mod.{k}": v for k, v in STATE.items()},
    "under model and of DataParallel": {"model": {f"module.{k}": v for k, v in STATE.items()}},
    "inside another module": {f"net.{k}": v for k, v in STATE.items()},
    "of parameters that require gradients": dict(dense().named_parameters()),
    "in the names of a class": {k.replace("0", "fc1").replace("2", "fc2"): v for k, v in STATE.items()},
}


@pytest.mark.parametrize("settings", [{}, HIDDEN], ids=("inferred", "named"))
@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_what_lies_around_the_weights(wrapped, settings, tmp_path):
    loaded = read(saved(wrapped, tmp_path / "m.pt"), **settings)
    assert_same(loaded.model, dense(), ROWS)
    assert all(p.requires_grad for p in loaded.model.parameters())


NOTES = {
    "under state_dict": "'state_dict'; the others (args, epoch) are not used",
    "of DataParallel": "'module.'",
    "compiled and parallel": "'_orig_mod.'",
}


@pytest.mark.parametrize(("name", "words"), NOTES.items())
def test_assumptions_are_said(name, words, tmp_path):
    notes = read(saved(WRAPPED[name], tmp_path / "m.pt")).notes
    assert any(words in note for note in notes)
    assert "Linear(3, 5), ReLU, Linear(5, 3)" in notes[-1]


def test_a_match_by_order_is_said(tmp_path):
    notes = read(saved(WRAPPED["in the names of a class"], tmp_path / "m.pt"), **HIDDEN).notes
    assert notes == ("Layers matched by order: fc1 to 1, fc2 to 3.",)


def test_one_of_several_states_is_chosen_by_key(tmp_path):
    other = {name: torch.zeros_like(value) for name, value in STATE.items()}
    path = saved({"ema": other, "model": STATE}, tmp_path / "m.pt")
    assert_same(read(path, key="model").model, dense(), ROWS)
    assert not read(path, key="ema").model(ROWS).any()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("order", [None, ["conv1", "bn1", "conv2", "fc1", "fc2"]])
def test_names_of_a_class_defined_in_another_order(suffix, order, tmp_path):
    """safetensors sorts names anyway, so there the orders that fit are tried; a .pt has one order."""
    original = Named(convolutional()).eval()
    path = saved(original.state_dict(), tmp_path / f"m{suffix}")
    settings = {"padding": 1, "pool": 2, **({"order": order} if order else {})}
    if suffix != ".safetensors" and order is None:
        with pytest.raises(puma.ProjectError, match="try order ="):
            read(path, IMAGES, **settings)
        return
    assert_same(read(path, IMAGES, **settings).model, original, IMAGES)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("key", puma.ARCHITECTURES)
def test_named_architectures(key, suffix, tmp_path):
    fields = {"lenet": {"kernel": 3, "padding": 1}, "mlp": {"activation": "tanh"}}.get(key, {})
    fields = {"width": 2} if "resnet" in key else fields
    original = puma.ARCHITECTURES[key](**fields)((1, 8, 8), 3).eval()
    path = saved(original.state_dict(), tmp_path / f"m{suffix}")
    loaded = read(path, IMAGES, architecture=key, **fields)
    assert loaded.notes == ()
    assert_same(loaded.model, original, IMAGES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_without_the_counters_of_batch_norm(suffix, tmp_path):
    """Files from before PyTorch 0.4.1, and converters, leave them out."""
    original = puma.ARCHITECTURES["resnet18"](width=2)((1, 8, 8), 3).eval()
    state = {k: v for k, v in original.state_dict().items() if "num_batches" not in k}
    path = saved(state, tmp_path / f"m{suffix}")
    assert_same(read(path, IMAGES, architecture="resnet18", width=2).model, original, IMAGES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types_are_kept(dtype, tmp_path):
    original = dense().to(dtype)
    model = read(saved(original.state_dict(), tmp_path / "m.safetensors")).model
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert_same(model, original, ROWS.to(dtype))


def test_mixed_types_become_the_widest(tmp_path):
    state = {name: value.half() if "bias" in name else value for name, value in STATE.items()}
    assert {p.dtype for p in read(saved(state, tmp_path / "m.pt")).model.parameters()} == {torch.float32}


def test_a_file_from_before_zip_archives(tmp_path):
    torch.save(STATE, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    assert_same(read(tmp_path / "m.pth").model, dense(), ROWS)


def test_what_a_patch_saves_can_be_loaded(tmp_path):
    split = puma.Split(ROWS.repeat(4, 1), torch.arange(24) % 3)
    model = load_model(saved(STATE, tmp_path / "m.pt"), HIDDEN, ROWS, 3)
    project = puma.Project(name="own", model=model, train=split, validation=split, weight_decay=0.1)
    patch = puma.patch(project, puma.PatchPlan(remove=(1, 2), method="influence"))
    patch.save(tmp_path / "patched.safetensors")
    for settings in ({}, HIDDEN):
        assert_same(load_model(tmp_path / "patched.safetensors", settings, ROWS, 3), patch.model, ROWS)


class Scaled(nn.Module):
    """What only code can build."""

    def __init__(self, width=5, tied=False):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 2.0))
        self.inner = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 3))
        self.again = nn.Linear(width, 3)
        if tied:
            self.again.weight = self.inner[2].weight
        self.scale.requires_grad_(False)

    def forward(self, x):
        return self.inner(x * self.scale)


HERE = "tests.core.loaders.test_checkpoint"


@pytest.mark.parametrize("trusted", ["tests.core", HERE, f"other, {HERE}"])
@pytest.mark.parametrize("settings", [{}, {"tied": True}, {"width": 7}])
def test_a_factory_that_the_server_trusts(trusted, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("PUMA_DASH_FACTORIES", trusted)
    original = Scaled(**settings)
    model = read(saved(original.state_dict(), tmp_path / "m.pt"), factory=f"{HERE}:Scaled", **settings).model
    assert_same(model, original, ROWS)
    assert not model.scale.requires_grad
    assert (model.again.weight is model.inner[2].weight) == settings.get("tied", False)


MNIST = [{}, {"architecture": "lenet", "channels": [32, 64], "kernel": 3, "padding": 1, "hidden": [128]}]


def test_the_network_of_a_third_party_on_real_mnist(test_data):
    """Saved from a CUDA device; 99.05 % is what its author reports."""

    def numbers(name, start):
        return np.frombuffer(
            gzip.decompress((test_data / "mnist" / name).read_bytes()), np.uint8, offset=start
        )

    images = torch.tensor(numbers("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28) / 255)
    images = (images.float() - 0.1307) / 0.3081
    labels = torch.tensor(numbers("t10k-labels-idx1-ubyte.gz", 8).astype(int))
    path = test_data / "pretrained" / "mnist.pth"
    model, named = (load_model(path, settings, images[:8], 10) for settings in MNIST)
    assert_same(model, named, images[:100])
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in images.split(500)])
    assert (found == labels).sum() == 9905
