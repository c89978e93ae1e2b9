"""Products of rows with themselves under sampled gradients: a row's own share of B, by dense algebra."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.curvature.forms import form_of
from puma_dash.core.curvature.sample_space import Draw, gradients, sample_gram
from puma_dash.core.curvature.streams import Stream
from puma_dash.core.engine import Engine
from puma_dash.core.valuation.leverage import corrected_psi, over_own
from puma_dash.core.valuation.self_influence import self_influence

from .cases import CASES, Reference
from .test_leverage import own_curvature

SAMPLED = puma.ConjugateGradient(damping=0.05)


class Dense:
    """F of 20 gradients without those of each row, as matrices."""

    def __init__(self, name, balanced):
        self.balanced = balanced
        self.reference = Reference(CASES[name])
        self.engine = Engine(CASES[name].project(), device="cpu")
        self.form = form_of(self.engine, SAMPLED, 20, balanced)
        (rows, _), gram = gradients(self.engine, 20), sample_gram(self.engine, 20)
        shift = self.form.space.shift
        lifted = (self.form.space.factor @ self.form.space.factor.T - gram).diagonal()
        self.w = float(lifted.mean()) / shift  # what stands under the factor in place of d
        eye = torch.eye(len(self.engine.theta)).double()
        drawn = Draw.of(self.engine, 20).rows
        assert len(drawn) == 20
        assert len(drawn.unique()) < self.engine.n
        others = [rows.dense()[drawn != i] for i in range(self.engine.n)]
        self.inverse = [self.w * torch.linalg.inv(j.T @ j + self.w * shift * eye) for j in others]
        self.with_own = [
            torch.linalg.inv(torch.linalg.inv(f) + own_curvature(self.reference, i))
            for i, f in enumerate(self.inverse)
        ]


@pytest.fixture(
    params=[(name, balanced) for name in CASES for balanced in (False, True)], scope="module", ids=str
)
def dense(request):
    return Dense(*request.param)


def test_balance(dense):
    """w is 1, or the mean of (1 + pi t) / (1 + t) over the gradients, t = g^T F^-1 g at w d without g."""
    rows, _ = gradients(dense.engine, 20)
    j, chances = rows.dense(), 1 / Draw.of(dense.engine, 20).inverse
    floor = dense.w * dense.form.space.shift * torch.eye(j.shape[1]).double()
    others = [torch.cat([j[:k], j[k + 1 :]]) for k in range(20)]
    t = torch.stack(
        [g @ torch.linalg.solve(rest.T @ rest + floor, g) for g, rest in zip(j, others, strict=True)]
    )
    mean = float(((1 + chances * t) / (1 + t)).mean())
    assert mean < 0.999
    assert dense.w == pytest.approx(mean if dense.balanced else 1, rel=1e-3)


def test_blocks_leave_out_what_the_row_added(dense):
    stream = Stream(dense.engine, dense.engine.split("train"), parts=2)
    n, c = dense.reference.outputs(dense.reference.x).shape

    def blocks(part):
        recording = stream.recording(part)
        units = torch.eye(c).double()[:, None].expand(c, part.stop - part.start, c)
        parts = [stream.pulled(recording, unit) for unit in units]
        return dense.form.blocks(parts, torch.arange(n)[part])

    jacobians = dense.reference.jacobians(dense.reference.x)
    expected = [j @ f @ j.T for j, f in zip(jacobians, dense.inverse, strict=True)]
    torch.testing.assert_close(torch.cat(stream.over(blocks)), torch.stack(expected), rtol=1e-6, atol=1e-8)


def test_leverage_adds_the_share_as_it_is(dense):
    reference, index = dense.reference, torch.arange(dense.engine.n)
    found = over_own(dense.engine, dense.form, index, lambda part, z, own, curved: (own * curved).sum((1, 2)))
    expected = [float((f * own_curvature(reference, i)).sum()) for i, f in enumerate(dense.with_own)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    chosen = over_own(
        dense.engine,
        dense.form,
        torch.tensor([7, 2]),
        lambda part, z, own, curved: (own * curved).sum((1, 2)),
    )
    np.testing.assert_allclose(chosen, np.array(expected)[[7, 2]], rtol=1e-6, atol=1e-9)


def test_corrected_removals(dense):
    """s^T J_j^T (I - C_j K_jj)^-1 v_j: with the share taken out again only that of the others is left."""
    reference = dense.reference
    s = torch.randn(len(reference.theta), generator=torch.Generator().manual_seed(0)).double()
    expected = []
    for i, (with_own, g) in enumerate(zip(dense.with_own, reference.gradients(), strict=True)):
        own = own_curvature(reference, i)
        eye = torch.eye(len(own)).double()
        expected.append(float(s @ torch.linalg.solve(eye - own @ with_own, g)))
    np.testing.assert_allclose(corrected_psi(dense.engine, dense.form, s), expected, rtol=1e-6, atol=1e-8)


def test_self_influence_adds_the_share_along_its_gradient(dense):
    """Exact for one output; for more the share is known along the gradient only."""
    g = dense.reference.gradients()
    exact = torch.stack([row @ f @ row for row, f in zip(g, dense.with_own, strict=True)])
    without = torch.stack([row @ f @ row for row, f in zip(g, dense.inverse, strict=True)])
    found = self_influence(dense.engine, dense.form)
    if dense.reference.outputs(dense.reference.x).shape[1] == 1:
        torch.testing.assert_close(found, exact)
    counted = without > 0
    error = (found[counted] / exact[counted]).log().abs()
    assert error.mean() < 0.5 * (without[counted] / exact[counted]).log().abs().mean()


@pytest.mark.parametrize("name", CASES)
def test_when_a_draw_is_complete(name):
    engine, reference = Engine(CASES[name].project(), device="cpu"), Reference(CASES[name])
    there = int((reference.a > 0).sum()) * reference.outputs(reference.x).shape[1]
    assert [Draw.of(engine, count).complete for count in (there - 1, there, there + 1)] == [False, True, True]
