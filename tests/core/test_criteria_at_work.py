"""Derivatives of criteria against finite differences, psi against dense algebra, patches that hold them."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.task import CLASSIFICATION

from .cases import CASES, Reference, flat, trained
from .test_criteria import CLASSIFIERS, GROUPS, PAIRS, TRUTH, grouped

OF_CLASSES = [key for key, kind in puma.CRITERIA.items() if kind.task is CLASSIFICATION]


@pytest.mark.parametrize(
    ("name", "criterion"),
    [(name, puma.CRITERIA[key]()) for name, key in PAIRS]
    + [("softmax", puma.Calibration(norm=2)), ("softmax", puma.DemographicParity(positive=0))],
)
def test_gradient_in_the_outputs(name, criterion):
    project = grouped(name)
    z = Reference(CASES[name]).outputs(project.validation.inputs).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: criterion(z, project.validation, project.loss), z)


@pytest.mark.parametrize("key", OF_CLASSES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradient_in_theta(name, key):
    engine, criterion = Engine(grouped(name)), puma.CRITERIA[key]()
    value, gradient = engine.criterion_gradient(criterion)
    assert value == pytest.approx(engine.criterion(criterion))
    direction = torch.randn(len(engine.theta), generator=torch.Generator().manual_seed(1)).double()
    ahead, behind = (engine.criterion(criterion, engine.theta + h * direction) for h in (1e-5, -1e-5))
    assert float(gradient @ direction) == pytest.approx((ahead - behind) / 2e-5, rel=1e-5, abs=1e-9)


def soft_ece_of(z, y, sex):
    p, right = z.softmax(1).max(1).values, (z.argmax(1) == y).double()
    u = torch.stack([torch.exp(-((p - (j + 0.5) / 15) ** 2) / 0.01) for j in range(15)])
    return ((u / u.sum(0)) @ (right - p)).abs().sum() / len(y)


def smooth_error_of(z, y, sex):
    rival = torch.stack([torch.cat([row[:k], row[k + 1 :]]).max() for row, k in zip(z, y, strict=True)])
    return (1 / (1 + torch.exp(z[torch.arange(len(y)), y] - rival))).mean()


def parity_of(z, y, sex):
    return (z.softmax(1)[sex == "f", -1].mean() - z.softmax(1)[sex == "m", -1].mean()).abs()


@pytest.mark.parametrize(
    ("key", "of"),
    [("calibration", soft_ece_of), ("margin", smooth_error_of), ("demographic_parity", parity_of)],
)
def test_psi_is_that_of_the_dense_reference(key, of):
    case, sex = trained(), GROUPS[15]["sex"].to_numpy()
    reference = Reference(case)
    x, y = (torch.as_tensor(part) for part in case.validation)
    slope = jacobian(lambda theta: of(reference.outputs(x, theta), y, sex), reference.theta)
    psi = reference.gradients() @ torch.linalg.solve(reference.b(0.02), slope)
    found = puma.value(grouped("trained"), criterion=key, curvature=puma.Dense(damping=0.02)).scores
    np.testing.assert_allclose(found, psi, rtol=1e-6, atol=1e-9 * float(psi.abs().max()))


def test_row_weights_are_for_training_only():
    case = CASES["softmax"]
    heavy = puma.Split(*case.validation, weights=np.linspace(0, 5, 15))
    plain, weighted = (Engine(case.project(**more)) for more in ({}, {"validation": heavy}))
    assert weighted.criterion(puma.CrossEntropy()) == plain.criterion(puma.CrossEntropy())


def test_rows_make_the_question_local():
    """psi of the mean over rows is the mean of the psi of each row."""
    project = CASES["softmax"].project()
    whole, *each = (
        puma.value(project, criterion=puma.CrossEntropy(rows=rows)).scores for rows in ((1, 4), (1,), (4,))
    )
    np.testing.assert_allclose(whole, np.mean(each, axis=0), rtol=1e-9)


@pytest.mark.parametrize("key", [key for key in TRUTH if key in OF_CLASSES])
def test_a_patch_that_holds_it_measures_and_reports_it(key):
    project, reference = grouped("trained"), Reference(trained())
    plan = puma.PatchPlan(remove=range(6), hold=(key,), tolerance={key: 10.0})
    patch = puma.patch(project, plan, curvature=puma.Dense(damping=0.02))
    x, y = trained().validation
    sex = GROUPS[15]["sex"].to_numpy().astype(str)
    before, after = (
        TRUTH[key](reference.outputs(x, theta), y, sex) for theta in (reference.theta, flat(patch.model))
    )
    assert patch.strength == 1
    assert patch.measured == {key: pytest.approx(after - before, abs=1e-12)}
    assert list(patch.predicted) == [key]
    verdict = puma.compare(project, patch).verdicts.set_index("criterion").loc[key]
    assert verdict["measured"] == patch.measured[key]
    assert verdict["low"] <= verdict["high"] < 10
    assert verdict["verdict"] in ("pass", "inconclusive")  # of a handful of rows no verdict is sure
