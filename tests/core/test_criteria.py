"""Values of criteria against third parties, and which projects can use them."""

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
)
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, mean_squared_error
from torchmetrics.functional.classification import multiclass_calibration_error

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.task import REGRESSION

from .cases import CASES, Reference, trained

GROUPS = {n: pd.DataFrame({"sex": np.resize(["f", "m", "m", "f", "m"], n)}) for n in (15, 22, 60)}
CLASSIFIERS = ("softmax", "one logit")


def grouped(name="softmax", **changes):
    """A case as a project whose rows have groups."""
    case = trained() if name == "trained" else CASES[name]
    train, validation = (
        puma.Split(*part, groups=GROUPS[len(part[1])]) for part in (case.train, case.validation)
    )
    return case.project(**{"train": train, "validation": validation, **changes})


def probabilities(z):
    return (z.softmax(1) if z.shape[1] > 1 else torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)).numpy()


def by_group(y, values, sex, rows=slice(None)):
    """fairlearn's means of ``values`` in the groups ``sex``."""
    return MetricFrame(
        metrics=lambda _, v: np.mean(v), y_true=y[rows], y_pred=values[rows], sensitive_features=sex[rows]
    )


def smooth_error(z, y):
    z = z.numpy() if z.shape[1] > 1 else np.c_[np.zeros(len(z)), z.numpy()]
    others = [np.delete(row, label).max() for row, label in zip(z, y, strict=True)]
    return np.mean(1 / (1 + np.exp(z[np.arange(len(y)), y] - others)))


def soft_ece(z, y, bins=15, temperature=0.01):
    """Karandikar et al. (2021), bin by bin."""
    p = probabilities(z)
    c, right = p.max(1), p.argmax(1) == y
    u = np.exp(-((c[:, None] - (np.arange(bins) + 0.5) / bins) ** 2) / temperature)
    u /= u.sum(1, keepdims=True)
    gaps = [np.average(right, weights=w) - np.average(c, weights=w) for w in u.T]
    return np.abs(gaps) @ u.sum(0) / len(y)


def nll(z, y):
    return -np.log(probabilities(z)[np.arange(len(y)), y])


def odds_gap(z, y, sex):
    p, last = probabilities(z)[:, -1], max(2, z.shape[1]) - 1
    return max(by_group(y, p, sex, rows).difference() for rows in (y == last, y != last))


TRUTH = {
    "cross_entropy": lambda z, y, _: log_loss(y, probabilities(z), labels=range(max(2, z.shape[1]))),
    "brier": lambda z, y, _: brier_score_loss(
        y, probabilities(z), labels=range(max(2, z.shape[1])), scale_by_half=False
    ),
    "squared_error": lambda z, y, _: mean_squared_error(y, z),
    "calibration": lambda z, y, _: soft_ece(z, y),
    "margin": lambda z, y, _: smooth_error(z, y),
    "worst_group": lambda z, y, sex: by_group(y, nll(z, y), sex).group_max(),
    "worst_group_error": lambda z, y, sex: max(mean_squared_error(y[sex == g], z[sex == g]) for g in "fm"),
    "demographic_parity": lambda z, y, sex: by_group(y, probabilities(z)[:, -1], sex).difference(),
    "equalized_odds": odds_gap,
}
PAIRS = [
    (name, key)
    for name in (*CLASSIFIERS, "regression")
    for key in TRUTH
    if (name == "regression") == (puma.CRITERIA[key].task is REGRESSION)
]


