"""The ways to unlearn that training's records allow, each against what it is by definition."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.registry import usable
from puma_dash.core.training import fresh
from puma_dash.core.unlearning.estimate import patch_estimate
from puma_dash.core.unlearning.sisa import Ensemble

from .cases import CASES, CONVEX, Reference, case, flat, mlp, trained

REMOVED = (2, 7, 11)


def patched(project, method, seed=0, **rows):
    rows = rows or {"remove": REMOVED}
    return puma.patch(project, puma.PatchPlan(method=method, **rows), seed=seed)


def recorded(start, recipe, weights=None, seed=3):
    """A project trained by ``recipe`` from the case's model, which stays theta_0."""
    project = start.project()
    model = copy.deepcopy(project.model)
    recorder = puma.Recorder(model, updates=True)
    weights = torch.ones(len(project.train)) if weights is None else torch.as_tensor(weights)
    recipe(model, project.train, weights, start.weight_decay, seed, recorder=recorder)
    return start.but(model=model).project(trainer=recipe, records=recorder.records())


def sgd(loss="cross_entropy", **options):
    return puma.SGDRecipe(
        puma.LOSSES[loss](), **{"learning_rate": 0.05, "epochs": 1, "batch_size": 5, **options}
    )


# --- fine-tuning ------------------------------------------------------------


def test_fine_tuned_to_the_end_is_retraining():
    """Of a convex model: the minimum of J on the rows, weights and labels as the plan leaves them."""
    start = CONVEX["weighted softmax"].but(weight_decay=0.05)
    labels = start.train[1].copy()
    labels[4] = (labels[4] + 1) % 3
    e = np.zeros(22)
    e[[1, 2, 6]] = -1, -1, 3.0
    exact = Reference(start.but(train=(start.train[0], labels))).minimise(start.weights * (1 + e))
    method = puma.UNLEARNERS["fine_tune"](learning_rate=0.1, epochs=300)
    patch = patched(start.project(), method, remove=(1, 2), upweight={6: 3.0}, relabel={4: int(labels[4])})
    torch.testing.assert_close(flat(patch.model), exact, rtol=0, atol=1e-3)
    np.testing.assert_allclose(patch.weights, start.weights * (1 + e))


def test_a_little_fine_tuning_goes_a_little_way():
    start = trained()
    short, long = (
        patched(start.project(), puma.UNLEARNERS["fine_tune"](epochs=epochs)).delta.norm()
        for epochs in (1, 30)
    )
    assert 0 < 3 * short < long


# --- SISA ------------------------------------------------------------


def sharded(start, shards=3, slices=2, **changes):
    recipe = puma.AdamRecipe(start.project().loss, 0.02, 6, 4)
    project = start.project(trainer=recipe, **changes)
    return dataclasses.replace(project, records=puma.train_shards(project, shards, slices, seed=5))


def states(project, patch):
    return [member.state_dict() for member in patch.model.members]


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", ["softmax", "weighted softmax", "one logit", "regression", "convolution"])
def test_sisa_is_exact(name):
    """Bit for bit what training from scratch gives where the removed rows held something else altogether."""
    start = CASES[name]
    x, y = start.train
    spoilt = x.copy()
    spoilt[list(REMOVED)] = 50.0
    one, other = (patched(sharded(variant), "sisa") for variant in (start, start.but(train=(spoilt, y))))
    before = sharded(start).records.shards
    touched = one.diagnostics["shards_retrained"]
    for s, (state, again) in enumerate(zip(states(start, one), states(start, other), strict=True)):
        assert same(state, again)
        assert same(state, before.states[s][-1]) == (s not in touched)


