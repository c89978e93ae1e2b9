"""Per-row gradients layer by layer, against Jacobians by reverse mode, row by row."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from puma_dash.core import layers
from puma_dash.core.engine import Engine
from puma_dash.core.layers import Layout, Recording
from puma_dash.core.row_gradients import RowGradients

from .cases import Case, Reference, case

IMAGES, SERIES, FLAT, TOKENS = (2, 7, 6), (2, 9), (5,), (4, 3)


def head(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def stretched(norm):
    """With scales and statistics that are not those of a fresh layer."""
    for tensor in (
        norm.weight,
        norm.bias,
        getattr(norm, "running_mean", None),
        getattr(norm, "running_var", None),
    ):
        if tensor is not None:
            tensor.data.uniform_(0.5, 1.5)
    return norm


class Twice(nn.Module):
    """A layer that every row passes twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class InPlace(nn.Module):
    """A function that overwrites what a layer gave."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.outer(F.leaky_relu_(self.inner(x), 0.3))


class Functional(nn.Module):
    """A layer whose weight is also used outside it, and a parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.scale = nn.Linear(5, 5), nn.Linear(5, 3), nn.Parameter(torch.ones(5))

    def forward(self, x):
        return self.outer(torch.tanh(F.linear(torch.tanh(self.inner(x)), self.inner.weight)) * self.scale)


class ByKeyword(nn.Module):
    """A layer that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(input=x)))


class TokensFirst(nn.Module):
    """A layer that sees the tokens along its first dimension, as PyTorch's recurrent layers do by default."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x.transpose(0, 1))).mean(0))


class Merged(TokensFirst):
    """A layer that sees all tokens of all rows below one another."""

    def forward(self, x):
        flat = torch.tanh(self.inner(x.reshape(-1, x.shape[-1])))
        return self.outer(flat.reshape(len(x), -1, flat.shape[-1]).mean(1))


# name: (model, shape of a row, layers with a rule, parameters without one)
MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), FLAT, ["0", "2"], []),
    "linear, no bias": (
        lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)),
        FLAT,
        ["0", "2"],
        [],
    ),
    "tokens first": (TokensFirst, TOKENS, ["outer"], ["inner.weight", "inner.bias"]),
    "tokens of all rows": (Merged, TOKENS, ["outer"], ["inner.weight", "inner.bias"]),
    "linear over tokens": (lambda: head(nn.Linear(3, 4), nn.Tanh()), TOKENS, ["0", "3"], []),
    "linear over a grid": (lambda: head(nn.Linear(6, 2), nn.Tanh()), IMAGES, ["0", "3"], []),
    "conv1d": (lambda: head(nn.Conv1d(2, 4, 3), nn.Tanh()), SERIES, ["0", "3"], []),
    "conv1d, all options": (
        lambda: head(nn.Conv1d(2, 4, 3, 2, 1, 2, 2, bias=False), nn.Tanh()),
        SERIES,
        ["0", "3"],
        [],
    ),
    "conv2d": (lambda: head(nn.Conv2d(2, 3, (2, 3)), nn.Tanh()), IMAGES, ["0", "3"], []),
    "conv2d, all options": (
        lambda: head(nn.Conv2d(2, 4, (3, 2), (2, 1), (2, 1), (1, 2), 2), nn.Tanh()),
        IMAGES,
        ["0", "3"],
        [],
    ),
    "conv2d, depthwise": (
        lambda: head(nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.Tanh()),
        IMAGES,
        ["0", "3"],
        [],
    ),
    "conv2d, same": (
        lambda: head(nn.Conv2d(2, 2, 3, padding="same"), nn.Tanh()),
        IMAGES,
        ["3"],
        ["0.weight", "0.bias"],
    ),
    "conv2d, circular": (
        lambda: head(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.Tanh()),
        IMAGES,
        ["3"],
        ["0.weight", "0.bias"],
    ),
    "batch norm 1d": (
        lambda: nn.Sequential(nn.Linear(5, 4), stretched(nn.BatchNorm1d(4)), nn.Tanh(), nn.Linear(4, 3)),
        FLAT,
        ["0", "1", "3"],
        [],
    ),
    "batch norm of series": (lambda: head(stretched(nn.BatchNorm1d(2)), nn.Tanh()), SERIES, ["0", "3"], []),
    "batch norm 2d": (
        lambda: head(nn.Conv2d(2, 3, 3), stretched(nn.BatchNorm2d(3)), nn.Tanh()),
        IMAGES,
        ["0", "1", "4"],
        [],
    ),
    "batch norm 3d": (lambda: head(stretched(nn.BatchNorm3d(2)), nn.Tanh()), (2, 2, 3, 2), ["0", "3"], []),
    "group norm": (
        lambda: head(nn.Conv2d(2, 4, 3), stretched(nn.GroupNorm(2, 4)), nn.Tanh()),
        IMAGES,
        ["0", "1", "4"],
        [],
    ),
    "layer norm": (lambda: nn.Sequential(stretched(nn.LayerNorm(5)), nn.Linear(5, 3)), FLAT, ["0", "1"], []),
    "layer norm over tokens": (lambda: head(stretched(nn.LayerNorm(3)), nn.Tanh()), TOKENS, ["0", "3"], []),
    "layer norm of two sides": (
        lambda: head(stretched(nn.LayerNorm((7, 6))), nn.Tanh()),
        IMAGES,
        ["0", "3"],
        [],
    ),
    "in-place activation": (lambda: head(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True)), IMAGES, ["0", "3"], []),
    "in-place function": (InPlace, FLAT, ["inner", "outer"], []),
    "in-place function, later": (
        lambda: nn.Sequential(nn.Linear(5, 5), nn.Tanh(), InPlace()),
        FLAT,
        ["0", "2.outer"],
        ["2.inner.weight", "2.inner.bias"],
    ),
    "by keyword": (ByKeyword, FLAT, ["outer"], ["inner.weight", "inner.bias"]),
    "passed twice": (Twice, FLAT, ["outer"], ["inner.weight", "inner.bias"]),
    "used elsewhere": (Functional, FLAT, ["outer"], ["scale", "inner.weight", "inner.bias"]),
}


