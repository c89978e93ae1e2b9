"""Pairwise influence, against dense algebra and psi."""

import functools

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.valuation import pairwise

from .cases import CASES, Reference
from .test_architectures import Recurrent, text

DENSE = puma.Dense(damping=0.05)
ITERATED = puma.ConjugateGradient(damping=0.05, tolerance=1e-11)


def truth(case, damping=0.05) -> np.ndarray:
    """(m, n): grad l_t^T B^-1 a_i grad l_i."""
    reference = Reference(case)
    losses = functools.partial(reference.plain_losses, *map(torch.as_tensor, case.validation))
    validation = torch.autograd.functional.jacobian(losses, reference.theta)
    return (validation @ torch.linalg.solve(reference.b(damping), reference.gradients().T)).numpy()


WAYS = {"solved": (32, ITERATED), "dense": (0, DENSE), "solved densely": (32, DENSE), "grams": (0, ITERATED)}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    solved, curvature = WAYS[request.param]
    monkeypatch.setattr(pairwise, "SOLVED", solved)
    return curvature


@pytest.mark.parametrize("name", CASES)
def test_dense_algebra(name, way):
    found = puma.pairwise_influence(CASES[name].project(), curvature=way)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, truth(CASES[name]), rtol=1e-6, atol=1e-8)


def test_chosen_rows_in_the_order_given(way):
    expected, project = truth(CASES["weighted softmax"]), CASES["weighted softmax"].project()
    found = puma.pairwise_influence(project, [4, 1], [9, 0, 2], curvature=way)
    np.testing.assert_allclose(found, expected[np.ix_([4, 1], [9, 0, 2])], rtol=1e-6, atol=1e-8)
    mask = np.isin(np.arange(22), [2, 5])
    found = puma.pairwise_influence(project, puma.Selection([3]), mask, curvature=way)
    np.testing.assert_allclose(found, expected[np.ix_([3], [2, 5])], rtol=1e-6, atol=1e-8)


def test_weights_of_evaluation_rows_play_no_part(way):
    start = CASES["weighted softmax"]
    weighted = start.project(validation=puma.Split(*start.validation, weights=np.linspace(0.5, 2, 15)))
    found = puma.pairwise_influence(weighted, curvature=way)
    np.testing.assert_allclose(found, truth(start), rtol=1e-6, atol=1e-8)


def test_which_evaluation_rows_one_training_row_harms(way):
    found = puma.pairwise_influence(CASES["softmax"].project(), train_rows=[7], curvature=way)
    assert found.shape == (15, 1)
    np.testing.assert_allclose(found[:, 0], truth(CASES["softmax"])[:, 7], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "kind"), [("weighted softmax", puma.CrossEntropy), ("regression", puma.MeanSquaredError)]
)
def test_the_mean_is_psi(name, kind, way):
    project = CASES[name].project()
    found = puma.pairwise_influence(project, curvature=way)
    rows = puma.value(project, criterion=kind(rows=(3,)), curvature=way).scores
    np.testing.assert_allclose(found[3], rows, rtol=1e-6, atol=1e-9)
    every = puma.value(project, criterion=kind(), curvature=way).scores
    np.testing.assert_allclose(found.mean(0), every, rtol=1e-6, atol=1e-9)


def test_on_the_training_rows_it_is_symmetric_with_self_influence_on_its_diagonal(way):
    project = CASES["softmax"].project()
    found = puma.pairwise_influence(project, split="train", curvature=way)
    np.testing.assert_allclose(found, found.T, rtol=1e-6, atol=1e-8)
    own = puma.value(project, "self_influence", curvature=way).scores
    np.testing.assert_allclose(found.diagonal(), -own, rtol=1e-6, atol=1e-8)


def test_the_smaller_side_is_solved_for(monkeypatch):
    asked = []
    inverse_of = pairwise.inverse_of

    def counted(engine, curvature):
        return lambda vectors: asked.append(len(vectors)) or inverse_of(engine, curvature)(vectors)

    monkeypatch.setattr(pairwise, "inverse_of", counted)
    project = CASES["softmax"].project()
    puma.pairwise_influence(project, range(3), range(5))
    puma.pairwise_influence(project, range(5), range(3))
    monkeypatch.setattr(pairwise, "SOLVED", 2)
    puma.pairwise_influence(project, range(5), range(3))
    assert asked == [3, 3]


def test_models_without_gradients_by_row():
    """Few rows are solved for, which any model allows; many are refused by name."""
    start = text(Recurrent)
    found = puma.pairwise_influence(start.project(), [0, 1], curvature=ITERATED)
    np.testing.assert_allclose(found, truth(start)[:2], rtol=1e-6, atol=1e-8)


def test_many_rows_of_models_without_gradients_by_row_are_refused(monkeypatch):
    monkeypatch.setattr(pairwise, "SOLVED", 0)
    with pytest.raises(puma.ProjectError, match="lstm"):
        puma.pairwise_influence(text(Recurrent).project(), curvature=ITERATED)


@pytest.mark.parametrize("rows", [[15], [-1], [], [0.5], [[1, 2]], np.ones(14, dtype=bool)], ids=str)
def test_rows_that_do_not_fit_are_refused(rows):
    with pytest.raises(puma.ProjectError, match="rows"):
        puma.pairwise_influence(CASES["softmax"].project(), rows)
