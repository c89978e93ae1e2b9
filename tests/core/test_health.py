"""Health: every check against data made for it, a dense reference, or pandas."""

import copy
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import mean_squared_error
from torch import nn

import puma_dash as puma
from puma_dash.core.curvature import inverse_of
from puma_dash.core.engine import Engine
from puma_dash.core.evaluation.repeats import row_keys

from .cases import CASES, CONVEX, Reference, case, converged, mlp, trained


def found(project, check, **options):
    (finding,) = [f for f in puma.health(project, **options) if f.check == check]
    return finding


# --- the objective ------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_stationarity_is_half_the_newton_decrement_over_the_loss(name):
    reference = Reference(CASES[name])
    r = torch.autograd.functional.jacobian(reference.objective, reference.theta)
    damping = inverse_of(Engine(CASES[name].project()), "auto").facts["damping"]
    gain = r @ torch.linalg.solve(reference.b(damping), r) / 2
    loss = reference.a @ reference.losses(reference.x, reference.y) / reference.n
    finding = found(CASES[name].project(), "stationarity")
    assert finding.value == pytest.approx(float(gain / loss), rel=1e-9)
    assert finding.status != "ok"  # never trained
    assert f"{float(gain):.2g}" in finding.sentence


@pytest.mark.parametrize("name", CONVEX)
def test_a_minimum_is_recognised(name):
    project = converged(name).project()
    assert found(project, "stationarity").status == "ok"
    assert found(project, "stationarity").value < 1e-20
    assert found(project, "weight decay").status == "ok"


def test_a_trained_network_is_told_from_one_with_another_objective():
    assert found(trained().project(), "stationarity").status == "ok"
    for wd in (0.2, 1.0):
        assert found(trained().but(weight_decay=wd).project(), "stationarity").status == "warning"


def test_a_model_trained_without_weight_decay_is_told():
    start = CONVEX["regression"].but(weight_decay=0.0)
    reference = Reference(start)
    model = reference.model_at(reference.minimise())
    finding = found(start.but(model=model, weight_decay=2.0).project(), "weight decay")
    assert finding.status == "warning"
    assert finding.value == pytest.approx(0, abs=1e-9)
    assert "trained without any" in finding.sentence


@pytest.mark.parametrize("declared", [0.2, None])
@pytest.mark.parametrize("name", CONVEX)
def test_the_weight_decay_of_training_is_read_off_the_model(name, declared):
    """At a minimum grad loss = -wd theta, whatever the metric: the estimate is exact."""
    finding = found(converged(name).but(weight_decay=declared).project(), "weight decay")
    assert finding.value == pytest.approx(0.02, rel=1e-6)
    assert "0.02" in finding.sentence
    assert finding.status == ("note" if declared is None else "warning")


def test_a_weight_decay_of_none_is_doubted_where_it_matters():
    """0.02 is a third of what holds the softmax back, and next to nothing in the regression."""
    declared = {name: converged(name).but(weight_decay=0.0).project() for name in ("softmax", "regression")}
    assert found(declared["softmax"], "weight decay").status == "warning"
    assert found(declared["regression"], "weight decay").status == "ok"


def test_an_untrained_model_does_not_tell_its_weight_decay():
    finding = found(CASES["softmax"].but(weight_decay=None).project(), "weight decay")
    assert finding.status == "note"
    assert finding.value is None


def test_unfinished_training_is_not_taken_for_another_weight_decay():
    assert found(CASES["softmax"].project(), "weight decay").status == "ok"


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Doubles(nn.Linear):
    def forward(self, x):
        return NoForwardMode.apply(super().forward(x))


def test_a_model_without_forward_derivatives_is_a_finding_and_no_crash():
    project = CASES["softmax"].but(model=Doubles(3, 3).double()).project()
    finding = found(project, "stationarity")
    assert finding.status == "warning"
    assert "could not be computed" in finding.sentence
    assert found(project, "classes").status == "warning"


# --- the model ------------------------------------------------------------


class Noisy(nn.Linear):
    """Not the same twice, where the first column is large."""

    def forward(self, x):
        return super().forward(x) + (x[:, :1] > 50) * 0.01 * torch.rand(len(x), 1)


class Mixes(nn.Linear):
    """Takes the mean of a column over the batch."""

    def forward(self, x):
        return super().forward(x) + torch.relu(x[:, :1] - 50).mean()


@pytest.mark.parametrize(("kind", "check"), [(Noisy, "determinism"), (Mixes, "independence")])
def test_rows_beyond_the_first_are_tried(kind, check):
    """The first 16 rows, which a project is tried on, look innocent."""
    start = case(kind(3, 3).double(), (3,), 3, n=400)
    assert found(start.project(), check).status == "ok"
    start.train[0][350, 0] = 60.0
    finding = found(start.project(), check)
    assert finding.status == "warning"
    assert finding.value > 0


