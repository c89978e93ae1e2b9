"""Losses and their curvature in the outputs against autograd; sums over rows against the written-out J."""

import functools

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from puma_dash.core.engine import Engine
from puma_dash.core.objective import LOSSES

from .cases import CASES, LOSS, Reference

close = torch.testing.assert_close
ROWS = 12


@pytest.fixture(params=LOSSES)
def loss(request):
    """A loss, outputs of some and of great certainty, and targets."""
    generator = torch.Generator().manual_seed(0)
    width = 1 if request.param == "binary_cross_entropy" else 4
    outputs = 2 * torch.randn(ROWS, width, generator=generator).double()
    outputs[:3] *= 4
    targets = {
        "cross_entropy": torch.arange(ROWS) % 4,
        "binary_cross_entropy": torch.arange(ROWS) % 2,
        "squared_error": torch.randn(ROWS, 4, generator=generator).double(),
    }[request.param]
    return request.param, LOSSES[request.param](), outputs, targets


def hessians(name, outputs, targets):
    """(b, c, c): by differentiating twice, row by row."""
    alone = [functools.partial(LOSS[name], y=targets[j : j + 1]) for j in range(len(outputs))]
    return torch.stack(
        [hessian(lambda z, one=one: one(z[None])[0], row) for one, row in zip(alone, outputs, strict=True)]
    )


def test_values(loss):
    name, loss, outputs, targets = loss
    close(loss(outputs, targets), LOSS[name](outputs, targets))


def test_products_and_roots(loss):
    name, loss, outputs, targets = loss
    h, v = hessians(name, outputs, targets), torch.randn(outputs.shape).double()
    root = loss.hessian_root(outputs)
    close(root @ root.mT, h)
    close(loss.hessian_product(outputs, v), (h @ v[:, :, None])[:, :, 0])


def test_columns_add_up_to_the_hessian(loss):
    name, loss, outputs, targets = loss
    numbers = range(outputs.shape[1])
    columns = torch.stack([loss.root_columns(outputs, torch.full((ROWS,), k)) for k in numbers], 2)
    close(columns @ columns.mT, hessians(name, outputs, targets))
    close(columns, loss.hessian_root(outputs).expand_as(columns))
    close(loss.root_sizes(outputs), columns.square().sum(1))


def test_every_row_has_its_own_column(loss):
    _, loss, outputs, _ = loss
    chosen = torch.arange(ROWS).flip(0) % outputs.shape[1]
    root = loss.hessian_root(outputs)
    close(loss.root_columns(outputs, chosen), root[torch.arange(ROWS), :, chosen])


@pytest.fixture(params=CASES)
def reference(request):
    return Reference(CASES[request.param])


@pytest.mark.parametrize("rows", [None, [9, 2, 3, 2, 14]])
def test_weighted_loss_and_its_gradient(reference, rows):
    engine = Engine(reference.case.project(), batch_size=4)
    index = torch.arange(reference.n) if rows is None else torch.tensor(rows)
    w = torch.randn(len(index), generator=torch.Generator().manual_seed(0)).double()
    w[1] = 0
    theta = reference.theta + 0.1

    def total(t):
        return (w * reference.a[index]) @ reference.losses(reference.x[index], reference.y[index], t)

    given = None if rows is None else index
    value, gradient = engine.weighted_loss(w, given, theta=theta)
    assert value == pytest.approx(float(total(theta)), rel=1e-12)
    close(gradient, jacobian(total, theta))
    alone, nothing = engine.weighted_loss(w, given, theta=theta, gradient=False)
    assert alone == pytest.approx(value, rel=1e-12)
    assert len(nothing) == 0
    assert engine.weighted_loss(w, given)[0] == pytest.approx(float(total(reference.theta)), rel=1e-12)


def test_weighted_loss_with_other_labels(reference):
    engine = Engine(reference.case.project(), batch_size=4)
    rows, targets = torch.tensor([9, 2, 3]), reference.y.flip(0)[:3]
    w = torch.tensor([1.0, -2.0, 0.5]).double()

    def total(t):
        return (w * reference.a[rows]) @ reference.losses(reference.x[rows], targets, t)

    value, gradient = engine.weighted_loss(w, rows, targets=targets)
    assert value == pytest.approx(float(total(reference.theta)), rel=1e-12)
    close(gradient, jacobian(total, reference.theta))
    close(engine.losses(rows, targets=targets) @ w, total(reference.theta))


def test_nothing_weighs_nothing(reference):
    value, gradient = Engine(reference.case.project()).weighted_loss(torch.zeros(reference.n))
    assert value == 0
    assert not gradient.any()
    assert len(gradient) == len(reference.theta)


@pytest.mark.parametrize("rows", [None, [9, 2, 3, 2, 14]])
def test_the_total_of_a_function_of_outputs(reference, rows):
    """Of any: here one that knows which of the rows it is given."""
    engine = Engine(reference.case.project(), batch_size=3)
    index = torch.arange(reference.n) if rows is None else torch.tensor(rows)
    scale, theta = torch.linspace(-1, 2, len(index)).double(), reference.theta - 0.1

    def total(t):
        return scale @ reference.outputs(reference.x[index], t).square().sum(1)

    value, gradient = engine.total(
        lambda outputs, part: scale[part] * outputs.square().sum(1),
        None if rows is None else index,
        theta=theta,
    )
    assert value == pytest.approx(float(total(theta)), rel=1e-12)
    close(gradient, jacobian(total, theta))