def test_a_member_retrains_from_the_slice_before_the_removed_row():
    """Written out: fresh parameters, each slice with those before it, the removed row with weight 0."""
    project = sharded(CASES["softmax"])
    shards = project.records.shards
    row = int(shards.rows[1][1][0])
    patch = patched(project, "sisa", remove=(row,))
    assert patch.diagnostics["shards_retrained"] == [1]
    sizes = [[len(rows) for rows in slices] for slices in shards.rows]
    once = [[sum(size[: r + 1]) for r in range(2)] for size in sizes]
    assert patch.diagnostics["trained"] == pytest.approx(once[1][1] / np.sum(once))
    recipe = dataclasses.replace(project.trainer, epochs=4)  # 2 e / (slices + 1)
    model, seen = fresh(project.model, 5 + 1), []
    for r, rows in enumerate(shards.rows[1]):
        seen += rows.tolist()
        weights = torch.tensor([float(k != row) for k in seen])
        seed = int(np.random.SeedSequence([5, 1, r]).generate_state(1)[0])
        recipe(model, project.train.take(np.array(seen)), weights, project.weight_decay, seed)
    assert same(model.state_dict(), patch.model.members[1].state_dict())


def test_every_row_is_in_one_slice():
    shards = sharded(CASES["softmax"]).records.shards
    assert [len(slices) for slices in shards.rows] == [2, 2, 2]
    rows = torch.cat([part for slices in shards.rows for part in slices])
    assert rows.sort().values.tolist() == list(range(22))
    assert rows.tolist() != list(range(22))


def test_a_new_label_retrains_its_shard():
    project = sharded(CASES["softmax"])
    new = int(project.train.targets[4] + 1) % 3
    patch = patched(project, "sisa", relabel={4: new})
    targets = project.train.targets.clone()
    targets[4] = new
    again = dataclasses.replace(
        project, train=dataclasses.replace(project.train, targets=targets), records=None
    )
    fresh_shards = puma.train_shards(again, 3, 2, seed=5).shards
    for s, state in enumerate(states(project, patch)):
        assert same(state, fresh_shards.states[s][-1])


@pytest.mark.parametrize("name", ["softmax", "one logit", "regression"])
def test_the_vote_is_the_mean_of_probabilities(name):
    start = CASES[name]
    members = [mlp(3, 4, start.model[-1].out_features, seed=seed) for seed in range(3)]
    project = start.project(model=Ensemble(members, start.project().loss))
    x = project.train.inputs
    loss, outputs = project.loss, [member(x) for member in members]
    mean = torch.stack([loss.answers(z) for z in outputs]).mean(0)
    torch.testing.assert_close(loss.answers(project.model(x)), mean)


def test_an_ensemble_is_a_model_like_any_other(tmp_path):
    project = sharded(CASES["softmax"])
    patch = patched(project, "sisa", remove=(1,), hold=("cross_entropy",))
    assert patch.delta.shape == (0,)
    found = puma.compare(project, patch, "validation")
    with torch.no_grad():
        outputs = patch.model(project.validation.inputs)
    exact = nn.functional.cross_entropy(outputs, project.validation.targets)
    assert found.metrics.loc["nll", "after"] == pytest.approx(float(exact))
    patch.save(tmp_path / "p.safetensors")
    back = puma.read_patch(tmp_path / "p.safetensors", project)
    assert same(patch.model.state_dict(), back.model.state_dict())
    after = puma.apply(project, back)
    assert np.isfinite(puma.value(after).scores).all()


def test_shards_that_cannot_be_are_refused():
    project = CASES["softmax"].project()
    for counts in ((0, 1), (1, 0), (5, 5)):
        with pytest.raises(puma.ProjectError, match="a row for each"):
            puma.train_shards(project, *counts)
    other = dataclasses.replace(sharded(CASES["softmax"]), trainer=puma.AdamRecipe(project.loss, epochs=7))
    with pytest.raises(puma.ProjectError, match="train_shards"):
        patched(other, "sisa")