def test_what_differs_in_training_is_named_and_left_alone():
    model = CASES["convolution"].model
    project = CASES["convolution"].project()
    before = copy.deepcopy(project.model.state_dict())
    finding = found(project, "eval mode")
    assert finding.value == 2
    assert "1 x BatchNorm2d, 1 x Dropout" in finding.sentence
    assert all(torch.equal(value, before[name]) for name, value in project.model.state_dict().items())
    assert not any(module.training for module in project.model.modules())
    assert model.training


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_counts_where_it_drops(p):
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(p), nn.Linear(8, 3)).double()
    assert found(case(model, (3,), 3).project(), "eval mode").value == (p > 0)


def test_attention_without_dropout_is_the_same_in_training():
    """Eval mode takes other kernels, which round differently; that is no other computation."""
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3)).double()
    assert found(case(model, (2, 6), 3).project(), "eval mode").status == "ok"


def test_the_random_state_of_the_caller_stays():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    puma.health(CASES["convolution"].project())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "layer"), [("softmax", nn.Softmax(1)), ("one logit", nn.Sigmoid())], ids=["softmax", "sigmoid"]
)
def test_probabilities_for_logits(name, layer):
    plain = CASES[name]
    assert found(plain.project(), "logits").status == "ok"
    finding = found(plain.but(model=nn.Sequential(plain.model, layer)).project(), "logits")
    assert finding.status == "warning"
    assert "37 outputs" in finding.sentence


def test_positive_logits_are_logits():
    positive = nn.Sequential(CASES["softmax"].model, nn.Softplus())
    assert found(CASES["softmax"].but(model=positive).project(), "logits").status == "ok"


def test_memorisation():
    start = case(mlp(3, 3), (3,), 3, n=30)
    exact = np.eye(3)[start.train[1]]
    sharp = nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        sharp.weight.copy_(20 * torch.eye(3))
    memorised = start.but(model=sharp, train=(exact, start.train[1]))
    finding = found(memorised.project(), "memorisation")
    assert finding.status == "warning"
    assert finding.value == pytest.approx(np.log1p(2 * np.exp(-20)))
    with torch.no_grad():
        sharp.weight.copy_(2 * torch.eye(3))
    assert found(memorised.but(model=sharp).project(), "memorisation").status == "ok"


# --- the rows ------------------------------------------------------------

FEW_VALUES = np.random.default_rng(0).integers(-1, 2, (200, 3)).astype(np.float64)
LABELS = np.random.default_rng(1).integers(0, 3, 200)


def with_rows(x, y, validation=None, **fields):
    held_out = validation if validation is not None else (x + 10.5, y)
    return CASES["softmax"].but(train=(x, y), validation=held_out, **fields).project()


def told(rows):
    return f"rows {', '.join(str(row) for row in rows[:8])} and {len(rows) - 8} more"


def test_duplicates_are_those_of_pandas():
    frame = pd.DataFrame(FEW_VALUES)
    again = np.flatnonzero(frame.duplicated())
    labels = frame.assign(y=LABELS).groupby(list(frame.columns))["y"].transform("nunique")
    finding = found(with_rows(FEW_VALUES, LABELS), "duplicates")
    assert finding.value == len(again)
    assert told(again) in finding.sentence
    assert told(np.flatnonzero(labels > 1)) in finding.sentence
    assert finding.status == "warning"


def test_duplicates_with_equal_labels_are_a_note():
    x = np.arange(30.0).reshape(10, 3)
    y = np.resize([0, 1, 2], 10)
    finding = found(with_rows(np.r_[x, x[4:5]], np.r_[y, y[4]]), "duplicates")
    assert (finding.status, finding.value) == ("note", 1)
    assert "rows 10." in finding.sentence
    assert found(with_rows(x, y), "duplicates").status == "ok"


def test_leakage_is_that_of_pandas():
    train, held_out = FEW_VALUES[:12], FEW_VALUES[100:160]
    index = pd.MultiIndex.from_arrays
    known = np.flatnonzero(index(held_out.T).isin(index(train.T)))
    project = with_rows(train, np.resize([0, 1, 2], 12), (held_out, LABELS[100:160]))
    finding = found(project, "leakage into validation")
    assert (finding.status, finding.value) == ("warning", len(known))
    assert told(known) in finding.sentence
    assert not [f for f in puma.health(project) if f.check == "leakage into test"]
    test = puma.Split(train[3:6], [0, 1, 2])
    project = puma.Project(**{**fields_of(project), "test": test})
    assert found(project, "leakage into test").value == 3


