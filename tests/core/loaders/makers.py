"""Files as people have them, and as they should not be."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import puma_dash as puma
from puma_dash.core.loaders.checkpoint import read_model

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with running statistics that are not 0 and 1."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def convolutional() -> nn.Sequential:
    """A plain network for ``IMAGES`` of three classes."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return randomised(nn.Sequential(*layers, nn.Linear(16, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)))


def dense() -> nn.Sequential:
    """A plain network for ``ROWS`` of three classes."""
    torch.manual_seed(0)
    return randomised(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)))


class Named(nn.Module):
    """The convolutional network with names of its own, defined in an order of its own."""

    def __init__(self, like: nn.Sequential):
        super().__init__()
        self.fc1, self.fc2 = like[8], like[11]
        self.conv1, self.conv2, self.bn1 = like[0], like[4], like[1]

    def forward(self, x):
        x = torch.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        x = torch.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(x.flatten(1)).relu())


def saved(value, path: Path) -> Path:
    """``value`` under torch.save, or as safetensors, by the name of the file."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in value.items()}, path)
    else:
        torch.save(value, path)
    return path


def exported(model: nn.Module, inputs: torch.Tensor, path: Path, any_rows: bool = True) -> Path:
    """``model`` as a program of torch.export."""
    shapes = ({0: torch.export.Dim.AUTO},) if any_rows else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (inputs,), dynamic_shapes=shapes), path)
    return path


def rewritten(path: Path, change, to: Path | None = None, compression=zipfile.ZIP_STORED) -> Path:
    """The archive with ``change(name, bytes)`` in place of each record; None leaves it out."""
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, data in records:
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)
    (to or path).write_bytes(made.getvalue())
    return to or path


def edited(path: Path, ending: str, edit) -> Path:
    """The archive with ``edit(content)`` applied to the JSON record of that ending."""

    def change(name, data):
        if not name.endswith(ending):
            return data
        content = json.loads(data)
        return json.dumps(edit(content) or content).encode()

    return rewritten(path, change)


def read(path: Path, inputs=ROWS, outputs: int = 3, **settings):
    """The model in the file."""
    return read_model(path, settings, inputs, outputs)


def assert_same(model: nn.Module, original: nn.Module, inputs: torch.Tensor) -> None:
    """Checks that both give the same outputs, in eval mode."""
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), original(inputs), rtol=1e-5, atol=1e-6)


def written(name, data):
    """A file with that content."""
    return lambda folder: put(folder / name, data)


def put(path, data):
    path.write_bytes(data)
    return path


def changed(change, make, **options):
    """The archive with its records changed."""
    return lambda folder: rewritten(make(folder), change, **options)


class Runs:
    """What a file that runs code looks like."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def check_answer(entry, folder: Path, monkeypatch) -> None:
    """Checks that the file of an entry (maker, words, arguments of ``read``) is answered with its words."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PUMA_DASH_FACTORIES", "tests.core.loaders.makers")
    make, words, *options = entry
    path = make(folder)
    with pytest.raises(puma.ProjectError) as caught:
        read(path, **options[0] if options else {})
    text = str(caught.value)
    assert words in text
    assert text.startswith("expected ")
    assert text.endswith((".", ")"))
    assert len(text) < 900
    assert not (folder / "ran").exists()
