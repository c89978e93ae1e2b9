"""Self-influence of all rows, against dense algebra row by row."""

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.curvature.forms import form_of
from puma_dash.core.engine import Engine
from puma_dash.core.valuation.self_influence import self_influence

from .cases import CASES, Case, Reference, case, mlp
from .test_architectures import ARCHITECTURES, Recurrent, text

DENSE = puma.Dense(damping=0.05)
SAMPLED = puma.ConjugateGradient(damping=0.05, tolerance=1e-10)


def truth(case, damping=0.05) -> torch.Tensor:
    """(n, n): a_i a_j g_i^T B^-1 g_j."""
    reference = Reference(case)
    gradients = reference.gradients()
    return gradients @ torch.linalg.solve(reference.b(damping), gradients.T)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("curvature", [DENSE, SAMPLED], ids=["dense", "all gradients in sample space"])
def test_dense_algebra(name, curvature):
    """M = n c gradients are the Gauss-Newton matrix itself."""
    expected = -truth(CASES[name]).diagonal()
    valuation = puma.value(CASES[name].project(), "self_influence", curvature=curvature)
    np.testing.assert_allclose(valuation.scores, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name):
    """Layers with and without a rule; those that nothing can take row by row are named."""
    start = ARCHITECTURES[name]()
    if isinstance(getattr(start.model, "mix", None), Recurrent):
        with pytest.raises(puma.ProjectError, match=r"mix\.lstm\.weight_ih_l0.*parameters=\"last\""):
            puma.value(start.project(), "self_influence", curvature=SAMPLED)
        return
    scores = puma.value(start.project(), "self_influence", curvature=SAMPLED).scores
    np.testing.assert_allclose(scores, -truth(start).diagonal(), rtol=1e-7, atol=1e-9)


def test_the_last_layer_only():
    start = text(Recurrent)
    reference = Reference(start)
    found = puma.value(start.project(), "self_influence", curvature=SAMPLED, parameters="last")
    head = torch.cat([torch.full((s.numel(),), k.startswith("head")) for k, s in reference.shapes.items()])
    gradients, b = reference.gradients()[:, head], reference.b(0.05)[head][:, head]
    expected = -(gradients * torch.linalg.solve(b, gradients.T).T).sum(1)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-7)


@pytest.mark.parametrize("curvature", [DENSE, SAMPLED])
@pytest.mark.parametrize("rows", [None, 9])
def test_batch_size_does_not_matter(curvature, rows):
    project = CASES["convolution"].project()
    found = []
    for batch_size in (1, 7, None):
        engine = Engine(project, device="cpu", batch_size=batch_size)
        found.append(self_influence(engine, form_of(engine, curvature, rows)))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


@pytest.mark.parametrize("curvature", [DENSE, SAMPLED])
def test_duplicates_are_equal(curvature):
    start = CASES["softmax"].rows(np.r_[:22, 3, 3])
    scores = puma.value(start.project(), "self_influence", curvature=curvature).scores
    assert scores[3] == pytest.approx(scores[22]) == pytest.approx(scores[23])


@pytest.fixture(scope="module")
def large() -> Case:
    """A network on noisy labels with more gradients than are drawn."""
    return case(mlp(6, 16, 3, seed=1), (6,), 3, n=400, weight_decay=0.002)


@pytest.mark.parametrize(("rows", "correlation", "scale"), [(200, 0.95, 0.5), (600, 0.98, 0.2)])
def test_a_sample_of_the_gradients_comes_close(large, rows, correlation, scale):
    exact = truth(large, 0.01).diagonal().numpy()
    valuation = puma.value(
        large.project(), puma.SelfInfluence(rows=rows), curvature=puma.ConjugateGradient(damping=0.01)
    )
    assert np.corrcoef(np.log(-valuation.scores), np.log(exact))[0, 1] > correlation
    assert np.median(-valuation.scores / exact) == pytest.approx(1, abs=scale)
    assert valuation.diagnostics["rows"] == rows


def test_the_reported_error_is_that_of_the_checked_rows(large):
    exact = truth(large, 0.01).diagonal().numpy()
    method = puma.SelfInfluence(rows=300, checked=40)
    curvature = puma.ConjugateGradient(damping=0.01, tolerance=1e-8)
    valuation = puma.value(large.project(), method, curvature=curvature)
    told = valuation.diagnostics
    ratio = (-valuation.scores / exact)[told["checked_rows"]]
    assert len(set(told["checked_rows"])) == 40
    assert told["checked_ratio"] == pytest.approx(np.median(ratio), rel=1e-6)
    low, high = np.quantile(ratio, [0.1, 0.9])
    assert told["checked_spread"] == pytest.approx(high / low, rel=1e-6)
    assert told["checked_spearman"] > 0.9


def test_no_check_where_none_is_wanted_or_needed():
    project = CASES["softmax"].project()
    for method, curvature in ((puma.SelfInfluence(checked=0), SAMPLED), ("self_influence", DENSE)):
        assert "checked_rows" not in puma.value(project, method, curvature=curvature).diagnostics


def test_a_wrong_label_stands_out():
    x, y = (part.copy() for part in CASES["softmax"].train)
    x = x + 6 * np.eye(3)[y]
    wrong = case(nn.Sequential(nn.Linear(3, 3)).double(), (3,), 3).but(train=(x, y))
    y[4] = (y[4] + 1) % 3
    fitted = wrong.but(model=Reference(wrong).model_at(Reference(wrong).minimise()))
    assert puma.value(fitted.project(), "self_influence").harmful(1) == [4]


def test_the_exact_hessian_needs_the_dense_matrix():
    project = CASES["softmax"].project()
    with pytest.raises(puma.ProjectError, match="Gauss-Newton"):
        puma.value(project, "self_influence", curvature=puma.ConjugateGradient(matrix="hessian"))
    exact = puma.value(project, "self_influence", curvature=puma.Dense(damping=1.0, matrix="hessian")).scores
    reference = Reference(CASES["softmax"])
    g = reference.gradients()
    expected = (g * torch.linalg.solve(reference.b(1.0, "hessian"), g.T).T).sum(1)
    np.testing.assert_allclose(-exact, expected, rtol=1e-7)