def fields_of(project):
    names = ("name", "model", "train", "validation", "loss", "weight_decay")
    return {name: getattr(project, name) for name in names}


def test_rows_of_weight_zero_do_not_leak():
    x, y = np.arange(36.0).reshape(12, 3), np.resize([0, 1, 2], 12)
    weights = np.ones(12)
    weights[[1, 2]] = 0
    x[4] = x[2]
    project = with_rows(x, y, (x[:4], np.array([0, 1, 2, 0])), weights=weights)
    assert found(project, "leakage into validation").value == 2 + 1  # rows 0 and 3, and 2 again as row 4
    assert found(project, "duplicates").value == 0


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float64, np.float16, bool])
def test_rows_that_differ_have_different_keys(kind):
    """One entry, its place, its sign: powers of two differ in few bits."""
    rows = np.r_[np.eye(9), 2 * np.eye(9), 4 * np.eye(9), -np.eye(9), np.zeros((1, 9))]
    rows = np.unique(rows.astype(kind), axis=0)
    keys = row_keys(torch.as_tensor(rows), mlp(3, 3).float())
    for column in keys.T:
        assert len(np.unique(column)) == len(rows)


def test_rows_are_the_same_as_the_model_sees_them():
    single, double = mlp(3, 3).float(), mlp(3, 3)
    rows = torch.tensor([[0.1, 0.0], [0.1 + 1e-12, -0.0]], dtype=torch.float64)
    assert len(np.unique(row_keys(rows, single), axis=0)) == 1
    assert len(np.unique(row_keys(rows, double), axis=0)) == 2
    np.testing.assert_array_equal(row_keys(rows[:1].float(), single), row_keys(rows[:1], single))


def test_keys_do_not_depend_on_the_chunk(monkeypatch):
    rows = torch.as_tensor(FEW_VALUES)
    whole = row_keys(rows, mlp(3, 3))
    monkeypatch.setattr("puma_dash.core.evaluation.repeats.CHUNK_NUMBERS", 20)
    np.testing.assert_array_equal(row_keys(rows, mlp(3, 3)), whole)


@pytest.mark.parametrize(
    ("train", "validation", "status"),
    [
        ([30, 30], [20, 30], "ok"),
        ([30, 30], [19, 30], "note"),
        ([30, 30], [4, 30], "warning"),
        ([331, 30], [30, 30], "note"),
    ],
)
def test_classes(train, validation, status):
    def rows(counts):
        y = np.repeat([0, 1], counts)
        return np.random.default_rng(len(y)).standard_normal((len(y), 3)), y

    start = case(mlp(3, 1), (3,), 1, "binary_cross_entropy").but(
        train=rows(train), validation=rows(validation)
    )
    finding = found(start.project(class_names=("hen", "owl")), "classes")
    assert (finding.status, finding.value) == (status, min(validation))
    assert ("In class hen" in finding.sentence) == (validation[0] < 20)


# --- all of it ------------------------------------------------------------


def test_a_regression_has_no_classes():
    checks = [f.check for f in puma.health(CASES["regression"].project())]
    assert checks == [
        "stationarity", "weight decay", "determinism", "independence", "eval mode", "duplicates",
        "leakage into validation", "memorisation",
    ]  # fmt: skip


def test_a_regression_that_has_memorised_its_rows():
    start = CONVEX["regression"]
    x, y = start.train
    exact = start.but(train=(x, Reference(start).outputs(x).detach().numpy()))
    finding = found(exact.project(), "memorisation")
    assert finding.status == "warning"
    assert finding.value == pytest.approx(0, abs=1e-20)
    assert "0 % of the targets' variance" in finding.sentence
    finding = found(start.project(), "memorisation")
    assert finding.status == "ok"
    share = mean_squared_error(y, Reference(start).outputs(x).detach()) / y.var(0).mean()
    assert f"leaves {100 * share:,.0f} % of" in finding.sentence


@pytest.mark.parametrize("name", CASES)
def test_findings_are_sentences(name):
    for finding in puma.health(CASES[name].project()):
        assert finding.status in {"ok", "note", "warning"}
        assert finding.sentence.endswith(".")
        assert finding.advice.endswith(".") == bool(finding.advice) == (finding.status != "ok")


def test_progress_and_cancel():
    messages, stop = [], threading.Event()
    puma.health(CASES["softmax"].project(), progress=lambda done, total, message: messages.append(message))
    assert "Checking repeated rows" in messages
    stop.set()
    with pytest.raises(puma.Cancelled):
        puma.health(CASES["softmax"].project(), cancel=stop)
