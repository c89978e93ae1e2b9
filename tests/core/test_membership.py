"""Removal evidence against scikit-learn and scipy, and on removals that are exact or none at all."""

import copy
import dataclasses
import threading

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

import puma_dash as puma
from puma_dash.core.evaluation.membership import (
    auc,
    evidence_estimate,
    leave_one_out,
    likelihood_ratio,
    logits,
    tpr_at,
)
from puma_dash.core.unlearning.sisa import Ensemble

from .cases import CASES, case, flat, mlp

MISLABELLED = tuple(range(10, 20))


def draws(seed, ties):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(0.7, 1.3, (4, 50)), rng.normal(size=(4, 50))
    return (positive.round(1), negative.round(1)) if ties else (positive, negative)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_curves_are_those_of_scikit_learn(seed, ties):
    positive, negative = draws(seed, ties)
    truth = np.repeat([1, 0], 200)
    scores = np.concatenate([positive.ravel(), negative.ravel()])
    assert auc(positive, negative) == pytest.approx(roc_auc_score(truth, scores))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    for most in (0.0, 0.01, 0.05, 0.5, 1.0):
        assert tpr_at(positive, negative, most) == pytest.approx(tpr[fpr <= most + 1e-9].max())


def test_the_likelihood_ratio_is_that_of_two_normal_densities():
    rng = np.random.default_rng(0)
    members, others = rng.normal(3, 2, (5, 7)), rng.normal(-1, 1, (5, 7))
    phi = rng.normal(size=7)
    spread = [np.sqrt(known.var(0, ddof=1).mean()) for known in (members, others)]
    expected = norm.logpdf(phi, members.mean(0), spread[0]) - norm.logpdf(phi, others.mean(0), spread[1])
    np.testing.assert_allclose(likelihood_ratio(phi, members, others), expected)
    assert np.isfinite(likelihood_ratio(phi, np.ones((5, 7)), others)).all()


def test_a_reference_is_scored_by_the_others():
    rng = np.random.default_rng(0)
    members, others, phi = rng.normal(1, 1, (4, 6)), rng.normal(-1, 1, (4, 6)), rng.normal(size=6)
    found, own = leave_one_out(phi, members, others), leave_one_out(others, members, others)
    for r in range(4):
        rest = [k for k in range(4) if k != r]
        np.testing.assert_allclose(found[r], likelihood_ratio(phi, members[rest], others[rest]))
        np.testing.assert_allclose(own[r], likelihood_ratio(others[r], members[rest], others[rest]))


def test_logits_keep_their_digits():
    p = np.array([[0.2, 0.5, 0.3], [1.0, 1e-9, 0.0], [0.0, 0.0, 1.0]])
    found = logits(p, np.array([1, 0, 1]))
    np.testing.assert_allclose(found[:2], [np.log(0.5 / 0.5), -np.log(1e-9)], atol=1e-9)
    assert np.isfinite(found).all()


