"""Losses and their curvature in the outputs against autograd; sums over rows against the written-out J."""

import functools

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

import puma_dash as puma
from puma_dash.core import objective
from puma_dash.core.engine import Engine

from .cases import CASES, Reference, bregman, ignorance, written

close = torch.testing.assert_close
ROWS = 12


FOUR, TWO = (0.5, 3.0, 1.0, 2.0), (0.3, 2.5)
SETTINGS = {
    "cross-entropy": puma.SoftmaxCrossEntropy(),
    "smoothed": puma.SoftmaxCrossEntropy(label_smoothing=0.2),
    "class weights": puma.SoftmaxCrossEntropy(class_weights=FOUR),
    "smoothed with class weights": puma.SoftmaxCrossEntropy(label_smoothing=0.2, class_weights=FOUR),
    "one logit": puma.BinaryCrossEntropy(),
    "one logit, smoothed": puma.BinaryCrossEntropy(label_smoothing=0.2),
    "one logit, class weights": puma.BinaryCrossEntropy(class_weights=TWO),
    "one logit, both": puma.BinaryCrossEntropy(label_smoothing=0.2, class_weights=TWO),
    "squared error": puma.SquaredError(),
}


@pytest.fixture(params=SETTINGS)
def loss(request):
    """A loss, outputs of some and of great certainty, and targets."""
    loss, generator = SETTINGS[request.param], torch.Generator().manual_seed(0)
    width = 1 if isinstance(loss, puma.BinaryCrossEntropy) else 4
    outputs = 2 * torch.randn(ROWS, width, generator=generator).double()
    outputs[:3] *= 4
    if isinstance(loss, puma.SquaredError):
        return loss, outputs, torch.randn(ROWS, 4, generator=generator).double()
    return loss, outputs, torch.arange(ROWS) % max(width, 2)


def hessians(loss, outputs, targets):
    """(b, c, c): by differentiating twice, row by row."""
    alone = [functools.partial(written(loss), y=targets[j : j + 1]) for j in range(len(outputs))]
    return torch.stack(
        [hessian(lambda z, one=one: one(z[None])[0], row) for one, row in zip(alone, outputs, strict=True)]
    )


def test_values(loss):
    loss, outputs, targets = loss
    close(loss(outputs, targets), written(loss)(outputs, targets))


def torch_says(loss, reduction, two=False):
    """The same loss by PyTorch; ``two`` gives that of one logit in the form for two classes."""
    weights = None if loss.class_weights is None else torch.tensor(loss.class_weights).double()
    if isinstance(loss, puma.SoftmaxCrossEntropy) or two:
        told = {"weight": weights, "label_smoothing": loss.label_smoothing}
        return torch.nn.CrossEntropyLoss(**told, reduction=reduction)
    return torch.nn.BCEWithLogitsLoss(pos_weight=weights[1] / weights[0], reduction=reduction)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "squared error"])
def test_values_are_those_of_pytorch(name):
    loss, y = SETTINGS[name], torch.arange(ROWS) % 2
    z = 3 * torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1)).double()
    if isinstance(loss, puma.BinaryCrossEntropy):
        z = z[:, :1]
        both = torch.cat([torch.zeros_like(z), z], 1)
        close(loss(z, y), torch_says(loss, "none", two=True)(both, y))
    else:
        close(loss(z, y), torch_says(loss, "none")(z, y))


def test_class_weights_of_one_logit_are_its_pos_weight():
    z, y = torch.randn(ROWS, 1).double(), torch.arange(ROWS) % 2
    loss = puma.BinaryCrossEntropy(class_weights=(1.0, 4.0))
    close(loss(z, y), torch_says(loss, "none")(z[:, 0], y.double()))


