"""Adversarial examples: where they lie, what they do, and that a patch does not move them."""

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.engine import Engine, engine_of

from .cases import CASES, LOSS, Reference, case, flat, mlp, trained


def examples(project, criterion=None, **engine):
    return (criterion or puma.Adversarial()).evaluation(Engine(project, **engine)).inputs


@pytest.mark.parametrize("name", ["softmax", "one logit", "convolution"])
@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_examples_lie_near_and_hurt(name, epsilon):
    project, reference = CASES[name].project(), Reference(CASES[name])
    x, y = (torch.as_tensor(part) for part in CASES[name].validation)
    moved = examples(project, puma.Adversarial(epsilon=epsilon))
    low, high = CASES[name].train[0].min(), CASES[name].train[0].max()
    assert (moved - x).abs().max() <= epsilon + 1e-12
    assert (moved >= torch.minimum(x, torch.tensor(low))).all()
    assert (moved <= torch.maximum(x, torch.tensor(high))).all()
    before, after = (reference.losses(at, y) for at in (x, moved))
    random = x + epsilon * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert (after >= before - 1e-9).all()
    assert after.mean() > reference.losses(random, y).mean()
    found = Engine(project).criterion(puma.Adversarial(epsilon=epsilon))
    assert found == pytest.approx(float(after.mean()))


def test_the_best_a_linear_model_can_be_fooled():
    """The worst corner of the box is known: each input moves against its weight."""
    line = case(mlp(3, 1), (3,), 1, "binary_cross_entropy")
    x, y = (torch.as_tensor(part) for part in line.validation)
    project = line.project(train=puma.Split(100 * line.train[0], line.train[1]))  # a range far away
    corner = x - 0.1 * (2 * y[:, None] - 1) * line.model[0].weight.detach().sign()
    torch.testing.assert_close(examples(project), corner)


def test_inputs_stay_in_the_range_of_training():
    x, y = CASES["softmax"].train
    inside = CASES["softmax"].but(train=(x.clip(-0.5, 0.5), y), validation=(x[:15].clip(-0.5, 0.7), y[:15]))
    moved = examples(inside.project(), puma.Adversarial(epsilon=0.3))
    beyond = torch.as_tensor(x[:15]) > 0.5
    assert moved.min() == -0.5
    assert moved[~beyond].max() == 0.5
    assert (moved[beyond] <= torch.as_tensor(x[:15].clip(-0.5, 0.7))[beyond]).all()


def test_examples_do_not_depend_on_the_batches():
    project = CASES["convolution"].project()
    whole, ones, sevens = (examples(project, batch_size=size) for size in (None, 1, 7))
    torch.testing.assert_close(ones, whole)
    torch.testing.assert_close(sevens, whole)


def test_examples_know_their_seed_and_are_crafted_once():
    engine = Engine(CASES["softmax"].project())
    first, again = (puma.Adversarial().evaluation(engine).inputs for _ in range(2))
    assert first is again
    assert torch.equal(first, examples(CASES["softmax"].project()))
    few = puma.Adversarial(steps=1, seed=0), puma.Adversarial(steps=1, seed=1)
    assert not torch.equal(*(criterion.evaluation(engine).inputs for criterion in few))
    some = puma.Adversarial(rows=(3, 5)).evaluation(engine)
    assert torch.equal(some.inputs, first[[3, 5]])
    assert puma.Adversarial(epsilon=0.0).evaluation(engine).inputs.equal(engine.split("validation").inputs)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_patch_is_measured_on_the_examples_of_the_model_before(split):
    case = trained()
    project = case.project(test=puma.Split(*case.validation))
    plan = puma.PatchPlan(remove=range(20), hold=("adversarial",), tolerance={"adversarial": 10.0})
    patch = puma.patch(project, plan, curvature=puma.Dense(damping=0.02))
    assert patch.strength == 1
    moved, y = examples(project), torch.as_tensor(case.validation[1])
    change = float(
        (
            LOSS["cross_entropy"](Reference(case).outputs(moved, flat(patch.model)), y)
            - LOSS["cross_entropy"](Reference(case).outputs(moved), y)
        ).mean()
    )
    assert patch.measured["adversarial"] == pytest.approx(change)
    verdict = puma.compare(project, patch, split=split).verdicts.iloc[1]  # after the error rate
    assert verdict["measured"] == pytest.approx(change)
    assert verdict["low"] < change < verdict["high"]
    anew = Engine(project.with_model(patch.model))
    kept = puma.Adversarial().evaluation(engine_of(project))
    assert anew.criterion(puma.Adversarial(), data=kept) < anew.criterion(puma.Adversarial())
    assert anew.criterion_gradient(puma.Adversarial(), data=kept)[0] == pytest.approx(
        anew.criterion(puma.Adversarial(), data=kept)
    )


def test_token_ids_are_refused():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.top = nn.Embedding(5, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.top(self.embed(ids).mean(1))

    ids, y = np.random.default_rng(0).integers(0, 5, (20, 3)), np.arange(20) % 2
    project = puma.Project(
        name="tokens", model=Tokens(), train=puma.Split(ids, y), validation=puma.Split(ids[:8], y[:8])
    )
    with pytest.raises(puma.ProjectError, match=r"whole numbers \(torch.int64\), such as token ids"):
        puma.value(project, criterion="adversarial")