@pytest.mark.parametrize("rows", [None, (0, 1, 2, 3, 4, 5, 7, 8, 10, 11)], ids=["all rows", "some rows"])
@pytest.mark.parametrize("split", ["validation", "train", "test"])
@pytest.mark.parametrize(("name", "key"), PAIRS)
def test_value(name, key, split, rows):
    reference = Reference(CASES[name])
    x, y = CASES[name].train if split == "train" else CASES[name].validation
    x, y = (x[::-1].copy(), y[::-1].copy()) if split == "test" else (x, y)
    engine = Engine(grouped(name, test=puma.Split(x, y, groups=GROUPS[15]) if split == "test" else None))
    chosen = slice(None) if rows is None else list(rows)
    truth = TRUTH[key](
        reference.outputs(x[chosen]), y[chosen], GROUPS[len(y)]["sex"].to_numpy()[chosen].astype(str)
    )
    assert engine.criterion(puma.CRITERIA[key](split=split, rows=rows)) == pytest.approx(truth, rel=1e-9)


def drawn(n=400, classes=4, sharpness=3.0):
    """Logits of a model that is right now and then, labels and groups."""
    generator = torch.Generator().manual_seed(0)
    z = sharpness * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    y = torch.where(torch.rand(n, generator=generator) < 0.6, z.argmax(1), torch.arange(n) % classes)
    frame = pd.DataFrame({"age": np.random.default_rng(0).choice(["young", "old", "older"], n)})
    return z, puma.Split(torch.zeros(n, 1), y, groups=frame), puma.LOSSES["cross_entropy"]()


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("norm", [1, 2])
def test_cold_calibration_is_the_binned_ece(norm, bins):
    z, data, loss = drawn()
    cold = puma.Calibration(temperature=1e-8, norm=norm, bins=bins)(z, data, loss)
    hard = multiclass_calibration_error(
        z.softmax(1), data.targets, z.shape[1], n_bins=bins, norm=f"l{norm}", validate_args=False
    )
    assert float(cold) == pytest.approx(float(hard), abs=1e-6)


def test_a_cold_margin_is_the_error_rate():
    z, data, loss = drawn()
    cold = puma.Margin(temperature=1e-4)(z, data, loss)
    assert float(cold) == pytest.approx(1 - accuracy_score(data.targets, z.argmax(1)), abs=1e-6)


@pytest.mark.parametrize("positive", [None, 0, 2])
def test_gaps_of_sure_predictions_are_those_of_rates(positive):
    z, data, loss = drawn()
    number = 3 if positive is None else positive
    told = [(of == number).numpy() for of in (data.targets, z.argmax(1))]
    for kind, truth in (
        (puma.DemographicParity, demographic_parity_difference),
        (puma.EqualizedOdds, equalized_odds_difference),
    ):
        found = kind(positive=positive)(1e6 * z, data, loss)
        assert float(found) == pytest.approx(truth(*told, sensitive_features=data.groups["age"]))


def test_a_saturated_model_has_finite_gradients():
    """Every confidence 1 and right: no gap, and a root of it would have no slope."""
    z, data, loss = drawn()
    sure = (1e6 * z).float().requires_grad_()
    right = puma.Split(data.inputs, z.argmax(1))
    for norm in (1, 2):
        value = puma.Calibration(norm=norm)(sure, right, loss)
        (slope,) = torch.autograd.grad(value, sure)
        assert value < 1e-15
        assert slope.isfinite().all()


def test_which_criteria_a_project_can_use():
    from puma_dash.core.criteria import usable_criteria

    plain = usable_criteria(puma.DEMOS["digits"]().untrained())
    assert list(plain) == list(puma.CRITERIA)
    assert [key for key, reason in plain.items() if reason is None] == [
        "cross_entropy",
        "brier",
        "calibration",
        "margin",
        "worst_group",
        "adversarial",
    ]
    assert "groups" in plain["demographic_parity"]
    assert "regression" in plain["squared_error"]
    errors = ["squared_error", "worst_group_error"]
    assert [key for key, reason in usable_criteria(grouped()).items() if reason] == errors
    assert [key for key, reason in usable_criteria(grouped("regression")).items() if not reason] == errors
    regression = usable_criteria(CASES["regression"].project())
    assert [key for key, reason in regression.items() if reason is None] == ["squared_error"]
    assert all(f"for {key}" in reason for key, reason in regression.items() if reason)