def test_an_ensemble_that_was_not_trained_ahead_is_trained_first_and_told_apart():
    recipe = puma.AdamRecipe(CASES["softmax"].project().loss, 0.02, 6, 4)
    project = CASES["softmax"].project(trainer=recipe)
    method = puma.UNLEARNERS["sisa"](shards=3, slices=2)
    first, again = (patched(project, method, remove=(1, 4)) for _ in range(2))
    ahead = dataclasses.replace(project, records=puma.train_shards(project, 3, 2))
    then = patched(ahead, "sisa", remove=(1, 4))
    assert all(map(same, states(project, first), states(ahead, then)))
    assert first.diagnostics["ahead_seconds"] > 10 * again.diagnostics["ahead_seconds"]
    assert first.seconds < first.diagnostics["ahead_seconds"] + again.seconds
    anew, known = (patch_estimate(p, first.plan) for p in (dataclasses.replace(project), ahead))
    assert anew.seconds > known.seconds
    assert usable(puma.UNLEARNERS, project)["sisa"] is None


# --- Amnesiac ML ------------------------------------------------------------


def amnesiac(**options):
    return puma.UNLEARNERS["amnesiac"](**{"epochs": 0, **options})


def test_all_batches_taken_back_restore_theta_0():
    project = recorded(CASES["softmax"], sgd())
    firsts = sorted({int(rows[0]) for rows in project.records.batches})
    patch = patched(project, amnesiac(), remove=firsts)
    assert patch.diagnostics["undone"] == 1
    torch.testing.assert_close(flat(patch.model), flat(CASES["softmax"].model), rtol=0, atol=1e-14)
    assert patch.delta.norm() > 0.1


def test_only_batches_with_a_marked_row_are_taken_back():
    project = recorded(CASES["softmax"], sgd(epochs=3))
    records = project.records
    touched = [k for k, rows in enumerate(records.batches) if {2, 7} & {*rows.tolist()}]
    assert 3 <= len(touched) < len(records.batches)
    expected = flat(project.model) - sum(records.updates[k] for k in touched)
    new = int(project.train.targets[7] + 1) % 3
    patch = patched(project, amnesiac(), remove=(2,), relabel={7: new})
    torch.testing.assert_close(flat(patch.model), expected)
    assert patch.diagnostics["batches_undone"] == len(touched)


def test_the_repair_is_fine_tuning():
    project = recorded(CASES["softmax"], sgd(epochs=3))
    broken = patched(project, amnesiac()).model
    repaired = patched(project, amnesiac(epochs=3, learning_rate=0.01)).model
    tuned = patched(
        project.with_model(broken), puma.UNLEARNERS["fine_tune"](epochs=3, learning_rate=0.01)
    ).model
    assert torch.equal(flat(repaired), flat(tuned))
    assert not torch.equal(flat(repaired), flat(broken))


# --- unrolled SGD ------------------------------------------------------------


def test_the_formula_of_unrolled_sgd():
    start = CASES["weighted softmax"]
    project = recorded(start, sgd(epochs=4, batch_size=22), start.weights)
    gradients = Reference(start).gradients()  # at theta_0
    used = np.count_nonzero(start.weights)
    patch = patched(project, "unrolled_sgd", remove=(1, 2), upweight={6: 3.0}, strength=0.5)
    e = np.zeros(22)
    e[[1, 2, 6]] = -1, -1, 3.0
    expected = -0.5 * 0.05 * 4 / used * gradients.T @ torch.as_tensor(e)
    torch.testing.assert_close(patch.delta, expected)
    np.testing.assert_allclose(patch.weights, start.weights * (1 + e))


@pytest.mark.parametrize("name", ["regression", "softmax"])
def test_unrolled_sgd_is_retraining_to_first_order(name):
    """From the same theta_0 on the same (full) batches: what is left falls as the square of the rate."""
    start, errors = CONVEX[name].but(weight_decay=0.0), []
    n = len(start.train[0])
    weights = np.where(np.isin(np.arange(n), REMOVED), 0.0, 1.0)
    for rate in (4e-3, 2e-3):
        recipe = sgd(start.loss, learning_rate=rate, epochs=5, batch_size=n)
        project, without = recorded(start, recipe), recorded(start, recipe, weights)
        patch = patched(project, "unrolled_sgd")
        errors.append((flat(patch.model) - flat(without.model)).norm())
        assert errors[-1] < 0.1 * (flat(project.model) - flat(without.model)).norm()
    assert 3.5 < errors[0] / errors[1] < 4.5


