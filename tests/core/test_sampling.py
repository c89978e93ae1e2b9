"""Which rows stand for all: fixed size, stated chances, sums right on average."""

import numpy as np
import pytest
import torch

from puma_dash.core.curvature.sampling import curvature_shares, sample_rows, systematic
from puma_dash.core.engine import Engine

from .cases import CASES, Reference

SIZES = torch.tensor([0.1, 3.0, 0.5, 0.0, 1.0, 40.0, 0.7, 2.0, 1.3, 0.4], dtype=torch.float64)
SEEDS = range(3_000)


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_as_many_as_asked_for_each_once(count):
    for seed in range(30):
        items, inverse = systematic(SIZES, count, seed)
        assert len(items) == len(inverse) == count
        assert items.tolist() == sorted(set(items.tolist()))
        assert (inverse >= 1 - 1e-12).all()
        assert 3 not in items  # of size 0


def test_large_items_are_certain():
    for seed in range(20):
        items, inverse = systematic(SIZES, 4, seed)
        chance = dict(zip(items.tolist(), 1 / inverse, strict=True))
        assert chance[5] == 1  # 40 of 49: more than a quarter
        rest = SIZES.sum() - 40
        for item in set(chance) - {5}:
            expected = min(1.0, float(3 * SIZES[item] / rest))
            assert chance[item] == pytest.approx(expected)


def test_certainty_may_follow_from_certainty():
    """Without the largest, the second largest would be drawn more than once as well."""
    items, inverse = systematic(torch.tensor([100.0, 10.0, 1.0, 1.0, 1.0]).double(), 3, seed=0)
    assert {0, 1} <= set(items.tolist())
    assert inverse.tolist() == pytest.approx([1, 1, 3])


def test_all_of_them():
    items, inverse = systematic(SIZES, 9, seed=0)
    assert items.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]  # but for the one of size 0
    assert inverse.tolist() == pytest.approx([1] * 9)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_chances_are_as_stated_and_sums_unbiased(count):
    values = torch.linspace(-1, 2, len(SIZES)).double()
    often, total = torch.zeros_like(SIZES), 0.0
    stated = torch.zeros_like(SIZES)
    for seed in SEEDS:
        items, inverse = systematic(SIZES, count, seed)
        often[items] += 1 / len(SEEDS)
        stated[items] = 1 / inverse
        total += float((values[items] * inverse).sum()) / len(SEEDS)
    torch.testing.assert_close(often, stated, atol=0.03, rtol=0)  # 4 standard errors
    spread = float((values[SIZES > 0].square() / stated[SIZES > 0]).sum().sqrt())
    assert total == pytest.approx(float(values[SIZES > 0].sum()), abs=4 * spread / len(SEEDS) ** 0.5)


@pytest.mark.parametrize("name", CASES)
def test_shares_are_the_traces_of_the_loss_curvature(name):
    case = CASES[name]
    reference, shares = Reference(case), curvature_shares(Engine(case.project(), device="cpu"))
    assert shares.shape == (reference.n, reference.outputs(reference.x).shape[1])
    z = reference.outputs(reference.x).detach()
    for j in range(reference.n):
        h = torch.autograd.functional.hessian(lambda row, j=j: _loss(reference, row, j), z[j])
        assert float(shares[j].sum()) == pytest.approx(float(reference.a[j] * h.trace()))


def _loss(reference, row, j):
    from .cases import written

    return written(reference.case.loss)(row[None], reference.y[j : j + 1])[0]


@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "regression"])
def test_products_of_drawn_rows_are_right_on_average(name):
    case = CASES[name]
    engine, reference = Engine(case.project(), device="cpu"), Reference(case)
    v = torch.randn(1, len(engine.theta), generator=torch.Generator().manual_seed(0)).double()
    draws = torch.cat([engine.gauss_newton_product(*sample_rows(engine, 8, seed))(v) for seed in range(200)])
    exact = reference.ggn() @ v[0]
    error = float((draws.mean(0) - exact).norm())
    assert error < 3 * float((draws - exact).norm(dim=1).square().mean().sqrt()) / 200**0.5
    assert error < 0.15 * float(exact.norm())


def test_all_rows_count_once():
    engine = Engine(CASES["softmax"].project(), device="cpu")
    for count in (engine.n, engine.n + 5):
        rows, weights = sample_rows(engine, count, seed=1)
        np.testing.assert_array_equal(rows, np.arange(engine.n))
        assert (weights == 1).all()


def test_every_row_has_a_chance():
    """Also where the model is certain: its share there is 0."""
    case = CASES["softmax"]
    engine = Engine(case.project(), device="cpu")
    curvature_shares(engine)[:5] = 0.0
    seen = torch.zeros(engine.n)
    for seed in range(300):
        rows, _ = sample_rows(engine, 4, seed)
        seen[rows] += 1
    assert (seen > 0).all()
    assert seen[:5].max() < seen[5:].min()
