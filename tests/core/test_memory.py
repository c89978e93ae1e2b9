"""Batches that do not fit in memory: halved until they do, with the same numbers."""

import itertools
import threading

import pytest
import torch

import puma_dash as puma
import puma_dash.core.engine as engine_module
from puma_dash.core.curvature import inverse_of
from puma_dash.core.curvature.influence import scores
from puma_dash.core.engine import Engine

from .cases import CASES

close = torch.testing.assert_close
CASE = CASES["weighted softmax"]


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def twice(product, vectors):
    """The second call may find graphs of the first."""
    return torch.stack([product(vectors), product(2 * vectors)])


SUMS = {
    "outputs": lambda e: e.outputs("validation"),
    "losses": lambda e: e.losses(),
    "weighted loss": lambda e: torch.tensor(e.weighted_loss(drawn(22))[0]),
    "weighted gradient": lambda e: e.weighted_gradient(drawn(22)),
    "weighted loss alone": lambda e: torch.tensor(e.weighted_loss(drawn(22), gradient=False)[0]),
    "directional scores": lambda e: e.directional_scores(drawn(2, len(e.theta))),
    "scores by layer": lambda e: scores(e, drawn(2, len(e.theta))),
    "pullback": lambda e: e.pullback(e.split("validation"), drawn(15, 3)),
    "pushforward": lambda e: torch.cat(e.pushforward(e.split("validation"), drawn(len(e.theta)))),
    "criterion gradient": lambda e: e.criterion_gradient(puma.Brier())[1],
    "Gauss-Newton": lambda e: twice(e.gauss_newton_product(), drawn(3, len(e.theta))),
    "exact Hessian": lambda e: twice(e.hessian_product(), drawn(3, len(e.theta))),
    "solution": lambda e: inverse_of(
        e, puma.ConjugateGradient(damping=0.05, tolerance=1e-10)
    )(drawn(2, len(e.theta))).x,
}  # fmt: skip


def limited(monkeypatch, most, error=torch.OutOfMemoryError):
    """No forward pass of more than ``most`` rows; how many rows each pass was asked for."""
    asked, forward = [], engine_module.forward

    def pass_(model, named, inputs):
        asked.append(len(inputs))
        if len(inputs) > most:
            raise error("no room")
        return forward(model, named, inputs)

    monkeypatch.setattr(engine_module, "forward", pass_)
    return asked


@pytest.mark.parametrize("most", [4, 7])
@pytest.mark.parametrize("name", SUMS)
def test_halved_until_it_fits(monkeypatch, name, most):
    expected = SUMS[name](Engine(CASE.project(), batch_size=1_000))
    engine = Engine(CASE.project(), batch_size=16)
    asked = limited(monkeypatch, most)
    close(SUMS[name](engine), expected, rtol=1e-6, atol=1e-9)
    small = engine.batch_size
    assert most / 2 <= small <= most < max(asked)
    asked.clear()
    engine.weighted_gradient(torch.ones(22))
    assert asked == [small] * (len(asked) - 1) + [asked[-1]]  # the smaller size stays


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("name", SUMS)
def test_out_of_memory_halfway(monkeypatch, name, call):
    """At any one forward or backward pass: nothing counts twice, nothing is left out."""
    expected = SUMS[name](Engine(CASE.project(), batch_size=1_000))
    engine, calls, failed = Engine(CASE.project(), batch_size=16), itertools.count(1), []

    def failing(function):
        def once(*args, **kwargs):
            if next(calls) == call:
                failed.append(call)
                raise torch.OutOfMemoryError("no room")
            return function(*args, **kwargs)

        return once

    over = Engine.over

    def watched(self, count, work):
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "forward", failing(engine_module.forward))
            patch.setattr(torch.autograd, "grad", failing(torch.autograd.grad))
            return over(self, count, work)

    monkeypatch.setattr(Engine, "over", watched)
    close(SUMS[name](engine), expected, rtol=1e-6, atol=1e-9)
    assert (engine.batch_size < 16) == bool(failed)


def test_slices_cover_all_rows_once():
    engine, tried = Engine(CASE.project(), batch_size=100), []

    def work(part):
        tried.append((part.start, part.stop))
        if part.stop - part.start > (6 if part.start < 8 else 2):  # room shrinks on the way
            raise torch.OutOfMemoryError
        return part

    found = engine.over(22, work)
    assert [row for part in found for row in range(22)[part]] == list(range(22))
    assert engine.batch_size == 2
    assert tried[:3] == [(0, 22), (0, 11), (0, 5)]
    assert sum(stop - start > 2 for start, stop in tried) == 5


def test_the_cpu_has_no_type_for_it():
    engine = Engine(CASE.project(), batch_size=22)

    def work(part):
        if part.stop - part.start > 11:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return part

    assert len(engine.over(22, work)) == 2


def test_a_single_row_that_does_not_fit(monkeypatch):
    engine = Engine(CASE.project(), batch_size=16)
    asked = limited(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        engine.weighted_gradient(torch.ones(22))
    assert asked == [16, 8, 4, 2, 1]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyboardInterrupt])
def test_other_errors_pass_through_at_once(monkeypatch, error):
    engine = Engine(CASE.project(), batch_size=16)
    asked = limited(monkeypatch, 0, error)
    with pytest.raises(error, match="no room"):
        engine.weighted_gradient(torch.ones(22))
    assert asked == [16]
    assert engine.batch_size == 16


def test_cancelled_between_batches():
    cancel, done = threading.Event(), []
    engine = Engine(CASE.project(), batch_size=5).listen(None, cancel)

    def work(part):
        done.append(part)
        if len(done) == 2:
            cancel.set()

    with pytest.raises(puma.Cancelled):
        engine.over(22, work)
    assert len(done) == 2


def test_cancelled_before_a_smaller_batch():
    cancel, tried = threading.Event(), []
    engine = Engine(CASE.project(), batch_size=16).listen(None, cancel)

    def work(part):
        tried.append(part)
        cancel.set()
        raise torch.OutOfMemoryError

    with pytest.raises(puma.Cancelled):
        engine.over(22, work)
    assert len(tried) == 1