def made(name, n=9) -> Case:
    torch.manual_seed(0)
    model = MODELS[name][0]().double()
    model(torch.zeros(2, *MODELS[name][1]).double())  # lazy layers get their shapes
    return case(model.eval(), MODELS[name][1], 3, n=n)


def recorded(engine, layout, inputs, cotangents):
    return Recording(engine, inputs, layout.layers).gradients(cotangents, layout.rest)


@pytest.fixture(params=MODELS, scope="module")
def built(request):
    """The gradients of nine rows, and the same (9, p) by reverse mode."""
    start = made(request.param)
    engine, reference = Engine(start.project(), device="cpu"), Reference(start)
    layout = Layout.of(engine, 9)
    v = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).double()
    dense = torch.einsum("mcp,mc->mp", reference.jacobians(reference.x), v)
    return MODELS[request.param], layout, recorded(engine, layout, reference.x, v), dense


def test_layers_with_a_rule_and_the_rest(built):
    (_, _, layers, rest), layout, _, _ = built
    assert sorted(layer.name for layer in layout.layers) == layers
    assert sorted(layout.rest) == sorted(rest)
    assert layout.missing == ()


def test_gradients(built):
    _, _, rows, dense = built
    assert len(rows) == len(dense)
    torch.testing.assert_close(rows.combination(torch.eye(9).double()), dense)


def test_products(built):
    _, _, rows, dense = built
    u, vectors = torch.randn(4, 9).double(), torch.randn(4, dense.shape[1]).double()
    torch.testing.assert_close(rows.combination(u), u @ dense)
    torch.testing.assert_close(rows.times(vectors), vectors @ dense.T)
    torch.testing.assert_close(rows.dots(rows), (dense**2).sum(1))


def test_grams(built):
    _, _, rows, dense = built
    some = rows.take(slice(2, 7))
    assert len(some) == 5
    torch.testing.assert_close(some.gram(rows), dense[2:7] @ dense.T)
    for chunk in (1, 4, 9, 512):
        torch.testing.assert_close(rows.self_gram(chunk), dense @ dense.T)


def test_joining_what_was_taken_apart(built):
    _, _, rows, dense = built
    joined = RowGradients.join([rows.take(slice(start, start + 4)) for start in (0, 4, 8)])
    torch.testing.assert_close(joined.combination(torch.eye(9).double()), dense)


def test_gradients_elsewhere():
    """At another theta than theta_org."""
    start = made("conv2d")
    engine, reference = Engine(start.project(), device="cpu"), Reference(start)
    theta, v = reference.theta + 0.1, torch.ones(9, 3).double()
    layout = Layout.of(engine, 9)
    rows = Recording(engine, reference.x, layout.layers, theta).gradients(v, layout.rest)
    torch.testing.assert_close(
        rows.combination(torch.eye(9).double()), reference.jacobians(reference.x, theta).sum(1)
    )


