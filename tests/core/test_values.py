"""psi of several criteria in one pass, layer by layer, against one at a time and against row gradients."""

import time

import numpy as np
import pytest
import torch

import puma_dash as puma
import puma_dash.core.curvature.influence as influence
import puma_dash.core.curvature.streams as streams
from puma_dash.core import layers
from puma_dash.core.curvature.influence import scores
from puma_dash.core.engine import Engine

from .cases import CASES, Reference
from .test_row_gradients import MODELS, made

EXACT = puma.Dense(damping=0.03)
SEVERAL = ("cross_entropy", "brier", puma.CrossEntropy(rows=(1, 4)), puma.Margin())


@pytest.mark.parametrize("curvature", [EXACT, puma.ConjugateGradient(damping=0.03, tolerance=1e-11)])
@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "one logit", "convolution"])
def test_several_at_once_are_one_by_one(name, curvature):
    together = puma.values(CASES[name].project(), SEVERAL, curvature=curvature)
    assert len(together) == len(SEVERAL)
    for criterion in SEVERAL:
        alone = puma.value(CASES[name].project(), criterion=criterion, curvature=curvature)
        found = together[alone.criterion]
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-6, atol=1e-9)
        assert (found.criterion, found.method, found.fingerprint) == (
            alone.criterion,
            alone.method,
            alone.fingerprint,
        )
        assert found.diagnostics["criterion_value"] == pytest.approx(alone.diagnostics["criterion_value"])


@pytest.mark.parametrize("name", ["weighted softmax", "one logit"])
def test_several_at_once_are_those_of_dense_algebra(name):
    found = puma.values(CASES[name].project(), ["cross_entropy", "brier"], curvature=EXACT)
    for key, valuation in found.items():
        expected = Reference(CASES[name]).psi(key, damping=0.03)
        np.testing.assert_allclose(valuation.scores, expected, rtol=1e-7, atol=1e-10)


def test_one_solve_and_one_pass(monkeypatch):
    """And none for what is known; the same criterion twice is one."""
    passes = []
    monkeypatch.setattr(
        influence,
        "scores",
        lambda engine, directions: passes.append(len(directions)) or scores(engine, directions),
    )
    project = CASES["softmax"].project()
    assert set(puma.values(project, ["brier", "cross_entropy", "brier"], curvature=EXACT)) == {
        "brier",
        "cross_entropy",
    }
    assert passes == [2]
    puma.value(project, criterion="brier", curvature=EXACT)
    puma.values(project, ["brier", "margin"], curvature=EXACT)
    assert passes == [2, 1]


@pytest.mark.parametrize("leverage", [False, True])
def test_seconds_are_those_of_computing(monkeypatch, leverage):
    """Of all criteria that shared the pass, and not those of finding the answer again."""
    lasting = 0.2

    def slow(engine, directions):
        time.sleep(lasting)
        return scores(engine, directions)

    monkeypatch.setattr(influence, "scores", slow)
    project, method = CASES["softmax"].project(), puma.Psi(leverage=leverage)
    together = puma.values(project, ["brier", "cross_entropy"], curvature=EXACT)
    first = together["brier"].diagnostics
    assert lasting < first["seconds"] == together["cross_entropy"].diagnostics["seconds"]
    assert first["criteria"] == 2
    again = puma.value(project, method, "brier", curvature=EXACT).diagnostics
    assert again["seconds"] == first["seconds"] if not leverage else again["seconds"] > first["seconds"]
    assert again["factor_seconds"] == first["factor_seconds"]


def test_factoring_is_told_apart_with_its_calibration():
    """Together they are what the first call took."""
    project, begin = CASES["softmax"].project(), time.perf_counter()
    told = puma.value(project, curvature=puma.ConjugateGradient()).diagnostics
    whole = time.perf_counter() - begin
    assert 0.3 * whole < told["seconds"] + told["factor_seconds"] <= whole


def test_nothing_asked_nothing_said():
    assert puma.values(CASES["softmax"].project(), []) == {}


def by_layer_only(monkeypatch):
    monkeypatch.setattr(
        Engine, "directional_scores", lambda *_, **__: pytest.fail("not scored layer by layer")
    )


def of(case, k=3, batch_size=4):
    """An engine, directions (k, p), and what rows score along them."""
    reference = Reference(case)
    s = torch.randn(k, len(reference.theta), generator=torch.Generator().manual_seed(0)).double()
    return Engine(case.project(), batch_size=batch_size), s, s @ reference.gradients().T


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("name", CASES)
def test_scores_layer_by_layer(monkeypatch, name, k):
    engine, s, expected = of(CASES[name], k)
    torch.testing.assert_close(engine.directional_scores(s), expected)
    by_layer_only(monkeypatch)
    torch.testing.assert_close(scores(engine, s), expected)


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_layers_with_a_rule_and_of_the_rest(monkeypatch, name):
    case = made(name).but(weights=np.resize([1.0, 0.5, 2.0, 0.0, 1.5], 9))
    engine, s, expected = of(case)
    by_layer_only(monkeypatch)
    torch.testing.assert_close(scores(engine, s), expected)


@pytest.mark.parametrize("name", ["conv2d", "used elsewhere"])
def test_what_is_too_large_by_row_is_scored_in_forward_mode(monkeypatch, name):
    case = made(name).but(weights=np.resize([1.0, 0.5, 2.0], 9))
    engine, s, expected = of(case)
    monkeypatch.setattr(layers, "ROW_NUMBERS", 4 * 9)
    assert layers.Layout.of(engine, 4).missing
    torch.testing.assert_close(scores(engine, s), expected)
    by_layer_only(monkeypatch)
    with pytest.raises(pytest.fail.Exception):
        scores(engine, s)


def test_one_direction_is_scored_in_forward_mode(monkeypatch):
    """Cheaper for one."""
    engine, s, expected = of(CASES["weighted softmax"], 1)
    monkeypatch.setattr(streams, "Recording", lambda *_: pytest.fail("recorded"))
    torch.testing.assert_close(scores(engine, s), expected)
