"""K-FAC and EK-FAC against dense blocks and against their definition, row by row and place by place."""

import math
import threading

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import puma_dash as puma
from puma_dash.core.curvature import kronecker
from puma_dash.core.engine import Engine

from .cases import CASES, CONVEX, WEIGHTS, Reference, case, convolution, mlp, trained

close = torch.testing.assert_close
BOTH = [puma.KFAC, puma.EKFAC]
SHIFT = 0.02 + 0.05  # weight decay of the cases, and the damping used here


def matrix_of(kind, project, **engine):
    """What a curvature takes B to be, without wd + damping, found by solving for every unit vector."""
    engine = Engine(project, **engine)
    p = len(engine.theta)
    inverse = kind(damping=0.05)(engine)(torch.eye(p).to(engine.theta)).x
    return torch.linalg.inv(inverse.double()) - SHIFT * torch.eye(p).double()


def blocks(reference, matrix):
    """``matrix`` without what joins two layers."""
    layer = torch.cat(
        [
            torch.full((shape.numel(),), hash(name.rpartition(".")[0]))
            for name, shape in reference.shapes.items()
        ]
    )
    return torch.where(layer[:, None] == layer, matrix, 0.0)


def recorded(case, name):
    """Inputs (n, ...) of a layer, gradients (n, c, ...) of its outputs along the columns of S, S S^T = H."""
    model = Reference(case).model
    seen = {}
    model.get_submodule(name).register_forward_hook(lambda _m, args, out: seen.update(a=args[0], z=out))
    outputs = model(torch.as_tensor(case.train[0]))
    n, c = outputs.shape
    p = outputs.softmax(1).detach()
    if case.loss == "cross_entropy":
        root = torch.stack([torch.linalg.cholesky(q.diag() - q.outer(q) + 1e-15 * torch.eye(c)) for q in p])
    elif case.loss == "binary_cross_entropy":
        q = outputs.sigmoid().detach()
        root = (q * (1 - q)).sqrt()[:, :, None]
    else:
        root = (2 / c) ** 0.5 * torch.eye(c).double().expand(n, c, c)
    columns = [torch.autograd.grad(outputs, seen["z"], root[:, :, k], retain_graph=True)[0] for k in range(c)]
    return seen["a"].detach(), torch.stack(columns, 1)


def permuted(out, width):
    """Where the entries of (out, width + 1), bias last, lie in a layer's weight followed by its bias."""
    weight = torch.arange(out * width).reshape(out, width)
    return torch.cat([weight, out * width + torch.arange(out)[:, None]], 1).ravel()


def defined(a, d, weights, outputs, kernel):
    """The Kronecker block from inputs a_jt and gradients d_jkt, summed one by one, in theta's order."""
    n, share = len(a), float(weights.sum())
    big_a = torch.zeros(kernel + 1, kernel + 1).double()
    big_d = torch.zeros(outputs, outputs).double()
    for j in range(n):
        for t in range(len(a[j])):
            one = torch.cat([a[j][t], torch.ones(1).double()])
            big_a += weights[j] / share * one.outer(one)
        for row in d[j]:
            for t in range(len(row)):
                big_d += weights[j] / n / len(row) * row[t].outer(row[t])
    order = permuted(outputs, kernel)
    block = torch.empty(len(order), len(order)).double()
    block[order[:, None], order] = torch.kron(big_d, big_a)
    return block


# --- where the structure is exact ------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("weights", [None, np.resize([1.0, 0.5, 2.0, 0.0, 1.5], 30)])
def test_linear_regression_is_exact(kind, weights):
    reference = Reference(CONVEX["regression"].but(weights=weights))
    engine = Engine(reference.case.project())
    v = torch.randn(3, len(reference.theta), generator=torch.Generator().manual_seed(0)).double()
    solution = kind(damping=0.05)(engine)(v)
    close(solution.x, torch.linalg.solve(reference.b(0.05), v.T).T, rtol=1e-9, atol=1e-10)
    close(solution.x, puma.Dense(damping=0.05)(engine)(v).x, rtol=1e-9, atol=1e-10)
    assert solution.residual < 1e-12


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["softmax", "one logit", "regression", "convolution"])
def test_rows_that_are_all_alike_are_exact_layer_by_layer(kind, name):
    """One a and one set of d for each layer, whatever the labels; a convolution passed at one place only."""
    alike = CASES[name] if name != "convolution" else case(one_place(), (1, 3, 3), 3)
    x, y = alike.train
    alike = alike.but(train=(np.repeat(x[5:6], 22, axis=0), y))
    reference = Reference(alike)
    close(matrix_of(kind, alike.project()), blocks(reference, reference.ggn()), rtol=1e-7, atol=1e-9)