@pytest.mark.parametrize("weights", [FOUR, (0.4, 0.8, 1.2, 1.6)], ids=["any", "1 on average"])
def test_the_mean_of_pytorch_divides_by_the_weights_of_the_labels(weights):
    """Its J is ours times n / sum w, with weight decay wd mean w: the same where weights average 1."""
    loss = puma.SoftmaxCrossEntropy(class_weights=weights, label_smoothing=0.1)
    z, y, wd = torch.randn(ROWS, 4).double(), torch.arange(ROWS) % 4, 0.3
    mean = torch.tensor(weights).double()[y].mean()
    theirs = torch_says(loss, "mean")(z, y) + wd / 2 * z.square().sum()
    ours = loss(z, y).mean() + wd * mean / 2 * z.square().sum()
    close(theirs * mean, ours)


def test_products_and_roots(loss):
    loss, outputs, targets = loss
    h, v = hessians(loss, outputs, targets), torch.randn(outputs.shape).double()
    root = loss.hessian_root(outputs, targets)
    close(root @ root.mT, h)
    close(loss.hessian_product(outputs, targets, v), (h @ v[:, :, None])[:, :, 0])


def test_columns_add_up_to_the_hessian(loss):
    loss, outputs, targets = loss
    numbers = range(outputs.shape[1])
    columns = torch.stack([loss.root_columns(outputs, targets, torch.full((ROWS,), k)) for k in numbers], 2)
    close(columns @ columns.mT, hessians(loss, outputs, targets))
    close(columns, loss.hessian_root(outputs, targets).expand_as(columns))
    close(loss.root_sizes(outputs, targets), columns.square().sum(1))


def test_every_row_has_its_own_column(loss):
    loss, outputs, targets = loss
    chosen = torch.arange(ROWS).flip(0) % outputs.shape[1]
    root = loss.hessian_root(outputs, targets)
    close(loss.root_columns(outputs, targets, chosen), root[torch.arange(ROWS), :, chosen])


def test_the_divergence_is_that_of_bregman(loss):
    """What of the loss lies above its tangent at the reference."""
    loss, outputs, targets = loss
    here = outputs.roll(1, 0)
    close(loss.divergence(here, outputs, targets), bregman(loss, here, outputs, targets))


def test_what_knows_nothing_loses(loss):
    loss, outputs, targets = loss
    classes = max(outputs.shape[1], 2)
    found = objective.ignorance(loss, targets, classes if targets.ndim == 1 else 0)
    assert found == pytest.approx(ignorance(loss, targets, classes))


def test_criteria_take_the_plain_loss(loss):
    loss, outputs, targets = loss
    kind = puma.MeanSquaredError if isinstance(loss, puma.SquaredError) else puma.CrossEntropy
    data = puma.Split(torch.zeros(ROWS, 1), targets)
    close(kind()(outputs, data, loss), written(type(loss)())(outputs, targets).mean())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (puma.SoftmaxCrossEntropy(), "cross-entropy"),
        (puma.BinaryCrossEntropy(label_smoothing=0.1), "binary cross-entropy; label smoothing 0.1"),
        (
            puma.SoftmaxCrossEntropy(label_smoothing=0.1, class_weights=np.float32([1, 2.5])),
            "cross-entropy; label smoothing 0.1; class weights 1, 2.5",
        ),
    ],
)
def test_a_loss_says_what_it_is(given, told):
    assert str(given) == told
    assert given == eval(repr(given), vars(puma))


def test_losses_differ_by_their_fields():
    made = {
        CASES["softmax"].project(loss=loss).fingerprint
        for loss in (
            "cross_entropy",
            puma.SoftmaxCrossEntropy(label_smoothing=0.1),
            puma.SoftmaxCrossEntropy(label_smoothing=0.2),
            puma.SoftmaxCrossEntropy(class_weights=(1, 1, 2)),
            puma.SoftmaxCrossEntropy(class_weights=(1, 2, 1)),
        )
    }
    assert len(made) == 5
    same = [
        CASES["softmax"].project(loss=loss).fingerprint
        for loss in (
            "cross_entropy",
            puma.SoftmaxCrossEntropy(),
        )
    ]
    assert same[0] == same[1]


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