@pytest.fixture(scope="module")
def project():
    """A network that memorises: ten labels are wrong, and only training on them tells which."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 8))
    y = (x[:, 0] > 0).astype(np.int64)
    y[list(MISLABELLED)] = 1 - y[list(MISLABELLED)]
    start = case(mlp(8, 16, 2), (8,), 2, n=60, weight_decay=1e-4).but(train=(x, y))
    recipe = puma.AdamRecipe(puma.SoftmaxCrossEntropy(), learning_rate=0.05, epochs=40, batch_size=30)
    validation = puma.Split(x[20:], y[20:])
    made = start.project(trainer=recipe, validation=validation)
    weights = torch.ones(60)
    return made.with_model(recipe(copy.deepcopy(made.model), made.train, weights, 1e-4, 77))


@pytest.fixture(scope="module")
def retrained(project):
    return puma.patch(project, puma.PatchPlan(remove=MISLABELLED, method="retrain"), seed=78)


@pytest.fixture(scope="module")
def evidence(project, retrained):
    return puma.removal_evidence(project, retrained, references=5)


def test_retraining_cannot_be_told_from_retraining(evidence):
    table = evidence.membership
    for name in ("after", "another retraining"):
        assert abs(table.loc[name, "auc"] - 0.5) < 0.15
        assert table.loc[name, "tpr"] < 0.3
    exact = table.loc["another retraining"]
    assert exact["auc_low"] < 0.5 < exact["auc_high"]
    assert abs(table.loc["after", "shift"]) < 0.2 * table.loc["before", "shift"]
    assert table.loc["before", "auc"] > 0.95
    assert table.loc["before", "tpr_low"] > 0.3
    assert table.loc["retrained with", "auc"] > 0.95
    rows = evidence.rows
    assert rows["row"].tolist() == list(MISLABELLED)
    assert (rows["before"] > rows["retrained without"]).all()
    assert rows["after"].mean() - rows["retrained without"].mean() == pytest.approx(
        table.loc["after", "shift"]
    )


def test_a_patch_that_does_nothing_shows_as_one(project, retrained):
    idle = dataclasses.replace(retrained, model=project.model)
    table = puma.removal_evidence(project, idle, references=4).membership
    assert table.loc["after"].equals(table.loc["before"])
    assert table.loc["after", "auc"] > 0.9


def test_an_ensemble_has_predictions_to_compare_and_no_parameters(project, retrained, evidence):
    vote = Ensemble([retrained.model, retrained.model], project.loss)
    found = puma.removal_evidence(project, dataclasses.replace(retrained, model=vote), references=5)
    assert np.isnan(found.distances.loc["after", "parameters"])
    for name in ("predictions on validation", "predictions on the rows"):
        assert found.distances.loc["after", name] == pytest.approx(evidence.distances.loc["after", name])
    assert found.membership.loc["after", "auc"] == pytest.approx(evidence.membership.loc["after", "auc"])


def test_distances_are_means_over_references(project, retrained, evidence):
    weights = torch.ones(60)
    weights[list(MISLABELLED)] = 0
    models = [
        puma.patch(project, puma.PatchPlan(remove=MISLABELLED, method="retrain"), seed=1 + k).model
        for k in range(5)
    ]
    apart = [float((flat(retrained.model) - flat(model)).norm()) for model in models]
    assert evidence.distances.loc["after", "parameters"] == pytest.approx(np.mean(apart))
    x = project.validation.inputs
    p, *q = (model(x).softmax(1).detach() for model in (project.model, *models))
    moved = [float((p - other).abs().sum(1).mean() / 2) for other in q]
    found = evidence.distances.loc["before", "predictions on validation"]
    assert found == pytest.approx(np.mean(moved), rel=1e-5)
    floor = [float((flat(a) - flat(b)).norm()) for i, a in enumerate(models) for b in models[:i]]
    assert evidence.distances.loc["another retraining", "parameters"] == pytest.approx(np.mean(floor))


def test_it_claims_no_proof(evidence):
    assert "Membership-score shift versus retraining on 10 rows" in evidence.sentence
    assert "no proof" in evidence.sentence
    assert "forgotten" not in evidence.sentence


def test_references_know_the_plan_and_not_its_compensation(project, retrained):
    """And they are trained once for all the methods of a race."""
    compensated = dataclasses.replace(retrained, weights=retrained.weights + 1.0)
    one = puma.removal_evidence(project, retrained, references=5)
    told = []
    two = puma.removal_evidence(project, compensated, references=5, progress=lambda *said: told.append(said))
    assert one.membership.equals(two.membership)
    assert told == [(10, 10, "Scoring the rows")]


def test_processes_side_by_side_find_the_same(project, retrained):
    one, two = (
        puma.removal_evidence(dataclasses.replace(project), retrained, references=4, jobs=jobs)
        for jobs in (1, 2)
    )
    assert np.allclose(one.membership, two.membership, rtol=1e-6)
    assert np.allclose(one.distances, two.distances, rtol=1e-6)


def test_it_tells_and_stops(project, retrained):
    told, cancel = [], threading.Event()

    def progress(done, total, message):
        told.append((done, total))
        if done == 2:
            cancel.set()

    with pytest.raises(puma.Cancelled):
        puma.removal_evidence(
            dataclasses.replace(project), retrained, references=4, progress=progress, cancel=cancel
        )
    assert told == [(0, 8), (1, 8), (2, 8)]


def kept_in(folder):
    """What a workspace puts into ``Project.memo``, and the names it was asked for and had not."""
    made = []

    def keep(name, compute):
        if name not in folder:
            made.append(name)
            folder[name] = compute()
        return folder[name]

    return keep, made


def test_references_are_kept_for_all_methods_and_half_of_them_for_all_plans(project, retrained):
    folder, told, found = {}, [], []
    plans = [retrained.plan, retrained.plan, dataclasses.replace(retrained.plan, remove=MISLABELLED[:9])]
    for plan, new in zip(plans, (2, 0, 1), strict=True):
        again = dataclasses.replace(project)
        again.memo["store"], made = kept_in(folder)
        patch = dataclasses.replace(retrained, plan=plan)
        told.clear()
        found.append(
            puma.removal_evidence(again, patch, references=4, progress=lambda *said: told.append(said))
        )
        assert len(made) == new
        assert [done for done, *_ in told] == {2: [*range(9)], 0: [8], 1: [*range(4, 9)]}[new]
    assert found[0].membership.equals(found[1].membership)
    assert found[0].distances.equals(found[1].distances)
    assert not found[0].membership.equals(found[2].membership)


def test_the_cost_is_that_of_the_trainings(project):
    few, many = (evidence_estimate(project, references, device="cpu") for references in (4, 8))
    assert many.seconds == pytest.approx(2 * few.seconds)
    assert "16 retrainings on 60 rows" in many.note
    with pytest.raises(puma.ProjectError, match="8 retrainings are needed"):
        evidence_estimate(dataclasses.replace(project, trainer=lambda *given: given[0]), 4)


def test_a_trainer_that_returns_another_kind_of_model_is_a_sentence(project, retrained):
    odd = dataclasses.replace(project, trainer=lambda *given: torch.nn.Linear(8, 2))
    patch = dataclasses.replace(retrained, fingerprint=odd.fingerprint)
    with pytest.raises(puma.ProjectError, match="a model like the one it is given"):
        puma.removal_evidence(odd, patch, references=4)


def test_what_cannot_be_asked(project, retrained):
    regression = CASES["regression"].project()
    values = puma.patch(regression, puma.PatchPlan(remove=(1,), method="influence"))
    up = puma.patch(project, puma.PatchPlan(upweight={1: 1.0}, method="influence"))
    for made, patch, references, words in (
        (CASES["softmax"].project(), retrained, 8, "belongs to another"),
        (regression, values, 8, "regression"),
        (project, up, 8, "removes or relabels"),
        (project, retrained, 3, "at least 4 references"),
    ):
        with pytest.raises(puma.ProjectError, match=words):
            puma.removal_evidence(made, patch, references=references)