def one_place():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Tanh(), nn.Linear(4, 3)).double()


def test_the_last_layer_of_a_regression_is_exact():
    """D is the same for every row, also where only part of theta takes part."""
    project = CASES["regression"].project()
    size = 2 * 4 + 2
    expected = Reference(CASES["regression"]).ggn()[-size:, -size:]
    for kind in BOTH:
        close(matrix_of(kind, project, parameters="last"), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("parameters", ["2.weight", "2.bias"])
def test_weights_and_biases_alone(parameters):
    project = CASES["regression"].project()
    part = slice(16, 24) if parameters == "2.weight" else slice(24, 26)
    expected = Reference(CASES["regression"]).ggn()[part, part]
    close(matrix_of(puma.KFAC, project, parameters=parameters), expected, rtol=1e-8, atol=1e-10)


# --- against the definition ------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "one logit", "regression"])
def test_factors_of_linear_layers(name):
    """Also which column is the bias, how a_j enters, and that nothing joins two layers."""
    reference = Reference(CASES[name])
    found, start = matrix_of(puma.KFAC, reference.case.project()), 0
    expected = torch.zeros_like(found)
    for layer in ("0", "2"):
        a, d = recorded(reference.case, layer)
        block = defined(a[:, None], d[:, :, None], reference.a, d.shape[2], a.shape[1])
        part = slice(start, start := start + len(block))
        expected[part, part] = block
    close(found, expected, rtol=1e-7, atol=1e-9)


CONVOLUTIONS = {
    "plain": nn.Conv2d(2, 3, 3),
    "stride, padding": nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)),
    "dilation": nn.Conv2d(2, 3, 2, dilation=2),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("layer", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_factors_of_convolutions(layer, weights):
    """Grosse & Martens (2016): sums over places for A, their mean for D, at places found by hand."""
    torch.manual_seed(2)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    model(torch.zeros(1, 2, 6, 5).double())
    some = case(model, (2, 6, 5), 3, weights=weights)
    reference = Reference(some)
    images, d = recorded(some, "0")
    (high, wide), (down, right) = layer.kernel_size, layer.stride
    padded = nn.functional.pad(images, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    apart, places = layer.dilation[0], d.shape[-2:]
    a = [
        [
            torch.stack(
                [
                    image[channel, y * down + apart * i, x * right + apart * j]
                    for channel in range(2)
                    for i in range(high)
                    for j in range(wide)
                ]
            )
            for y in range(places[0])
            for x in range(places[1])
        ]
        for image in padded
    ]
    by_place = d.flatten(3).transpose(2, 3)  # (n, c, places, out)
    expected = defined(a, by_place, reference.a, 3, 2 * high * wide)
    found = matrix_of(puma.KFAC, some.project())
    size = len(expected)
    close(found[:size, :size], expected, rtol=1e-6, atol=1e-9)


def test_groups_and_one_dimension():
    """Each group is a convolution of its own: the same as two that do not know of each other."""
    torch.manual_seed(0)
    grouped = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)).double()
    some = case(grouped, (4, 6), 3)
    found = matrix_of(puma.KFAC, some.project())
    a, d = recorded(some, "0")
    for group in range(2):
        own = a[:, 2 * group : 2 * group + 2]
        seen = [[row[:, t : t + 3].reshape(-1) for t in range(4)] for row in own]
        expected = defined(seen, d[:, :, 3 * group : 3 * group + 3].transpose(2, 3), Reference(some).a, 3, 6)
        where = torch.cat([torch.arange(18) + 18 * group, 36 + torch.arange(3) + 3 * group])
        close(found[where[:, None], where], expected, rtol=1e-6, atol=1e-9)
    assert found[:18, 18:36].abs().max() < 1e-9


