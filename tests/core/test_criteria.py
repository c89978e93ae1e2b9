"""Criteria against scikit-learn, their derivatives against finite differences."""

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss, mean_squared_error

import puma_dash as puma
from puma_dash.core.engine import Engine

from .cases import CASES, Reference


def probabilities(z):
    return (z.softmax(1) if z.shape[1] > 1 else torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)).numpy()


TRUTH = {
    "cross_entropy": lambda z, y: log_loss(y, probabilities(z), labels=range(max(2, z.shape[1]))),
    "brier": lambda z, y: brier_score_loss(
        y, probabilities(z), labels=range(max(2, z.shape[1])), scale_by_half=False
    ),
    "squared_error": lambda z, y: mean_squared_error(y, z),
}
PAIRS = [
    (name, key)
    for name in ("softmax", "one logit", "regression")
    for key in TRUTH
    if (name == "regression") == (key == "squared_error")
]


@pytest.mark.parametrize("rows", [None, (0, 3, 7, 8)], ids=["all rows", "some rows"])
@pytest.mark.parametrize("split", ["validation", "train", "test"])
@pytest.mark.parametrize(("name", "key"), PAIRS)
def test_value(name, key, split, rows):
    reference = Reference(CASES[name])
    x, y = CASES[name].train if split == "train" else CASES[name].validation
    x, y = (x[::-1].copy(), y[::-1].copy()) if split == "test" else (x, y)
    engine = Engine(CASES[name].project(test=puma.Split(x, y) if split == "test" else None))
    chosen = slice(None) if rows is None else list(rows)
    truth = TRUTH[key](reference.outputs(x[chosen]), y[chosen])
    assert engine.criterion(puma.CRITERIA[key](split=split, rows=rows)) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize(("name", "key"), PAIRS)
def test_gradient_in_the_outputs(name, key):
    project = CASES[name].project()
    z = Reference(CASES[name]).outputs(project.validation.inputs).requires_grad_()
    criterion = puma.CRITERIA[key]()
    assert torch.autograd.gradcheck(lambda z: criterion(z, project.validation, project.loss), z)


def test_row_weights_are_for_training_only():
    case = CASES["softmax"]
    heavy = puma.Split(*case.validation, weights=np.linspace(0, 5, 15))
    plain, weighted = (Engine(case.project(**more)) for more in ({}, {"validation": heavy}))
    assert weighted.criterion(puma.CrossEntropy()) == plain.criterion(puma.CrossEntropy())


def test_names_are_unique_and_equal_criteria_are_equal():
    rows = [None, (1,), (2,), (1, 2), tuple(range(12)), tuple(range(1, 13))]
    criteria = [
        kind(split=split, rows=chosen)
        for kind in puma.CRITERIA.values()
        for split in ("validation", "train", "test")
        for chosen in rows
    ]
    assert len({criterion.name for criterion in criteria}) == len(criteria) == len(set(criteria))
    for key, kind in puma.CRITERIA.items():
        assert kind().name == key
    assert puma.Brier(rows=(3, 1, 3)) == puma.Brier(rows=np.array([1, 3]))
    assert puma.Brier(rows=puma.Selection([3, 1], "lasso")) == puma.Brier(rows=(1, 3))
    assert puma.Brier(rows=[3, 1]).name == puma.Brier(rows=(1, 3)).name


def test_rows_make_the_question_local():
    """psi of the mean over rows is the mean of the psi of each row."""
    project = CASES["softmax"].project()
    whole, *each = (
        puma.value(project, criterion=puma.CrossEntropy(rows=rows)).scores for rows in ((1, 4), (1,), (4,))
    )
    np.testing.assert_allclose(whole, np.mean(each, axis=0), rtol=1e-9)
