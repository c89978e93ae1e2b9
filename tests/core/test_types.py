"""The records: selections, splits, fingerprints, saving, and what a project is after its patch."""

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import puma_dash as puma

from .cases import CASES, Reference, converged, flat

ROOT = Path(__file__).parents[2]
sets = st.sets(st.integers(0, 30))


@given(sets, sets)
def test_selections_are_sets(a, b):
    left, right = puma.Selection(list(a), "a"), puma.Selection(list(b), "b")
    for found, expected in ((left | right, a | b), (left & right, a & b), (left - right, a - b)):
        assert list(found) == sorted(expected)
        assert len(found) == len(expected)


def test_a_selection_keeps_its_reason_and_its_rows():
    selection = (puma.Selection([3, 1, 3], "lasso") | puma.Selection([2], "rule")) - puma.Selection([1])
    assert selection.rows.tolist() == [2, 3]
    assert "lasso" in selection.reason
    assert "rule" in selection.reason
    with pytest.raises(ValueError, match="read-only"):
        selection.rows[0] = 5
    assert puma.PatchPlan(remove=selection).remove == (2, 3)


@pytest.mark.parametrize("mask", [np.array([True, False, True]), [False, False, True]])
def test_a_mask_is_no_list_of_rows(mask):
    """Read as numbers, a mask means rows 0 and 1: either it is understood or it is refused."""
    for make in (puma.Selection, lambda rows: puma.CrossEntropy(rows=rows)):
        try:
            rows = list(make(mask).rows)
        except puma.ProjectError:
            continue
        assert rows == np.flatnonzero(mask).tolist()


def test_split_take():
    table = pd.DataFrame({"name": list("abcd")})
    split = puma.Split(np.arange(8.0).reshape(4, 2), [0, 1, 0, 1], np.arange(4.0), table, table)
    part = split.take(np.array([2, 0]))
    assert part.inputs.tolist() == [[4, 5], [0, 1]]
    assert part.targets.tolist() == [0, 0]
    assert part.weights.tolist() == [2, 0]
    assert part.groups["name"].tolist() == part.meta["name"].tolist() == ["c", "a"]
    assert len(part) == 2


def changed(part, row=3):
    other = np.array(part, copy=True)
    other[row] = (other[row] + 1) % 3 if other.ndim == 1 else other[row] + 1e-9
    return other


SOFTMAX = CASES["softmax"]
VARIANTS = {
    "weights of the model": lambda: SOFTMAX.but(model=CASES["weighted softmax"].model).project(
        model=Reference(SOFTMAX).model_at(Reference(SOFTMAX).theta + 1e-9)
    ),
    "training inputs": lambda: SOFTMAX.but(train=(changed(SOFTMAX.train[0]), SOFTMAX.train[1])).project(),
    "training labels": lambda: SOFTMAX.but(train=(SOFTMAX.train[0], changed(SOFTMAX.train[1]))).project(),
    "validation inputs": lambda: SOFTMAX.project(
        validation=puma.Split(changed(SOFTMAX.validation[0]), SOFTMAX.validation[1])
    ),
    "row weights": lambda: SOFTMAX.but(weights=np.linspace(0.5, 1, 22)).project(),
    "weight decay": lambda: SOFTMAX.project(weight_decay=0.03),
    "a test split": lambda: SOFTMAX.project(test=puma.Split(*SOFTMAX.validation)),
    "the activation": lambda: SOFTMAX.project(
        model=nn.Sequential(SOFTMAX.model[0], nn.ReLU(), SOFTMAX.model[2])
    ),
    "a frozen layer": lambda: SOFTMAX.project(model=frozen(SOFTMAX.model)),
    "class names": lambda: SOFTMAX.project(class_names=("a", "b", "c")),
    "a trainer": lambda: SOFTMAX.project(trainer=puma.AdamRecipe(SOFTMAX.project().loss)),
    "what is known of the rows": lambda: SOFTMAX.project(
        validation=puma.Split(*SOFTMAX.validation, meta=pd.DataFrame({"site": np.arange(15) % 2}))
    ),
}


def frozen(model):
    model = copy.deepcopy(model)
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_fingerprint_tells_projects_apart(variant):
    """Scores and patches of one must not pass for those of the other."""
    assert variant().fingerprint != SOFTMAX.project().fingerprint