class Tokens(nn.Module):
    """A linear layer that meets every row at each of its tokens."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)).mean(1))


def test_tokens_are_places():
    some = case(Tokens(), (5, 3), 3)
    a, d = recorded(some, "inner")
    expected = defined(a, d, Reference(some).a, 4, 3)
    close(matrix_of(puma.KFAC, some.project())[:16, :16], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", BOTH)
def test_norms_keep_their_exact_block(kind):
    reference = Reference(CASES["convolution"])
    norm = slice(20, 24)  # after 2 kernels of 9 with their biases: weight and bias of the norm
    found = matrix_of(kind, reference.case.project())
    close(found[norm, norm], reference.ggn()[norm, norm], rtol=1e-7, atol=1e-9)
    facts = kind()(Engine(reference.case.project())).facts
    assert facts["exact_parameters"] == ["1.weight", "1.bias"]
    assert facts["damping_only"] == []
    assert facts["kronecker_layers"] == 2


class Scaled(nn.Module):
    """A layer passed twice, a parameter of no layer, and one of a kind with a rule."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.twice, self.scale, self.last = nn.Linear(3, 3), nn.Parameter(torch.randn(3)), nn.Linear(3, 3)
        self.double()

    def forward(self, x):
        return self.last(self.scale * torch.tanh(self.twice(torch.tanh(self.twice(x)))))


@pytest.mark.parametrize("kind", BOTH)
def test_what_has_no_rule_keeps_its_exact_block(kind):
    reference = Reference(case(Scaled(), (3,), 3))
    found, ggn = matrix_of(kind, reference.case.project()), reference.ggn()
    rest = slice(0, 15)  # scale, then the layer passed twice
    assert list(reference.shapes)[:3] == ["scale", "twice.weight", "twice.bias"]
    close(found[rest, rest], ggn[rest, rest], rtol=1e-7, atol=1e-9)
    assert found[rest, 15:].abs().max() < 1e-9


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_too_large_is_left_to_the_damping_and_named(kind, monkeypatch):
    monkeypatch.setattr(kronecker, "EXACT", 14)
    monkeypatch.setattr(kronecker, "LARGEST", 3)
    project = case(Scaled(), (3,), 3).project()
    names = ["scale", "twice.weight", "twice.bias", "last.weight", "last.bias"]
    assert kind()(Engine(project)).facts["damping_only"] == names
    assert matrix_of(kind, project).abs().max() < 1e-12
    assert puma.estimate(project, kind()).seconds > 0


# --- EK-FAC ------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_refitted_eigenvalues_are_the_best(name):
    """Among all for the eigenvectors of K-FAC: the diagonal of the dense blocks in that basis."""
    reference = Reference(CASES[name])
    dense = blocks(reference, reference.ggn())
    kfac, ekfac = (matrix_of(kind, reference.case.project()) for kind in BOTH)
    assert (ekfac - dense).norm() <= (kfac - dense).norm() * (1 + 1e-9)
    assert (ekfac - dense).norm() < dense.norm()
    close(ekfac.trace(), dense.trace(), rtol=1e-8, atol=1e-9)
    # What is left is orthogonal to EK-FAC, to K-FAC (the same basis) and to its square.
    for direction in (ekfac, kfac, kfac @ kfac):
        scale = direction.norm() * dense.norm()
        assert abs(float(((dense - ekfac) * direction).sum() / scale)) < 1e-7


def test_refitted_eigenvalues_of_a_linear_layer(monkeypatch):
    """Written out: eigenvectors of the dense factors, then the moments of the dense per-row gradients."""
    reference = Reference(CASES["weighted softmax"])
    a, d = recorded(reference.case, "0")
    ones = torch.cat([a, torch.ones(len(a), 1).double()], 1)
    weights = reference.a
    _, of_a = torch.linalg.eigh(torch.einsum("j,ji,jk->ik", weights, ones, ones))
    _, of_d = torch.linalg.eigh(torch.einsum("j,jci,jck->ik", weights, d, d))
    moments = torch.zeros(5, 4).double()
    for j in range(22):
        for k in range(3):
            moments += weights[j] / 22 * (of_d.T @ d[j, k].outer(ones[j]) @ of_a) ** 2
    basis = torch.kron(of_d, of_a)
    block = torch.empty(20, 20).double()
    order = permuted(5, 3)
    block[order[:, None], order] = basis @ moments.ravel().diag() @ basis.T
    found = matrix_of(puma.EKFAC, reference.case.project())[:20, :20]
    close(found, block, rtol=1e-6, atol=1e-8)


