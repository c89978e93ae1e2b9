"""The inverse in sample space, against the dense matrix of the same gradients."""

import pytest
import torch
from torch.autograd.functional import hessian

import puma_dash as puma
from puma_dash.core import layers
from puma_dash.core.curvature import forms, sample_space
from puma_dash.core.curvature.sample_space import Draw, gradients, preconditioner, sample_gram, sample_inverse
from puma_dash.core.engine import Engine

from .cases import CASES, Reference, case, mlp, written

D = 0.07


@pytest.fixture(params=CASES, scope="module")
def made(request):
    return Engine(CASES[request.param].project(), device="cpu"), Reference(CASES[request.param])


def some(engine, k=3):
    return torch.randn(k, len(engine.theta), generator=torch.Generator().manual_seed(0)).double()


def inverse_of(matrix, shift):
    return torch.linalg.inv(matrix + shift * torch.eye(len(matrix)).double())


def test_all_gradients_are_the_gauss_newton_matrix(made):
    engine, reference = made
    (rows, _), gram = gradients(engine, 10_000), sample_gram(engine, 10_000)
    dense = rows.dense()
    torch.testing.assert_close(dense.T @ dense, reference.ggn())
    torch.testing.assert_close(gram, dense @ dense.T)


@pytest.mark.parametrize("balanced", [False, True])
def test_all_gradients_give_the_inverse(made, balanced):
    engine, reference = made
    vectors = some(engine)
    space = sample_inverse(engine, D, 10_000, balanced)
    torch.testing.assert_close(space(vectors), vectors @ inverse_of(reference.ggn(), D))
    rows, _ = gradients(engine, 10_000)
    white = space.whitened(rows)
    products = (rows.gram(rows) - white.T @ white) / D
    dense = rows.dense()
    torch.testing.assert_close(products, dense @ inverse_of(reference.ggn(), D) @ dense.T)


def test_drawn_gradients_are_weighted_columns(made):
    """J_i^T (column k of a root of a_i H_i) / sqrt(n pi), with as many rows as were asked for."""
    engine, reference = made
    rows, _ = gradients(engine, 9)
    draw = Draw.of(engine, 9)
    assert len(rows) == len(draw.rows) == 9
    assert not draw.complete
    assert (draw.rows.diff() >= 0).all()
    z, jacobians = reference.outputs(reference.x).detach(), reference.jacobians(reference.x)
    for i in draw.rows.unique():
        y = reference.y[i : i + 1]
        h = reference.a[i] * hessian(lambda row, y=y: written(reference.case.loss)(row[None], y)[0], z[i])
        own = draw.rows == i
        root = torch.linalg.lstsq(jacobians[i].T, rows.dense()[own].T).solution  # (c, s)
        scaled = root * (engine.n / draw.inverse[own]).sqrt()
        left = h - scaled @ scaled.T  # what the columns that were not drawn would add
        assert torch.linalg.eigvalsh(left).min() > -1e-8
        if own.sum() == len(h):
            torch.testing.assert_close(scaled @ scaled.T, h)


def test_the_preconditioner_is_the_inverse_of_its_gradients(made):
    engine, _ = made
    space, vectors = preconditioner(engine, D, 9), some(engine)
    dense = gradients(engine, 9)[0].dense()
    torch.testing.assert_close(space(vectors), vectors @ inverse_of(dense.T @ dense, space.shift))
    eigenvalues = torch.linalg.eigvalsh(dense @ dense.T) + D
    assert space.shift == pytest.approx(float(eigenvalues.log().mean().exp()))
    assert space.shift >= D


def test_the_sampled_inverse_is_that_of_its_gradients(made):
    engine, _ = made
    space, vectors = sample_inverse(engine, D, 9), some(engine)
    dense = gradients(engine, 9)[0].dense()
    torch.testing.assert_close(space(vectors), vectors @ inverse_of(dense.T @ dense, D))


def test_which_gradients_belong_to_a_row(made):
    engine, _ = made
    draw = Draw.of(engine, 12)
    asked = torch.arange(engine.n).flip(0)
    found = draw.of_rows(asked)
    for row, positions in zip(asked, found, strict=True):
        assert positions[positions >= 0].tolist() == (draw.rows == row).nonzero().ravel().tolist()


@pytest.mark.parametrize("shift", [0.003, 0.03])
@pytest.mark.parametrize("count", [60, 200])
def test_on_average_the_sampled_inverse_is_right(monkeypatch, count, shift):
    """For gradients that were not drawn; F^-1 at d is too large."""
    model = mlp(6, 12, 3, seed=1)
    engine, others = (
        Engine(case(model, (6,), 3, n=300, seed=seed).project(), device="cpu") for seed in (0, 9)
    )
    eye = torch.eye(len(engine.theta)).double()
    ggn, elsewhere = (each.gauss_newton_product()(eye) for each in (engine, others))
    exact = float((inverse_of(ggn, shift) * elsewhere).sum())
    drawn, found, plain = sample_space.systematic, 0.0, 0.0
    for seed in range(8):
        monkeypatch.setattr(sample_space, "systematic", lambda s, m, seed, own=seed: drawn(s, m, own))
        engine.memo.clear()
        space = sample_inverse(engine, shift, count, balanced=True)
        dense = space.rows.dense()
        found += float((space(eye) * elsewhere).sum()) / exact / 8
        plain += float((inverse_of(dense.T @ dense, shift) * elsewhere).sum()) / exact / 8
    assert plain > 1.01
    assert abs(found - 1) < 0.5 * (plain - 1)


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_no_shift_no_inverse(shift):
    engine = Engine(CASES["softmax"].project(), device="cpu")
    assert sample_inverse(engine, shift, 9) is None
    assert preconditioner(engine, shift, 9) is None


def test_no_layer_no_inverse(monkeypatch):
    monkeypatch.setattr("puma_dash.core.layers.ROW_NUMBERS", 0)
    engine = Engine(CASES["softmax"].project(), device="cpu")
    assert sample_inverse(engine, D, 9) is None
    assert preconditioner(engine, D, 9) is None


def test_a_kept_factor_is_that_of_its_own_gradients(monkeypatch):
    """Rounding may draw others in the next process: then what was kept is of no use."""
    kept = {}

    def keep(name, compute):
        return kept[name] if name in kept else kept.setdefault(name, compute())

    def inverse(seed):
        project = CASES["softmax"].project()
        project.memo["store"] = keep
        engine, drawn = Engine(project, device="cpu"), sample_space.systematic
        with monkeypatch.context() as patched:
            patched.setattr(sample_space, "systematic", lambda sizes, m, **_: drawn(sizes, m, seed))
            return preconditioner(engine, D, 9)

    for seed in (0, 1, 0):
        space = inverse(seed)
        dense = space.rows.dense()
        torch.testing.assert_close(
            space.factor @ space.factor.T, dense @ dense.T + space.shift * torch.eye(9).double()
        )
    assert len(kept) == 2


def test_large_layers_are_kept_rather_than_many_gradients(monkeypatch):
    """A layer that is left out would count as one without curvature."""
    engine = Engine(CASES["convolution"].project(), device="cpu")
    monkeypatch.setattr(forms, "FEWEST", 3)
    monkeypatch.setattr(layers, "ROW_NUMBERS", 12 * 60)
    facts = forms.form_of(engine, puma.ConjugateGradient(damping=D), 48).facts
    assert facts["rows"] <= 12
    assert "left_out" not in facts
    monkeypatch.setattr(layers, "ROW_NUMBERS", 3 * 20)
    assert forms.form_of(engine, puma.ConjugateGradient(damping=D), 47).facts["left_out"]