def test_a_fingerprint_is_that_of_the_content():
    again = copy.deepcopy(SOFTMAX.model).train()
    assert SOFTMAX.project(name="other", model=again).fingerprint == SOFTMAX.project().fingerprint


def test_a_fingerprint_is_the_same_in_another_process():
    code = "from tests.core.cases import CASES; print(CASES['convolution'].project().fingerprint)"
    told = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert told.strip() == CASES["convolution"].project().fingerprint


def test_a_saved_patch_is_restored_exactly(tmp_path):
    single = CASES["convolution"].but(model=copy.deepcopy(CASES["convolution"].model).float())
    patch = puma.patch(single.project(), puma.PatchPlan(remove=(1, 2), method="influence"))
    patch.save(tmp_path / "patched.safetensors")
    restored = copy.deepcopy(single.model)
    restored.load_state_dict(load_file(tmp_path / "patched.safetensors"))
    for name, value in patch.model.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name


def test_a_project_after_its_patch():
    """Model, labels and weights fit together: retraining on them comes to where the patch pointed."""
    case = converged("softmax")
    label = int(case.train[1][4] + 1) % 3
    plan = puma.PatchPlan(remove=(1,), upweight={2: 0.5}, relabel={4: label}, method="influence")
    project = case.project()
    patch = puma.patch(project, plan, curvature=puma.Dense(damping=0.0))
    after = puma.apply(project, patch)
    assert torch.equal(flat(after.model), flat(patch.model))
    np.testing.assert_allclose(after.train.weights, np.ones(30) - np.eye(30)[1] + 0.5 * np.eye(30)[2])
    assert after.train.targets[4] == label
    assert project.train.targets[4] != label
    assert project.train.weights is None
    assert after.fingerprint != project.fingerprint
    targets = after.train.targets.numpy()
    exact = Reference(case.but(train=(case.train[0], targets))).minimise(after.train.weights)
    assert (flat(after.model) - exact).norm() < 0.2 * (flat(case.model) - exact).norm()


def test_a_project_after_half_its_patch():
    """A removal of strength 1/2 leaves half of the row's weight in the training objective."""
    project = converged("softmax").project()
    plan = puma.PatchPlan(remove=(1,), upweight={2: 0.5}, method="influence", strength=0.5)
    after = puma.apply(project, puma.patch(project, plan))
    np.testing.assert_allclose(after.train.weights[:4], [1, 0.5, 1.25, 1])


@pytest.mark.parametrize(
    ("predicted", "measured", "ratio", "doubtful"),
    [
        (-0.1, -0.05, 0.5, False),
        (-0.1, -0.2, 2.0, False),
        (-0.1, -0.04, 0.4, True),
        (-0.1, -0.21, 2.1, True),
        (-0.1, 0.1, -1.0, True),
        (1e-7, -9e-7, -9.0, False),
        (0.0, 0.1, np.nan, True),
        (0.0, 0.0, np.nan, False),
    ],
)
def test_a_patch_doubts_its_prediction(predicted, measured, ratio, doubtful):
    made = puma.patch(SOFTMAX.project(), puma.PatchPlan(remove=(1,), method="influence"))
    values = {"predicted": {"brier": predicted}, "measured": {"brier": measured}}
    patch = dataclasses.replace(made, **values)
    np.testing.assert_allclose(patch.ratio["brier"], ratio)
    assert patch.doubts == (("brier",) if doubtful else ())


def test_what_predicts_nothing_raises_no_doubt():
    plan = puma.PatchPlan(remove=(1,), hold=("brier",), method="retrain")
    patch = puma.patch(SOFTMAX.project(trainer=lambda *_: SOFTMAX.model), plan)
    assert (patch.ratio, patch.doubts) == ({}, ())


def test_valuation_order():
    valuation = puma.Valuation(np.array([0.5, -1.0, 3.0, -1.0]), "psi", "brier", "", {})
    assert valuation.harmful(3).tolist() == [1, 3, 0]
    assert valuation.harmful(0).tolist() == []
    assert valuation.harmful(99).tolist() == [1, 3, 0, 2]


def test_random_scores_know_their_seed():
    project = SOFTMAX.project()
    kind = puma.VALUATIONS["random"]
    first, again, other = (puma.value(project, kind(seed=seed)).scores for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("module", ["puma_dash", "puma_dash.core.types"])
def test_light_imports_stay_light(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