# --- sums over rows, theta, types ------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["weighted softmax", "convolution"])
def test_batch_size_does_not_matter(kind, name, monkeypatch):
    monkeypatch.setattr(kronecker, "MOMENT_NUMBERS", 40)
    project = CASES[name].project()
    whole = matrix_of(kind, project, batch_size=100)
    for size in (1, 7):
        close(matrix_of(kind, project, batch_size=size), whole, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", BOTH)
def test_drawn_columns_stand_for_all(kind, monkeypatch):
    """Many outputs: one column of the root for each row, drawn once whatever the batches are."""
    some = trained(n=3_000)
    full = matrix_of(kind, some.project())
    monkeypatch.setattr(kronecker, "ALL_COLUMNS", 2)
    drawn = matrix_of(kind, some.project(), batch_size=4_096)
    assert 1e-6 < (drawn - full).norm() / full.norm() < 0.1
    close(matrix_of(kind, some.project(), batch_size=700), drawn, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", BOTH)
def test_elsewhere(kind):
    """The blocks at another theta are those of a project whose model is there."""
    some = CASES["weighted softmax"]
    reference = Reference(some)
    theta = reference.theta + 0.3
    v = torch.randn(2, len(theta), generator=torch.Generator().manual_seed(0)).double()
    here = kind(damping=0.05)(Engine(some.project()), theta)(v)
    there = kind(damping=0.05)(Engine(some.but(model=reference.model_at(theta)).project()))(v)
    close(here.x, there.x, rtol=1e-9, atol=1e-10)
    assert here.residual == pytest.approx(there.residual)
    assert not torch.allclose(here.x, kind(damping=0.05)(Engine(some.project()))(v).x)


@pytest.mark.parametrize("kind", BOTH)
def test_single_precision(kind):
    some = case(mlp(3, 5, 3), (3,), 3, weights=WEIGHTS)
    engine = Engine(some.project())
    v = torch.randn(2, len(engine.theta), generator=torch.Generator().manual_seed(0)).double()
    exact = kind(damping=0.05)(engine)(v)
    engine = Engine(some.project())
    engine.dtype, engine.theta, engine.model = torch.float32, engine.theta.float(), engine.model.float()
    found = kind(damping=0.05)(engine)(v.float())
    assert found.x.dtype == torch.float32
    close(found.x.double(), exact.x, rtol=1e-3, atol=1e-4)


# --- what they say and refuse ------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", CASES)
def test_the_residual_is_that_of_the_whole_matrix(kind, name):
    reference = Reference(CASES[name])
    v = torch.randn(3, len(reference.theta), generator=torch.Generator().manual_seed(0)).double()
    inverse = kind(damping=0.05)(Engine(reference.case.project()))
    solution = inverse(v)
    missed = (solution.x @ reference.b(0.05) - v).norm(dim=1) / v.norm(dim=1)
    assert solution.residual == pytest.approx(float(missed.max()))
    assert solution.residual > 0.01
    assert inverse.facts["residual_rows"] == 22


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_is_solved_by_nothing(kind):
    engine = Engine(CASES["softmax"].project())
    solution = kind()(engine)(torch.zeros(1, len(engine.theta)).double())
    assert not solution.x.any()
    assert solution.residual == 0


@pytest.mark.parametrize("kind", BOTH)
def test_singular_blocks_are_refused(kind):
    """Softmax logits may all be shifted: without weight decay and damping D is singular."""
    project = CONVEX["softmax"].project(weight_decay=0.0)
    with pytest.raises(puma.ProjectError, match="damping"):
        puma.value(project, curvature=kind(damping=0.0))


@pytest.mark.parametrize("kind", BOTH)
def test_progress_and_cancellation(kind):
    ticks, stop = [], threading.Event()
    engine = Engine(CASES["softmax"].project(), batch_size=5)
    engine.listen(lambda *told: ticks.append(told), stop)
    kind(damping=0.01)(engine)
    messages = {message for _, _, message in ticks}
    assert messages == {"Kronecker factors"} | ({"Kronecker eigenvalues"} if kind is puma.EKFAC else set())
    assert all(0 <= done < total for done, total, _ in ticks)
    assert len(ticks) == 5 * len(messages)
    stop.set()
    with pytest.raises(puma.Cancelled):
        kind()(engine)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("some", [trained(), case(convolution(), (1, 6, 6), 3, n=60)], ids=["mlp", "cnn"])
def test_psi_is_ordered_much_like_the_exact_one(kind, some):
    scores = puma.value(some.project(), curvature=kind(damping=0.01)).scores
    rank = spearmanr(scores, Reference(some).psi(damping=0.01)).statistic
    assert 0.5 < rank < 1


def test_patches_take_them():
    plan = puma.PatchPlan(remove=(1, 2), hold=("cross_entropy",), steps=2)
    for kind in BOTH:
        patch = puma.patch(trained().project(), plan, curvature=kind(damping=0.1))
        assert math.isfinite(patch.measured["cross_entropy"])
        assert 0 < patch.strength <= 1