@pytest.mark.parametrize("chosen", ["last", "0.*", "*.bias", "1.weight"])
def test_selected_parameters(chosen):
    """The others hold still: their gradients take no part in any product."""
    start = made("batch norm 2d")
    engine, reference = Engine(start.project(), device="cpu", parameters=chosen), Reference(start)
    where = dict(
        zip(
            reference.shapes,
            reference.theta.split([s.numel() for s in reference.shapes.values()]),
            strict=True,
        )
    )
    taking_part = torch.cat(
        [torch.full_like(part, name in engine.parameters.names) for name, part in where.items()]
    ).bool()
    layout = Layout.of(engine, 9)
    assert layout.missing == layout.rest == ()
    v = torch.ones(9, 3).double()
    rows = recorded(engine, layout, reference.x, v)
    dense = torch.einsum("mcp,mc->mp", reference.jacobians(reference.x), v)[:, taking_part]
    assert 0 < dense.shape[1] < len(reference.theta)
    torch.testing.assert_close(rows.combination(torch.eye(9).double()), dense)
    torch.testing.assert_close(rows.gram(rows), dense @ dense.T)


BUDGETS = [
    ("two convolutions", 7 + 110 + 142, ()),
    ("two convolutions", 7 + 110 + 141, ("2.weight", "2.bias")),
    ("two convolutions", 7 + 109, ("0.weight", "0.bias", "2.weight", "2.bias")),
    ("two convolutions", 6, ("0.weight", "0.bias", "2.weight", "2.bias", "5.weight", "5.bias")),
    ("used elsewhere", 8 + 35, ()),
    ("used elsewhere", 8 + 34, ("scale", "inner.weight", "inner.bias")),
]


@pytest.mark.parametrize(("name", "numbers", "missing"), BUDGETS)
def test_what_is_too_large_is_missing(monkeypatch, name, numbers, missing):
    """The largest layers first, counted in what a row leaves: q, or in + out where it passes a layer once."""
    convolutions = nn.Conv2d(2, 10, (1, 5)), nn.Tanh(), nn.Conv2d(10, 2, (7, 1)), nn.Flatten(), nn.Tanh()
    monkeypatch.setitem(
        MODELS, "two convolutions", (lambda: nn.Sequential(*convolutions, nn.Linear(4, 3)), IMAGES)
    )
    monkeypatch.setattr(layers, "ROW_NUMBERS", 9 * numbers)
    start = made(name)
    engine, reference = Engine(start.project(), device="cpu"), Reference(start)
    layout = Layout.of(engine, 9)
    assert layout.missing == missing
    if len(missing) == len(reference.shapes):
        assert layout.layers == layout.rest == ()
        return
    v = torch.ones(9, 3).double()
    held = [torch.full((shape.numel(),), name not in missing) for name, shape in reference.shapes.items()]
    dense = reference.jacobians(reference.x).sum(1) * torch.cat(held)
    rows = recorded(engine, layout, reference.x, v)
    torch.testing.assert_close(rows.combination(torch.eye(9).double()), dense)
    torch.testing.assert_close(rows.gram(rows), dense @ dense.T)
    torch.testing.assert_close(rows.times(reference.theta[None])[0], dense @ reference.theta)


def test_the_gram_matrix_is_over_what_both_hold():
    start = made("conv2d")
    engine, reference = Engine(start.project(), device="cpu"), Reference(start)
    layout, v = Layout.of(engine, 9), torch.ones(9, 3).double()
    part = Layout(tuple(layer for layer in layout.layers if layer.name == "3"), (), ("0.weight", "0.bias"))
    some, rows = recorded(engine, part, reference.x, v), recorded(engine, layout, reference.x, v)
    head = reference.jacobians(reference.x).sum(1)[:, reference.shapes["0.weight"].numel() + 3 :]
    for gram in (some.gram(rows), rows.gram(some).T):
        torch.testing.assert_close(gram, head @ head.T)


def test_single_precision(monkeypatch):
    """A rule's rounding is no reason to leave it out."""
    monkeypatch.setattr("puma_dash.core.engine.DOUBLE_LIMIT", 0)
    start = made("conv2d, all options")
    start.model.float()
    engine, reference = Engine(start.project(), device="cpu"), Reference(made("conv2d, all options"))
    assert engine.dtype == torch.float32
    layout = Layout.of(engine, 9)
    rows = recorded(engine, layout, reference.x, torch.ones(9, 3))
    assert [layer.name for layer in layout.layers] == ["0", "3"]
    dense = reference.jacobians(reference.x).sum(1).float()
    torch.testing.assert_close(rows.combination(torch.eye(9)), dense, rtol=1e-4, atol=1e-5)