# --- gradient ascent ------------------------------------------------------------


def test_one_step_of_gradient_ascent():
    start = trained()
    gradients = Reference(start).gradients()
    method = puma.UNLEARNERS["gradient_ascent"](learning_rate=0.2, steps=1)
    patch = patched(start.project(), method)
    expected = 0.2 / len(REMOVED) * gradients[list(REMOVED)].sum(0)
    torch.testing.assert_close(patch.delta, expected)


def test_more_steps_raise_the_removed_losses_more_and_harm_the_rest():
    start, reference = trained(), Reference(trained())
    marked = torch.isin(torch.arange(60), torch.tensor(REMOVED))
    found = []
    for steps in (1, 20):
        method = puma.UNLEARNERS["gradient_ascent"](learning_rate=0.5, steps=steps)
        theta = flat(patched(start.project(), method).model)
        losses = reference.losses(reference.x, reference.y, theta) - reference.losses(
            reference.x, reference.y
        )
        found.append((losses[marked].mean(), losses[~marked].mean()))
    assert 0 < found[0][0] < found[1][0]
    assert found[1][1] > 0


# --- what cannot be ------------------------------------------------------------

NEEDS = {
    "amnesiac": "updates=True",
    "unrolled_sgd": r"recorder\.batch\(rows\)",
}


@pytest.mark.parametrize("method", NEEDS)
def test_missing_records_are_named(method):
    project = CASES["softmax"].project()
    with pytest.raises(puma.ProjectError, match=NEEDS[method]) as caught:
        patched(project, method)
    reasons = usable(puma.UNLEARNERS, project)
    assert reasons[method] == str(caught.value)
    assert {key for key, reason in reasons.items() if reason} == set(NEEDS)
    assert all("recorder" in puma.UNLEARNERS[key].needs for key in NEEDS)


@pytest.mark.parametrize("method", ["fine_tune", "amnesiac", "sisa"])
def test_half_a_removal_is_refused(method):
    project = dataclasses.replace(
        (made := recorded(CASES["softmax"], sgd())), records=puma.train_shards(made, 2, 1)
    )
    with pytest.raises(puma.ProjectError, match="strength 1 for"):
        patched(project, method, remove=REMOVED, strength=0.5)


def test_amnesiac_cannot_up_weight():
    with pytest.raises(puma.ProjectError, match="up-weights rows 4"):
        patched(recorded(CASES["softmax"], sgd()), "amnesiac", upweight={4: 1.0})


def test_an_ascent_that_explodes_is_refused():
    method = puma.UNLEARNERS["gradient_ascent"](learning_rate=1e300, steps=4)
    with pytest.raises(puma.ProjectError, match="smaller steps"):
        patched(CASES["regression"].project(), method)


@pytest.mark.parametrize("method", ["fine_tune", "amnesiac", "sisa", "unrolled_sgd", "gradient_ascent"])
def test_costs_are_known_before(method):
    made = recorded(CASES["softmax"], sgd(batch_size=2))
    project = dataclasses.replace(made, records=puma.train_shards(made, 2, 2))
    found = patch_estimate(project, puma.PatchPlan(remove=(1,), method=method))
    assert 0 < found.seconds < 60
    assert found.bytes > 0


def test_batch_statistics_stay_with_their_members():
    """Members of a network with BatchNorm keep running means of their own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    patch = patched(sharded(case(model, (3,), 3, n=30)), "sisa")
    means = [member[1].running_mean for member in patch.model.members]
    assert not torch.equal(means[0], means[1])
