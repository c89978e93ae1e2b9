"""What the recorder keeps, against a training loop written out here; where it lies and when it is dropped."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.recorder import ARRAYS, FACTS
from puma_dash.core.registry import usable

from .cases import CASES, CONVEX, Reference, flat

CASE = CASES["softmax"]
BATCHES = np.arange(22)[::-1].reshape(2, 11)


def loop(model, on_step=lambda rows: None, on_epoch=lambda optimizer: None, epochs=4):
    """Somebody's own training: SGD with momentum whose rate halves every epoch."""
    x, y = (torch.as_tensor(part) for part in CASE.train)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(epochs):
        for rows in BATCHES:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows.copy()]), y[rows.copy()]).backward()
            optimizer.step()
            on_step(rows)
        on_epoch(optimizer)
        schedule.step()
    return model


def recorded(model=None, **options):
    model = copy.deepcopy(CASE.model) if model is None else model
    recorder = puma.Recorder(model, **options)
    loop(model, recorder.batch, recorder.epoch)
    return recorder, model


@pytest.fixture(scope="module")
def full():
    recorder, model = recorded(updates=True)
    return recorder.records(), model


def test_what_a_loop_of_ones_own_leaves_behind(full):
    records, model = full
    steps, epochs = [flat(CASE.model).clone()], []
    again = copy.deepcopy(CASE.model)
    loop(again, lambda _: steps.append(flat(again).clone()), lambda _: epochs.append(flat(again).clone()))
    assert torch.equal(flat(model), flat(again))
    assert torch.equal(records.start, flat(CASE.model))
    torch.testing.assert_close(records.checkpoints, torch.stack(epochs), rtol=0, atol=0)
    torch.testing.assert_close(records.updates, torch.stack(steps).diff(dim=0), rtol=0, atol=0)
    assert [rows.tolist() for rows in records.batches] == BATCHES.tolist() * 4
    np.testing.assert_allclose(records.rates, [0.4, 0.2, 0.1, 0.05])
    assert (records.epochs, records.optimizer) == ((1, 2, 3, 4), "SGD")


def test_every_other_checkpoint_and_no_updates():
    records = recorded(every=2)[0].records()
    assert records.epochs == (2, 4)
    assert len(records.checkpoints) == 2
    assert len(records.rates) == 4
    assert records.updates is None


def test_frozen_parameters_are_left_out():
    model = copy.deepcopy(CASE.model)
    model[0].requires_grad_(False)
    records = recorded(model)[0].records()
    assert list(records.shapes) == ["2.weight", "2.bias"]
    torch.testing.assert_close(records.checkpoints[-1], flat(model))


def test_files_carry_all_of_it(full, tmp_path):
    records, model = full
    project = CASE.but(model=model).project(records=records)
    records = puma.train_shards(project, shards=2, slices=2)
    records.save(tmp_path / "a" / "b")
    back = puma.read_records(tmp_path / "a" / "b")
    assert back.digest == records.digest
    assert (back.shapes, back.rates, back.epochs) == (records.shapes, records.rates, records.epochs)
    assert torch.equal(back.updates, records.updates)
    assert [rows.tolist() for rows in back.batches] == [rows.tolist() for rows in records.batches]
    for s in range(2):
        for r in range(2):
            assert torch.equal(back.shards.rows[s][r], records.shards.rows[s][r])
            for name, value in records.shards.states[s][r].items():
                assert torch.equal(back.shards.states[s][r][name], value)
    assert (back.shards.epochs, back.shards.recipe) == (records.shards.epochs, records.shards.recipe)


def test_the_digest_is_that_of_the_content(full):
    records = full[0]
    assert dataclasses.replace(records).digest == records.digest
    moved = records.checkpoints.clone()
    moved[0, 0] += 1e-6
    others = [
        dataclasses.replace(records, checkpoints=moved),
        dataclasses.replace(records, rates=(0.4, 0.2, 0.1, 0.06)),
        dataclasses.replace(records, batches=records.batches[::-1]),
        dataclasses.replace(records, updates=None),
    ]
    assert len({records.digest, *(other.digest for other in others)}) == 5


def test_records_belong_to_the_fingerprint_and_to_one_model_only(full):
    records, model = full
    project = CASE.but(model=model).project()
    known = dataclasses.replace(project, records=records)
    assert known.fingerprint != project.fingerprint
    assert dataclasses.replace(known, records=None).fingerprint == project.fingerprint
    assert known.with_model(CASE.model).records is None
    patch = puma.patch(known, puma.PatchPlan(remove=(1,), method="influence"))
    assert puma.apply(known, patch).records is None
    assert (
        puma.apply(known, patch).fingerprint
        == puma.apply(project, puma.patch(project, patch.plan)).fingerprint
    )


@pytest.mark.parametrize("kind", [puma.AdamRecipe, puma.SGDRecipe])
def test_a_recipe_feeds_a_recorder_and_trains_the_same(kind):
    start = CONVEX["weighted softmax"]
    project, weights = start.project(), torch.as_tensor(start.weights)
    recipe = kind(project.loss, learning_rate=0.05, epochs=6, batch_size=5)
    plain, model = copy.deepcopy(project.model), copy.deepcopy(project.model)
    recorder = puma.Recorder(model, every=3, updates=True)
    recipe(plain, project.train, weights, 0.02, 4)
    recipe(model, project.train, weights, 0.02, 4, recorder=recorder)
    records = recorder.records()
    assert torch.equal(flat(plain), flat(model))
    assert torch.equal(records.checkpoints[-1], flat(model))
    torch.testing.assert_close(records.updates.sum(0), flat(model) - flat(project.model))
    used = np.flatnonzero(start.weights)
    per_epoch = len(records.batches) // 6
    for epoch in range(6):
        rows = torch.cat(records.batches[epoch * per_epoch : (epoch + 1) * per_epoch])
        np.testing.assert_array_equal(rows.sort().values, used)
    if kind is puma.SGDRecipe:
        np.testing.assert_allclose(records.rates, 0.05)
    else:
        steps = np.cos(np.pi * np.arange(6 * per_epoch) / (6 * per_epoch))
        expected = 0.025 * (1 + steps.reshape(6, -1)).mean(1)
        np.testing.assert_allclose(records.rates, expected, rtol=1e-6)


