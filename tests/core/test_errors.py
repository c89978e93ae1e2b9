"""One table: what a person may do wrong, and words that the answer must contain."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma

from .cases import CASES, case, mlp, trained

SOFTMAX, REGRESSION, ONE_LOGIT = (CASES[name] for name in ("softmax", "regression", "one logit"))
ONE_OUTPUT = case(mlp(3, 1), (3,), 1, "squared_error")
X, Y = SOFTMAX.train


def put(array, row, value):
    """A copy with one row set."""
    array = array.astype(float)
    array[row] = value
    return array


def project(model=None, x=X, y=Y, like=SOFTMAX, **changes):
    return like.but(model=model or like.model, train=(x, y)).project(**changes)


def train(weights=None, x=X, y=Y, **parts):
    return SOFTMAX.project(train=puma.Split(x, y, weights, **parts))


def plan(
    hold=(), tolerance=None, method="influence", like=SOFTMAX, call=puma.patch, curvature="auto", **rows
):
    made = puma.PatchPlan(hold=hold, tolerance=tolerance or {}, method=method, **rows)
    return call(like.project(), made, curvature=curvature)


def value(method="psi", criterion=None, like=SOFTMAX, **options):
    return puma.value(like.project(), method, criterion, **options)


class Noisy(nn.Linear):
    """Not the same twice."""

    def forward(self, x):
        return super().forward(x) + 0.01 * torch.randn(len(x), 3).double()


class Returns(nn.Module):
    """Whatever ``of`` makes of the logits."""

    def __init__(self, of):
        super().__init__()
        self.inner, self.of = mlp(3, 3), of

    def forward(self, x):
        return self.of(self.inner(x))


CLASS_ZERO = tuple(int(row) for row in np.flatnonzero(Y == 0))

DATA = {
    "no rows": (lambda: project(x=X[:0], y=Y[:0]), "rows in the train split"),
    "targets too few": (lambda: project(y=Y[:-1]), "as many rows as the inputs (22), but got 21"),
    "weights too few": (lambda: train(np.ones(21)), "as many rows as the inputs (22), but got 21"),
    "weights of two dimensions": (lambda: train(np.ones((22, 1))), "weights"),
    "weights negative": (lambda: train(put(np.ones(22), [3, 5], -1)), "weights >= 0, but rows 3, 5"),
    "weights not finite": (lambda: train(put(np.ones(22), 4, np.nan)), "rows 4 hold NaN"),
    "weights all zero": (lambda: train(np.zeros(22)), "weights"),
    "NaN in rows": (lambda: project(x=put(X, [2, 9], np.nan)), "rows 2, 9 hold NaN or infinity"),
    "infinity in a row": (lambda: project(x=put(X, 7, np.inf)), "rows 7 hold NaN or infinity"),
    "many NaN rows": (lambda: project(x=put(X, slice(0, 20), np.nan)), "5, 6, 7 and 12 more"),
    "NaN target": (
        lambda: project(REGRESSION.model, y=put(REGRESSION.train[1], 1, np.nan), like=REGRESSION),
        "rows 1 hold",
    ),
    "words as inputs": (lambda: project(x=X.astype(str)), "inputs to be numbers"),
    "words as labels": (lambda: project(y=Y.astype(str)), "targets to be numbers"),
    "objects as inputs": (lambda: project(x=X.astype(object)), "inputs to be numbers"),
    "complex inputs": (lambda: project(x=X.astype(complex)), "real train inputs"),
    "label too large": (lambda: project(y=np.where(Y == 2, 3, Y)), "labels from 0 to 2"),
    "label negative": (lambda: project(y=np.where(np.arange(22) == 5, -1, Y)), "rows 5"),
    "fractional label": (lambda: project(y=put(Y, 3, 0.5)), "fractions"),
    "one-hot labels": (lambda: project(y=np.eye(3)[Y]), "argmax"),
    "a class missing": (lambda: project(y=np.where(Y == 1, 0, Y)), "train split, but it has no row of 1"),
    "a class missing from validation": (
        lambda: SOFTMAX.project(validation=puma.Split(X[Y != 2], Y[Y != 2]), class_names=("a", "b", "c")),
        "validation split, but it has no row of c",
    ),
    "a class missing from test": (
        lambda: SOFTMAX.project(test=puma.Split(X[Y != 0], Y[Y != 0])),
        "test split",
    ),
    "class names too few": (lambda: project(class_names=("a", "b")), "3 class names"),
    "regression targets too narrow": (
        lambda: project(REGRESSION.model, y=REGRESSION.train[1][:, :1], like=REGRESSION),
        "(n, 2)",
    ),
    "regression targets flat": (
        lambda: project(REGRESSION.model, y=REGRESSION.train[1][:, 0], like=REGRESSION),
        "(n, 2)",
    ),
    "regression targets complex": (
        lambda: project(REGRESSION.model, y=REGRESSION.train[1] * 1j, like=REGRESSION),
        "real train targets",
    ),
    "names of outputs too few": (lambda: REGRESSION.project(class_names=("a",)), "one per output"),
    "a split that is not there": (lambda: SOFTMAX.project().split("test"), "no"),
    "a split that is none": (lambda: SOFTMAX.project().split("holdout"), "train, validation, test"),
}

MODELS = {
    "wrong input width": (lambda: project(mlp(4, 3)), "inputs of shape"),
    "no gradient": (lambda: project(mlp(3, 3).requires_grad_(False)), "requires_grad_"),
    "random in eval mode": (lambda: project(Noisy(3, 3).double()), "same outputs"),
    "a tuple": (lambda: project(Returns(lambda z: (z, z))), "tuple"),
    "a flat output": (lambda: project(Returns(lambda z: z[:, 0])), "shape (16, c)"),
    "rows lost": (lambda: project(Returns(lambda z: z[:1])), "shape (16, c)"),
    "NaN outputs": (lambda: project(Returns(lambda z: z * np.nan)), "finite outputs"),
    "one logit for cross-entropy": (lambda: project(mlp(3, 1)), "binary_cross_entropy"),
    "two logits for the binary loss": (
        lambda: project(mlp(3, 2), like=ONE_LOGIT, y=ONE_LOGIT.train[1]),
        "one logit",
    ),
    "an unknown loss": (lambda: project(loss="hinge"), "cross_entropy, binary_cross_entropy, squared_error"),
    "class weights too few": (
        lambda: project(loss=puma.SoftmaxCrossEntropy(class_weights=(1, 2))),
        "3 class_weights, one per class, but got 2",
    ),
    "a class weight of 0": (lambda: puma.SoftmaxCrossEntropy(class_weights=(1, 0)), "a positive number"),
    "a class weight not a number": (
        lambda: puma.BinaryCrossEntropy(class_weights=(1, np.nan)),
        "a positive number for each class",
    ),
    "class weights in words": (lambda: puma.SoftmaxCrossEntropy(class_weights="balanced"), "such as"),
    "one class weight": (lambda: puma.BinaryCrossEntropy(class_weights=2.0), "such as"),
    "no class weights": (lambda: puma.SoftmaxCrossEntropy(class_weights=()), "try None"),
    "too much smoothing": (
        lambda: puma.SoftmaxCrossEntropy(label_smoothing=1.5),
        "label_smoothing to be a number from 0 to 1",
    ),
    "weight decay negative": (lambda: project(weight_decay=-1.0), "weight_decay >= 0"),
    "weight decay infinite": (lambda: project(weight_decay=float("inf")), "weight_decay >= 0"),
    "weight decay not a number": (lambda: project(weight_decay=float("nan")), "weight_decay >= 0"),
}

PLANS = {
    "nothing to do": (lambda: plan(), "plan is empty"),
    "a row out of range": (
        lambda: plan(remove=(3, 22, 99)),
        "training rows 0 to 21, but the plan names 22, 99",
    ),
    "an upweighted row out of range": (lambda: plan(upweight={22: 1.0}), "0 to 21"),
    "a negative row": (lambda: plan(remove=(-1,)), "from 0 in remove, but got -1"),
    "a fractional row": (lambda: plan(remove=(1.5,)), "whole row numbers"),
    "a mask": (lambda: plan(remove=np.arange(22) < 3), "whole row numbers"),
    "a row twice": (lambda: plan(remove=(4, 4, 2)), "but got 4 more than once"),
    "removed and upweighted": (lambda: plan(remove=(1, 2), upweight={2: 1.0}), "both name 2"),
    "removed and relabelled": (lambda: plan(remove=(1,), relabel={1: 0}), "both name 1"),
    "upweighted and relabelled": (lambda: plan(upweight={1: 1.0}, relabel={1: 0}), "both name 1"),
    "upweight zero": (lambda: plan(upweight={1: 0.0}), "e > 0"),
    "upweight negative": (lambda: plan(upweight={1: -0.5}), "e > 0"),
    "upweight infinite": (lambda: plan(upweight={1: float("inf")}), "e > 0"),
    "upweight in words": (lambda: plan(upweight={1: "much"}), "upweight"),
    "a class gone": (lambda: plan(remove=CLASS_ZERO), "leaves none of 0"),
    "a class relabelled away": (lambda: plan(relabel=dict.fromkeys(CLASS_ZERO, 1)), "leaves none of 0"),
    "a class gone by both": (
        lambda: plan(remove=CLASS_ZERO[:1], relabel=dict.fromkeys(CLASS_ZERO[1:], 1)),
        "leaves none",
    ),
    "all rows gone": (lambda: plan(remove=range(22)), "leaves none of 0, 1, 2"),
    "all rows of a regression gone": (lambda: plan(remove=range(22), like=REGRESSION), "remain"),
    "a label out of range": (lambda: plan(relabel={1: 3}), "labels from 0 to 2, but row 1"),
    "a label that is no number": (lambda: plan(relabel={1: "cat"}), "labels from 0 to 2"),
    "the label it has": (lambda: plan(relabel={1: int(Y[1])}), "already have the label"),
    "one new value where two are due": (lambda: plan(relabel={1: 1.0}, like=REGRESSION), "2 finite numbers"),
    "a new value that is infinite": (
        lambda: plan(relabel={1: (1.0, np.inf)}, like=REGRESSION),
        "2 finite numbers as the new target of row 1",
    ),
    "a new value in words": (lambda: plan(relabel={1: ("a", "b")}, like=REGRESSION), "2 finite numbers"),
    "a new value that is True": (lambda: plan(relabel={1: True}, like=ONE_OUTPUT), "a finite number"),
    "two new values where one is due": (
        lambda: plan(relabel={1: (1.0, 2.0)}, like=ONE_OUTPUT),
        "a finite number",
    ),
    "the value it has": (
        lambda: plan(relabel={1: REGRESSION.train[1][1]}, like=REGRESSION),
        "already have the target",
    ),
    "a fraction as a class": (lambda: plan(relabel={1: 1.5}), "labels from 0 to 2"),
    "an unknown intent": (lambda: plan(remove=(1,), intent="erase"), "unseen, forget"),
    "strength zero": (lambda: plan(remove=(1,), strength=0.0), "strength > 0"),
    "strength not a number": (lambda: plan(remove=(1,), strength=float("nan")), "strength > 0"),
    "strength in words": (lambda: plan(remove=(1,), strength="full"), "strength"),
    "no steps": (lambda: plan(remove=(1,), steps=0), "steps from 1"),
    "half a step": (lambda: plan(remove=(1,), steps=1.5), "steps from 1"),
    "held twice": (lambda: plan(remove=(1,), hold=("brier", puma.Brier())), "once"),
    "a tolerance for nothing held": (lambda: plan(remove=(1,), tolerance={"brier": 0.1}), "none is held"),
    "a tolerance for another": (lambda: plan(remove=(1,), hold=("brier",), tolerance={"nll": 0.1}), "brier"),
    "a tolerance below zero": (
        lambda: plan(remove=(1,), hold=("brier",), tolerance={"brier": -0.1}),
        "tolerances >= 0",
    ),
    "an unknown criterion": (lambda: plan(remove=(1,), hold=("accuracy",)), "cross_entropy, brier"),
    "an unknown method": (lambda: plan(remove=(1,), method="delete"), "puma, influence, retrain"),
    "half a retraining": (lambda: plan(remove=(1,), method="retrain", strength=0.5), "strength 1"),
    "checked before a forecast too": (lambda: plan(remove=(22,), call=puma.forecast), "0 to 21"),
}

CALLS = {
    "an unknown valuation": (
        lambda: value("shapley"),
        "names psi, influence, self_influence, ",
    ),
    "an unknown criterion": (lambda: value(criterion="accuracy"), "cross_entropy, brier, calibration"),
    "an unknown curvature": (
        lambda: value(curvature="newton"),
        "auto, dense, conjugate_gradient, kfac, ekfac, lissa",
    ),
    "something else as a curvature": (lambda: value(curvature=3.0), "a curvature"),
    "a device that is not there": (lambda: value(device="cuda:77"), "device of this machine"),
    "a device of no kind": (lambda: value(device="quantum"), "device of this machine"),
    "damping negative": (
        lambda: value(curvature=puma.Dense(damping=-0.1)),
        "damping to be a number of at least 0 or auto",
    ),
    "damping not a number": (
        lambda: value(curvature=puma.Dense(damping=float("nan"))),
        "damping to be a number of at least 0 or auto",
    ),
    "damping in words": (
        lambda: value(curvature=puma.ConjugateGradient(damping="some")),
        "damping to be a number of at least 0 or auto",
    ),
    "an unknown matrix": (lambda: value(curvature=puma.Dense(matrix="fisher")), "ggn or hessian"),
    "a LiSSA scale of 0": (
        lambda: value(curvature=puma.LiSSA(scale=0.0)),
        "scale to be a number of at least 1e-12 or auto",
    ),
    "a LiSSA scale in words": (
        lambda: value(curvature=puma.LiSSA(scale="large")),
        "scale to be a number of at least 1e-12 or auto",
    ),
    "an estimate of too large a sample": (
        lambda: puma.estimate(SOFTMAX.project(), puma.ConjugateGradient(rows=23)),
        "1 to 22 curvature rows",
    ),
    "no curvature rows": (
        lambda: value(curvature=puma.ConjugateGradient(rows=0)),
        "rows to be a whole number of at least 1 or None",
    ),
    "too many curvature rows": (
        lambda: value(curvature=puma.ConjugateGradient(rows=23)),
        "1 to 22 curvature rows",
    ),
    "a Hessian of a few rows": (
        lambda: value(curvature=puma.ConjugateGradient(rows=5, matrix="hessian")),
        "rows=None",
    ),
    "a criterion row out of range": (lambda: value(criterion=puma.Brier(rows=(3, 15))), "rows 0 to 14"),
    "a negative criterion row": (lambda: value(criterion=puma.Brier(rows=(-1,))), "rows 0 to 14"),
    "no criterion rows": (lambda: value(criterion=puma.Brier(rows=())), "at least one row"),
    "a number for criterion rows": (lambda: value(criterion=puma.Brier(rows=3)), "whole row numbers"),
    "a table of criterion rows": (lambda: value(criterion=puma.Brier(rows=[[1, 2]])), "whole row numbers"),
    "a fractional criterion row": (lambda: value(criterion=puma.Brier(rows=(1.5,))), "whole row numbers"),
    "a criterion on no split": (
        lambda: value(criterion=puma.Brier(split="holdout")),
        "train, validation or test",
    ),
    "a criterion on a missing split": (lambda: value(criterion=puma.Brier(split="test")), "test split"),
    "cross-entropy of a regression": (
        lambda: value(criterion="cross_entropy", like=REGRESSION),
        'this one is a regression; try "squared_error"',
    ),
    "brier of a regression": (lambda: value(criterion="brier", like=REGRESSION), "classification"),
    "squared error of a classifier": (lambda: value(criterion="squared_error"), "regression"),
    "the worst group of a regression without groups": (
        lambda: value(criterion="worst_group_error", like=REGRESSION),
        "groups in the validation split",
    ),
    "the worst group's loss of a regression": (
        lambda: value(criterion="worst_group", like=REGRESSION),
        "squared_error",
    ),
    "a class of a regression": (
        lambda: value(criterion=puma.MeanSquaredError(of_class=0), like=REGRESSION),
        "a class of a classifier",
    ),
    "a dense matrix too large": (
        lambda: value(like=case(mlp(3, 170, 120, 3), (3,), 3), curvature=puma.Dense()),
        "ConjugateGradient",
    ),
}

TABLE = {
    f"{part}: {name}": entry
    for part, table in (("data", DATA), ("model", MODELS), ("plan", PLANS), ("call", CALLS))
    for name, entry in table.items()
}


@pytest.mark.parametrize(("mistake", "words"), TABLE.values(), ids=TABLE)
def test_mistakes_are_answered_in_words(mistake, words):
    with pytest.raises(puma.ProjectError) as caught:
        mistake()
    text = str(caught.value)
    assert words in text
    assert text.startswith("expected ")
    assert text.endswith((".", ")"))


def test_a_project_error_is_a_value_error():
    assert issubclass(puma.ProjectError, ValueError)
    assert not issubclass(puma.Cancelled, puma.ProjectError)


ACCEPTED = {
    "labels as floats": lambda: project(y=Y.astype(np.float32)),
    "labels as a column": lambda: project(y=Y[:, None]),
    "labels as bytes": lambda: project(y=Y.astype(np.uint8)),
    "labels as bools": lambda: project(like=ONE_LOGIT, y=ONE_LOGIT.train[1].astype(bool)),
    "lists": lambda: project(x=X, y=Y.tolist()),
    "inputs in half precision": lambda: project(x=X.astype(np.float16)),
    "inputs backwards": lambda: project(x=X[::-1], y=Y[::-1]),
    "inputs read only": lambda: project(x=np.broadcast_to(X, X.shape)),
    "weights as whole numbers": lambda: train(np.ones(22, dtype=int)),
    "values of one output in a row": lambda: project(
        like=ONE_OUTPUT, y=ONE_OUTPUT.train[1][:, 0].astype(np.float32)
    ),
    "whole targets of a regression": lambda: project(
        like=REGRESSION, y=REGRESSION.train[1].round().astype(int)
    ),
    "a model in half precision": lambda: project(mlp(3, 4, 3).to(torch.bfloat16)),
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_meant_is_taken(make):
    made = make()
    assert np.isfinite(puma.value(made).scores).all()
    assert len(made.fingerprint) == 64


def test_rows_of_no_weight_do_not_keep_a_class():
    """After a patch its removed rows weigh nothing: the last of a class must not be removed later."""
    weights = np.where(np.isin(np.arange(22), CLASS_ZERO[1:]), 0.0, 1.0)
    with pytest.raises(puma.ProjectError, match="leaves none of 0"):
        puma.patch(train(weights), puma.PatchPlan(remove=CLASS_ZERO[:1], method="influence"))


def test_records_cannot_be_changed():
    made = trained().project()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        puma.PatchPlan(remove=(1,)).strength = 2.0
