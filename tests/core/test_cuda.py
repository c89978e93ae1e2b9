"""The same answers on a GPU as on the CPU, to single precision.

It is also run on a stand-in (``other_device``) that needs no GPU: it finds tensors on the wrong device.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

import puma_dash as puma
from puma_dash.core.engine import Engine

from .cases import case as made
from .cases import convolution, mlp
from .other_device import other_device

CLOSE = 2e-3
"""Of the largest number."""


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "stand-in"])
def device(request):
    """Where it is computed besides the CPU."""
    if request.param == "stand-in":
        with other_device() as name:
            yield name
    elif torch.cuda.is_available():
        yield request.param
    else:
        pytest.skip("needs a CUDA device, and torch sees none")


WEIGHTS = np.resize([1, 0.5, 2.0], 60)
MODELS = {
    "network": lambda: made(mlp(3, 8, 3).float(), (3,), 3, n=60),
    "weighted network": lambda: made(mlp(3, 8, 3).float(), (3,), 3, n=60, weights=WEIGHTS),
    "one logit": lambda: made(mlp(3, 8, 1).float(), (3,), 1, "binary_cross_entropy", n=60),
    "convolution": lambda: made(convolution().float(), (1, 6, 6), 3, n=60),
    "regression": lambda: made(mlp(3, 8, 2).float(), (3,), 2, "squared_error", n=60),
}
CURVATURES = {
    "dense": puma.Dense(damping=0.1),
    "dense Hessian": puma.Dense(damping=5.0, matrix="hessian"),
    "conjugate gradient": puma.ConjugateGradient(damping=0.1, tolerance=1e-5),
    "unpreconditioned": puma.ConjugateGradient(damping=0.1, tolerance=1e-5, preconditioner=0),
    "some rows": puma.ConjugateGradient(damping=0.1, tolerance=1e-5, rows=20),
    "to a fidelity": puma.ConjugateGradient(damping=0.1, fidelity=0.9999),
    "Hessian products": puma.ConjugateGradient(damping=5.0, tolerance=1e-5, matrix="hessian"),
    "K-FAC": puma.KFAC(damping=0.1),
    "EK-FAC": puma.EKFAC(damping=0.1),
    "LiSSA": puma.LiSSA(damping=0.1, rows=20, depth=100),
}
PRODUCTS = CURVATURES["conjugate gradient"]


def project(name="network", **changes):
    """With groups on every split, both sexes in every class."""
    project = MODELS[name]().project(**changes)
    for split in (project.train, project.validation):
        object.__setattr__(split, "groups", pd.DataFrame({"sex": np.resize(["f", "m"], len(split))}))
    return project


def key_of(name):
    return "squared_error" if name == "regression" else "cross_entropy"


def close(there, here, share=CLOSE):
    here = np.asarray(here)
    np.testing.assert_allclose(there, here, rtol=share, atol=share * np.abs(here).max())


def both(device, call):
    """The answer there and on the CPU, each of a project of its own."""
    there = call(device)
    with _disable_current_modes():  # the stand-in's, which is slow
        return there, call("cpu")


QUESTIONS = [
    *[("weighted network", way) for way in CURVATURES],
    *[("convolution", way) for way in ("dense", "K-FAC", "EK-FAC")],
    *[(name, "to a fidelity") for name in MODELS],
]


@pytest.mark.parametrize(("name", "way"), QUESTIONS)
def test_psi(device, name, way):
    def psi(where):
        return puma.value(project(name), "psi", key_of(name), curvature=CURVATURES[way], device=where)

    there, here = both(device, psi)
    close(there.scores, here.scores)
    assert there.diagnostics["rows"] == here.diagnostics["rows"]
    assert there.diagnostics["dtype"] == "float32"


@pytest.mark.parametrize(
    "method", [puma.Psi(leverage=True), puma.SelfInfluence(), puma.SelfInfluence(checked=5)]
)
@pytest.mark.parametrize("curvature", [CURVATURES["dense"], PRODUCTS], ids=["dense", "sampled"])
@pytest.mark.parametrize("name", ["weighted network", "convolution", "regression"])
def test_scores_of_rows_by_themselves(device, name, curvature, method):
    def scores(where):
        return puma.value(project(name), method, key_of(name), curvature=curvature, device=where).scores

    close(*both(device, scores))


@pytest.mark.parametrize("method", ["gradient_dot", "loss", "random"])
def test_baselines(device, method):
    close(*both(device, lambda where: puma.value(project(), method, device=where).scores))


CRITERIA = {
    **{
        key: kind()
        for key, kind in puma.CRITERIA.items()
        if "squared" not in key and key != "worst_group_error"
    },
    "of a class": puma.CrossEntropy(of_class=1),
    "of a group": puma.Brier(group=("sex", "f")),
    "of rows": puma.Margin(rows=(1, 2, 5)),
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_criteria(device, criterion):
    def psi(where):
        return puma.value(project(), "psi", criterion, curvature=PRODUCTS, device=where)

    there, here = both(device, psi)
    close(
        there.scores, here.scores, 1e-2 if criterion.key == "adversarial" else CLOSE
    )  # signs of slopes flip
    assert there.diagnostics["criterion_value"] == pytest.approx(
        here.diagnostics["criterion_value"], rel=CLOSE
    )


def test_several_criteria(device):
    def tables(where):
        return puma.values(
            project("convolution"), ["cross_entropy", "margin"], curvature=PRODUCTS, device=where
        )

    there, here = both(device, tables)
    for name, valuation in here.items():
        close(there[name].scores, valuation.scores)


@pytest.mark.parametrize("curvature", puma.CURVATURES)
def test_estimates(device, curvature):
    assert puma.estimate(project(), curvature, device=device).seconds > 0


def test_calibration(device):
    def damping(where):
        return puma.value(project(), curvature="conjugate_gradient", device=where).diagnostics["damping"]

    there, here = both(device, damping)
    assert there == here


@pytest.mark.parametrize("curvature", [CURVATURES["dense"], PRODUCTS], ids=["dense", "sampled"])
@pytest.mark.parametrize("name", ["weighted network", "convolution", "regression"])
def test_leverage(device, name, curvature):
    close(*both(device, lambda where: puma.leverage(project(name), curvature=curvature, device=where)))
    close(
        *both(device, lambda where: puma.leverage(project(name), [3, 1], curvature=curvature, device=where))
    )


@pytest.mark.parametrize("solved", [0, 32])
@pytest.mark.parametrize("curvature", [CURVATURES["dense"], PRODUCTS], ids=["dense", "sampled"])
@pytest.mark.parametrize("name", ["weighted network", "convolution"])
def test_pairs(monkeypatch, device, name, curvature, solved):
    monkeypatch.setattr("puma_dash.core.valuation.pairwise.SOLVED", solved)

    def pairs(where):
        return puma.pairwise_influence(project(name), [1, 4], curvature=curvature, device=where)

    close(*both(device, pairs))


PATCHES = {
    "puma": {"method": "puma"},
    "naive": {"method": "influence"},
    "half": {"method": "puma", "strength": 0.5},
    "as if unseen": {"method": "puma", "steps": 3, "intent": "unseen"},
    "forgotten": {"method": "puma", "steps": 3, "intent": "forget"},
}


CHANGES = [
    *[("weighted network", way, PRODUCTS) for way in PATCHES],
    *[(name, "puma", CURVATURES["dense"]) for name in MODELS],
    ("convolution", "as if unseen", PRODUCTS),
]


@pytest.mark.parametrize(("name", "way", "curvature"), CHANGES)
def test_patch_forecast_and_compare(monkeypatch, device, name, way, curvature):
    monkeypatch.setattr("puma_dash.core.evaluation.verdicts.RESAMPLES", 20)  # of numbers on the CPU
    key = key_of(name)
    train = project(name).train
    relabel = {} if name == "regression" else {4: int(train.targets[4] == 0)}
    settings = {"upweight": {7: 0.5}, "relabel": relabel, "hold": (key,), "tolerance": {key: 10.0}}
    plan = puma.PatchPlan(remove=(1, 2), **settings, **PATCHES[way])

    def patch(where):
        return puma.patch(project(name), plan, curvature=curvature, device=where)

    there, here = both(device, patch)
    close(there.delta, here.delta, 5 * CLOSE if plan.steps > 1 else CLOSE)
    assert there.predicted[key] == pytest.approx(here.predicted[key], rel=1e-2, abs=1e-5)
    assert there.measured[key] == pytest.approx(here.measured[key], rel=1e-2, abs=1e-5)
    assert {p.device.type for p in there.model.parameters()} == {"cpu"}
    if name != "regression":
        forecast = puma.forecast(project(name), plan, ("brier",), curvature=curvature, device=device)
        assert forecast.criteria == pytest.approx(there.predicted, rel=1e-3, abs=1e-6)
        assert puma.compare(project(name), there, device=device).n == 15


def test_a_fairness_criterion_is_held(device):
    plan = puma.PatchPlan(remove=(1, 2), hold=("demographic_parity", "calibration"))

    def patch(where):
        return puma.patch(project(), plan, curvature=PRODUCTS, device=where)

    there, here = both(device, patch)
    assert there.strength == here.strength
    assert there.measured == pytest.approx(here.measured, rel=2e-2, abs=1e-5)


def test_retraining(device):
    recipe = puma.AdamRecipe(project().loss, epochs=2)

    def delta(where):
        plan = puma.PatchPlan(remove=(1, 2), method="retrain")
        return puma.patch(project(trainer=recipe), plan, device=where).delta

    close(*both(device, delta), 1e-2)


@pytest.mark.parametrize("space", ["penultimate", "inputs"])
def test_embedding(device, space):
    there, here = both(
        device, lambda where: puma.EMBEDDINGS["pca"](space=space)(Engine(project(), device=where)).xy
    )
    np.testing.assert_allclose(np.abs(there), np.abs(here), atol=1e-2)


@pytest.mark.parametrize("name", ["weighted network"])
def test_health(device, name):
    there, here = both(device, lambda where: puma.health(project(name), device=where))
    assert [finding.status for finding in there] == [finding.status for finding in here]


@pytest.mark.parametrize("name", ["weighted network", "regression"])
def test_the_five_terms(device, name):
    def terms(where):
        start = project(name)
        found = puma.decompose(
            project(name, trainer=lambda *_: start.model),
            [1, 2],
            criterion=key_of(name),
            curvature=CURVATURES["dense"],
            device=where,
        )
        return found.stages["change"][["linearised", "influence", "Bregman"]]

    close(*both(device, terms), 2e-2)
