"""Programs of torch.export: read without unpickling, the same outputs, the same derivatives."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev, jvp

import puma_dash as puma
from puma_dash.core.objective import forward
from puma_dash.core.training import fresh

from .makers import IMAGES, ROWS, assert_same, convolutional, dense, exported, randomised, read

TOKENS = torch.randint(0, 12, (6, 5), generator=torch.Generator().manual_seed(0))


class Text(nn.Module):
    """Token ids, an embedding, something that mixes tokens, a mean and a linear layer."""

    def __init__(self, mix):
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(12, 4), mix, nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.mix(self.embedding(tokens)).mean(1))


class Causal(nn.Module):
    """A transformer with positions of its own and a mask made on the way."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(9, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)

    def forward(self, x):
        length = x.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        return self.layer(x + self.positions[torch.arange(length)], mask)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Gated(nn.Module):
    """Two halves, a constant, a buffer that is not saved, and a weight used twice."""

    def __init__(self):
        super().__init__()
        self.both, self.tied, self.head = nn.Linear(3, 6), nn.Linear(3, 3), nn.Linear(3, 3)
        self.head.weight = self.tied.weight
        self.register_buffer("shift", torch.tensor([0.5, 0.0, 1.0]), persistent=False)

    def forward(self, x):
        left, right = self.both(x * torch.tensor([1.0, 2.0, 3.0]) + self.shift).chunk(2, 1)
        return self.head(self.tied(left * torch.sigmoid(right)).tanh())


torch.manual_seed(0)
PROGRAMS = {
    "dense": (dense(), ROWS),
    "convolutions": (convolutional(), IMAGES),
    "group norm": (
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding="same", stride=1), nn.GroupNorm(2, 4), nn.GELU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        ),
        IMAGES,
    ),
    "residual": (randomised(puma.ARCHITECTURES["resnet18"](width=1)((1, 8, 8), 3)), IMAGES),
    "text": (Text(nn.LayerNorm(4)), TOKENS),
    "transformer": (Text(Causal()), TOKENS),
    "recurrent": (Text(Recurrent()), TOKENS),
    "gated": (Gated(), ROWS),
    "in 64 bits": (dense().double(), ROWS.double()),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request, tmp_path_factory):
    """A network, some rows, and what its program was read as."""
    model, inputs = PROGRAMS[request.param]
    path = exported(model.eval(), inputs, tmp_path_factory.mktemp("programs") / "m.pt2")
    return model, inputs, read(path, inputs).model


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The file of a convolutional network."""
    return exported(convolutional(), IMAGES, tmp_path_factory.mktemp("archive") / "m.pt2")


def test_outputs(program):
    model, inputs, loaded = program
    for count in (6, 1, 4):
        assert_same(loaded, model, inputs[:count])


def test_names_and_values_are_kept(program):
    model, _, loaded = program
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in model.named_parameters()]


def test_derivatives(program):
    """Reverse and forward mode, in 64 bits as the engine may choose to compute."""
    model, inputs, loaded = program
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    pair = [copy.deepcopy(one).double() for one in (model, loaded)]
    named = [{name: p.detach() for name, p in one.named_parameters()} for one in pair]
    generator = torch.Generator().manual_seed(3)
    directions = {n: torch.randn(p.shape, generator=generator).double() for n, p in named[0].items()}
    outputs = [lambda at, one=one: forward(one, at, inputs) for one in pair]
    found, expected = (jacrev(call)(at) for call, at in zip(outputs[::-1], named[::-1], strict=True))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)
    along = [jvp(call, (at,), (directions,))[1] for call, at in zip(outputs, named, strict=True)]
    torch.testing.assert_close(*along)


def test_psi(program):
    model, inputs, loaded = program
    split = puma.Split(inputs.repeat(2, *[1] * (inputs.ndim - 1)), torch.arange(12) % 3)
    curvature = puma.ConjugateGradient(damping=0.1, tolerance=1e-10)
    scores = [
        puma.value(
            puma.Project(name="p", model=one, train=split, validation=split, weight_decay=0.1),
            curvature=curvature,
        ).scores
        for one in (model, loaded)
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-6, atol=1e-9 * np.abs(scores[0]).max())


LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.Embedding)


def test_layers_are_modules(program):
    """So that Kronecker factors find them and retraining can draw them anew."""
    model, _, loaded = program
    if isinstance(model, Gated):
        return  # its tied kernel belongs to two layers
    for path, module in model.named_modules():
        if type(module) in LAYERS:
            assert repr(loaded.get_submodule(path)) == repr(module)
    if all(type(m) in LAYERS for m in model.modules() if [*m.parameters(recurse=False)]):
        assert not torch.equal(next(fresh(loaded, 1).parameters()), next(loaded.parameters()))


def test_frozen_parameters_stay_frozen(tmp_path):
    model = dense()
    model[0].requires_grad_(False)
    loaded = read(exported(model, ROWS, tmp_path / "m.pt2")).model
    assert [p.requires_grad for p in loaded.parameters()] == [False, False, True, True]
    loaded = read(exported(model.requires_grad_(False), ROWS, tmp_path / "n.pt2")).model
    assert all(p.requires_grad for p in loaded.parameters())


def test_nothing_is_unpickled_or_evaluated(archive, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for place in ("torch.load", "pickle.loads", "pickle.load", "torch.export.load", "sympy.sympify"):
        monkeypatch.setattr(place, refuse)
    assert_same(read(archive, IMAGES).model, convolutional(), IMAGES)


def test_the_fingerprint_knows_the_program(tmp_path):
    """The same tensors in another order of calls are another model."""

    class Either(nn.Module):
        def __init__(self, first):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.layer = first, nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.tanh()) if self.first else self.layer(x).tanh()

    split = puma.Split(ROWS, torch.arange(6) % 3)
    prints = set()
    for first in (True, False, False):
        model = read(exported(Either(first), ROWS, tmp_path / "m.pt2")).model
        prints.add(puma.Project(name="p", model=model, train=split, validation=split).fingerprint)
    assert len(prints) == 2


def test_what_torch_itself_loads_agrees(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = torch.export.load(archive).module()
    with torch.no_grad():
        torch.testing.assert_close(read(archive, IMAGES).model(IMAGES), own(IMAGES))