def test_plain_gradient_descent_is_that_of_the_objective():
    """Full batches with a weight of 0 and weight decay: theta <- theta - lr grad J."""
    start = CASES["weighted softmax"]
    reference = Reference(start)
    project = start.project()
    recipe = puma.SGDRecipe(project.loss, learning_rate=0.3, epochs=3, batch_size=22)
    model = recipe(copy.deepcopy(project.model), project.train, torch.as_tensor(start.weights), 0.02, 0)
    theta = reference.theta
    for _ in range(3):
        theta = theta - 0.3 * (reference.gradients(theta).sum(0) / 22 + 0.02 * theta)
    torch.testing.assert_close(flat(model), theta)


def test_the_regulariser_is_the_standard_deviation_of_the_logits():
    z = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).double()
    z[3] = 2.0  # all equal: no deviation, and a gradient all the same
    y = torch.arange(7) % 4
    loss = puma.SoftmaxCrossEntropy()
    leaf = z.clone().requires_grad_()
    found = puma.SGDRecipe(loss, deviation=1.5).losses(leaf, y)
    np.testing.assert_allclose(
        found.detach() - loss(z, y), 1.5 * np.std(z.numpy(), axis=1, ddof=1), atol=1e-12
    )
    found.sum().backward()
    assert leaf.grad.isfinite().all()
    with pytest.raises(puma.ProjectError, match="at least 2 logits"):
        puma.SGDRecipe(puma.BinaryCrossEntropy(), deviation=1.0).losses(z[:, :1], y % 2)


def test_demos_come_with_records():
    project = puma.load("radial")
    records = project.records
    assert torch.equal(records.checkpoints[-1], flat(project.model))
    assert records.epochs == tuple(range(10, 101, 10))
    assert records.optimizer == "Adam"
    assert records.bytes < 2e6
    torch.testing.assert_close(records.start + records.updates.sum(0), flat(project.model), rtol=0, atol=1e-4)
    assert {key for key, reason in usable(puma.UNLEARNERS, project).items() if reason} == set()
    assert usable(puma.VALUATIONS, project)["tracin"] is None


def test_a_project_folder_names_its_records(tmp_path, full):
    from safetensors.torch import save_file

    records, model = full
    x, y = CASE.train
    np.savez(tmp_path / "train.npz", inputs=x, targets=y)
    save_file(model.state_dict(), str(tmp_path / "model.safetensors"))
    records.save(tmp_path / "kept")
    settings = """
[model]
weights = "model.safetensors"
activation = "tanh"
[data]
train = { inputs = "train.npz:inputs", targets = "train.npz:targets" }
validation = { inputs = "train.npz:inputs", targets = "train.npz:targets" }
[training]
records = "kept"
"""
    (tmp_path / "project.toml").write_text(settings)
    project = puma.load(tmp_path)
    assert project.records.digest == records.digest
    assert project.trainer is None
    (tmp_path / "kept" / ARRAYS).unlink()
    with pytest.raises(puma.ProjectError, match=r"records\.safetensors"):
        puma.load(tmp_path)


def changed(records, **changes):
    return lambda: CASE.project(records=dataclasses.replace(records, **changes))


def test_records_that_do_not_fit_are_refused(full, tmp_path):
    records, _ = full
    rows = torch.tensor([3, 22])
    bad = {
        "what puma.read_records returns, but got dict": lambda: CASE.project(records={}),
        "but these differ: 0.bias, 0.weight, 2.bias": lambda: CASES["one logit"].project(records=records),
        "start of shape (38,)": changed(records, start=torch.zeros(5)),
        "updates of shape (8, 38)": changed(records, updates=records.updates[:3]),
        "finite checkpoints": changed(records, checkpoints=records.checkpoints * torch.nan),
        "a learning rate for each checkpoint": changed(records, rates=(0.1,)),
        "rows 0 to 21, but they name 22": changed(records, batches=(rows, *records.batches[1:])),
        "at least 1 epoch": lambda: puma.Recorder(CASE.model, every=0),
        "there are none": lambda: puma.read_records(tmp_path),
    }
    for fragment, call in bad.items():
        with pytest.raises(puma.ProjectError) as caught:
            call()
        assert fragment in str(caught.value)


@pytest.mark.parametrize("spoil", ["json", "keys", "arrays", "shards"])
def test_broken_files_are_one_sentence(full, tmp_path, spoil):
    full[0].save(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    if spoil == "json":
        (tmp_path / FACTS).write_text("{")
    elif spoil == "arrays":
        (tmp_path / ARRAYS).write_bytes(b"\x08")
    else:
        del facts["shapes"]
        (tmp_path / FACTS).write_text(json.dumps(facts if spoil == "keys" else {**facts, "shards": 3}))
    with pytest.raises(puma.ProjectError, match="cannot be read"):
        puma.read_records(tmp_path)
