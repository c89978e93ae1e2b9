"""What must not change the answer, and what must not be changed."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

import puma_dash as puma
import puma_dash.core.curvature.dense as dense
import puma_dash.core.engine as engine_module
from puma_dash.core.curvature import inverse_of
from puma_dash.core.engine import Engine
from puma_dash.core.unlearning.base import Change, direction_of, influences

from .cases import CASES, Reference, converged, flat, mlp, trained

EXACT = puma.Dense(damping=0.02)
close = torch.testing.assert_close


def naive(**rows):
    return puma.PatchPlan(method="influence", hold=("cross_entropy",), **rows)


def everything(engine):
    """One vector of all that the engine sums over rows."""
    n, p, seeded = engine.n, len(engine.theta), torch.Generator().manual_seed(0)
    v = torch.randn(p, generator=seeded).double()
    w = torch.randn(n, generator=seeded).double()
    value, gradient = engine.criterion_gradient(puma.CrossEntropy())
    return torch.cat(
        [
            engine.weighted_gradient(w),
            engine.directional_scores(v[None])[0],
            engine.gauss_newton_product()(v[None])[0],
            engine.hessian_product()(v[None])[0],
            dense.gauss_newton_matrix(engine) @ v,
            gradient,
            torch.tensor([value]).double(),
            *(part.ravel() for part in engine.pushforward(engine.split("validation"), v)),
        ]
    )


@pytest.mark.parametrize("name", ["weighted softmax", "convolution"])
def test_batch_size(name):
    project = CASES[name].project()
    one, seven, all_rows = (everything(Engine(project, batch_size=size)) for size in (1, 7, 1_000))
    close(one, all_rows)
    close(seven, all_rows)


@pytest.mark.parametrize(
    ("home", "limit"),
    [(engine_module, "GRAPH_BYTES"), (engine_module, "CACHE_BYTES"), (dense, "JACOBIAN_NUMBERS")],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_memory_limits(monkeypatch, home, limit):
    case = CASES["convolution"]
    single = case.but(
        train=(case.train[0].astype(np.float32), case.train[1])
    )  # data narrower than the engine
    usual = everything(Engine(single.project(), batch_size=7))
    monkeypatch.setattr(home, limit, 0)
    close(everything(Engine(single.project(), batch_size=7)), usual)


def test_permuted_rows_give_permuted_psi():
    case, order = CASES["weighted softmax"], np.random.default_rng(0).permutation(22)
    plain = puma.value(case.project(), curvature=EXACT).scores
    permuted = puma.value(case.rows(order).project(), curvature=EXACT).scores
    np.testing.assert_allclose(permuted, plain[order], rtol=1e-9)


def test_duplicates_get_equal_psi():
    scores = puma.value(CASES["softmax"].rows([*range(22), 4, 4]).project(), curvature=EXACT).scores
    np.testing.assert_allclose(scores[[22, 23]], scores[4], rtol=1e-9)


def test_row_weights_stand_for_repeated_rows():
    """a_j = r_j / 2 is the row r_j times with weight 1/2, once the factor 1/n is taken into account."""
    case, repeats = CASES["softmax"], np.resize([2, 0, 1, 4, 3], 22)
    weighted = case.but(weights=repeats / 2)
    index = np.repeat(np.arange(22), repeats)
    repeated = case.rows(index).but(
        weights=np.full(len(index), 0.5), weight_decay=case.weight_decay * 22 / len(index)
    )
    exact = puma.Dense(damping=0.0)
    expected = np.zeros(22)
    np.add.at(expected, index, puma.value(repeated.project(), curvature=exact).scores / len(index))
    scores = puma.value(weighted.project(), curvature=exact).scores
    np.testing.assert_allclose(scores / 22, expected, rtol=1e-8, atol=1e-12)


def test_several_criteria_at_once_are_each_alone():
    engine = Engine(CASES["weighted softmax"].project())
    criteria = (puma.CrossEntropy(), puma.Brier(), puma.CrossEntropy(rows=(1, 2)))
    together = influences(engine, criteria, inverse_of(engine, EXACT)).psi
    alone = [
        puma.value(engine.project, criterion=criterion, curvature=EXACT).scores for criterion in criteria
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


def test_a_patch_is_the_sum_of_its_parts():
    project = CASES["weighted softmax"].project()
    parts = [
        {"remove": (1,)},
        {"remove": (9,)},
        {"upweight": {5: 0.3}},
        {"relabel": {6: int(project.train.targets[6] == 0)}},
    ]
    whole = {"remove": (1, 9), **parts[2], **parts[3]}
    one, *several = (puma.patch(project, naive(**rows), curvature=EXACT) for rows in (whole, *parts))
    close(one.delta, sum(patch.delta for patch in several))
    assert one.predicted["cross_entropy"] == pytest.approx(sum(p.predicted["cross_entropy"] for p in several))


def test_nothing_asked_moves_nothing():
    engine = Engine(CASES["softmax"].project())  # not at a stationary point
    rows = torch.arange(engine.n)
    change = Change(rows, engine.split("train").targets, torch.zeros(engine.n).double())
    for curvature in (EXACT, puma.ConjugateGradient()):
        delta = direction_of(engine, change, inverse_of(engine, curvature)).delta
        assert not delta.any()


def test_a_little_moves_a_little():
    project = CASES["softmax"].project()
    whole, part = (puma.patch(project, naive(upweight={3: e}), curvature=EXACT).delta for e in (1.0, 1e-5))
    close(part, 1e-5 * whole, rtol=1e-6, atol=1e-15)


CALLS = {
    "value": lambda project: puma.value(project),
    "value by products": lambda project: puma.value(project, curvature=puma.ConjugateGradient()),
    "forecast": lambda project: puma.forecast(project, puma.PatchPlan(remove=(1,), hold=("brier",))),
    "puma": lambda project: puma.patch(project, puma.PatchPlan(remove=(1,), hold=("brier",))),
    "influence": lambda project: puma.patch(project, naive(remove=(1,))),
    "retrain": lambda project: puma.patch(project, puma.PatchPlan(remove=(1,), method="retrain")),
    "compare": lambda project: puma.compare(project, puma.patch(project, naive(remove=(1,)))),
    "embedding": lambda project: puma.EMBEDDINGS["pca"]()(Engine(project)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_given_model_and_data_are_never_touched(call):
    case = CASES["convolution"]  # in train mode, with dropout and running statistics
    model = copy.deepcopy(case.model)
    model[0].bias.requires_grad_(False)
    recipe = puma.AdamRecipe(puma.LOSSES["cross_entropy"](), epochs=1)
    project = case.but(model=model).project(trainer=recipe)
    inside, kept = copy.deepcopy(project.model.state_dict()), copy.deepcopy(model.state_dict())
    inputs, targets = project.train.inputs.clone(), project.train.targets.clone()
    call(project)
    close(dict(model.state_dict()), dict(kept), rtol=0, atol=0)
    close(dict(project.model.state_dict()), dict(inside), rtol=0, atol=0)
    close(project.train.inputs, inputs, rtol=0, atol=0)
    close(project.train.targets, targets, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in project.model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, *[True] * 4]
    assert all(p.grad is None for p in (*model.parameters(), *project.model.parameters()))


def test_eval_mode_always():
    case = CASES["convolution"]
    quiet = case.but(model=copy.deepcopy(case.model).eval())
    for run in (lambda p: puma.value(p).scores, lambda p: puma.patch(p, naive(remove=(1, 2))).delta):
        np.testing.assert_array_equal(run(case.project()), run(quiet.project()))


def test_a_patch_keeps_buffers_and_eval_mode():
    case = CASES["convolution"]
    patched = puma.patch(case.project(), naive(remove=(1, 2))).model
    assert not patched.training
    close(dict(patched.named_buffers()), dict(case.model.named_buffers()), rtol=0, atol=0)
    assert not torch.equal(flat(patched), flat(case.model))


def test_random_state_is_left_alone():
    project = trained().project(trainer=puma.AdamRecipe(puma.LOSSES["cross_entropy"](), epochs=1))
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand(1)
    torch.manual_seed(5)
    np.random.seed(5)
    puma.value(project, curvature=puma.ConjugateGradient(rows=20))
    for method in ("puma", "retrain"):
        patch = puma.patch(project, puma.PatchPlan(remove=(1, 2), hold=("brier",), method=method))
        puma.compare(project, patch)
    assert torch.rand(1) == expected[0]
    assert np.random.rand(1) == expected[1]


def test_a_small_model_in_single_precision_is_computed_in_double():
    case = CASES["softmax"]
    single = case.but(model=copy.deepcopy(case.model).float())
    scores = puma.value(single.project(), curvature=EXACT).scores
    rounded = case.but(model=copy.deepcopy(single.model).double())
    np.testing.assert_allclose(scores, Reference(rounded).psi(damping=0.02), rtol=1e-7, atol=1e-10)


def test_a_large_model_in_single_precision(monkeypatch):
    """float32 agrees with float64 to what its rounding allows."""
    case = CASES["softmax"].but(model=mlp(3, 40, 40, 3).float())
    curvature = puma.ConjugateGradient(damping=0.02, tolerance=1e-6)
    double = puma.value(case.project(), curvature=curvature)
    monkeypatch.setattr(engine_module, "DOUBLE_LIMIT", 0)
    single = puma.value(case.project(), curvature=curvature)
    assert (single.diagnostics["dtype"], double.diagnostics["dtype"]) == ("float32", "float64")
    np.testing.assert_allclose(single.scores, double.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_computed_in_single(monkeypatch, dtype):
    """Sums and solves of half precision are noise."""
    monkeypatch.setattr(engine_module, "DOUBLE_LIMIT", 0)
    case = CASES["softmax"].but(model=mlp(3, 40, 40, 3).to(dtype))
    same = case.but(model=copy.deepcopy(case.model).float())
    half, single = (
        puma.value(each.project(), curvature=puma.ConjugateGradient(damping=0.02, tolerance=1e-6)).scores
        for each in (case, same)
    )
    np.testing.assert_allclose(half, single, rtol=1e-3, atol=1e-4)


def test_unknown_weight_decay_counts_as_none():
    case = CASES["softmax"]
    unknown, zero = (puma.value(case.project(weight_decay=wd), curvature=EXACT).scores for wd in (None, 0.0))
    np.testing.assert_array_equal(unknown, zero)
    np.testing.assert_allclose(zero, Reference(case.but(weight_decay=0.0)).psi(damping=0.02), rtol=1e-7)


def test_a_cancelled_call_does_not_cancel_the_next():
    import threading

    project, event = trained().project(), threading.Event()
    patch = puma.patch(project, naive(remove=(1,)), cancel=event)
    event.set()
    with pytest.raises(puma.Cancelled):
        puma.value(project, cancel=event)
    assert puma.compare(project, patch).n == 15
    puma.value(project)


def test_progress_is_told_to_whom_it_was_asked_by():
    project, told = trained().project(), []
    puma.value(project, curvature=puma.ConjugateGradient(), progress=lambda *report: told.append(report))
    assert told
    assert all(0 <= done <= total and message for done, total, message in told)
    told.clear()
    puma.compare(project, puma.patch(project, naive(remove=(1,))))
    assert not told


SHORT = {"data_shapley_tmc": {"orders": 2}, "data_shapley_g": {"orders": 2}, "dvrl": {"rounds": 3}}
"""Settings of methods that would take long."""
FREE = [name for name, kind in puma.VALUATIONS.items() if "recorder" not in kind.needs]


@pytest.mark.parametrize("name", FREE)
def test_scores_are_the_callers_own(name):
    """What a person does to an array must not reach what later calls reuse."""
    project, method = trained().project(), puma.VALUATIONS[name](**SHORT.get(name, {}))
    first = puma.value(project, method).scores
    kept = first.copy()
    first[:] = np.nan
    np.testing.assert_array_equal(puma.value(project, method).scores, kept)
    patch = puma.patch(project, puma.PatchPlan(remove=(1, 2), hold=("cross_entropy",)))
    patch.weights[:] = np.nan
    patch.delta[:] = np.nan
    again = puma.patch(project, puma.PatchPlan(remove=(1, 2), hold=("cross_entropy",)))
    assert np.isfinite(again.weights).all()
    assert torch.isfinite(again.delta).all()


@pytest.mark.parametrize("curvature", ["dense", "conjugate_gradient"])
def test_later_calls_reuse_the_curvature(monkeypatch, curvature):
    project = dataclasses.replace(converged("softmax").project())
    first = puma.value(project, curvature=curvature).scores
    monkeypatch.setattr(dense, "gauss_newton_matrix", None)
    monkeypatch.setattr(Engine, "gauss_newton_product", None)
    np.testing.assert_array_equal(puma.value(project, curvature=curvature).scores, first)
