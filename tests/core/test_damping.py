"""Damping "auto": 0 where B is positive definite without it, else the least at which predictions hold."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.curvature import damping as settled
from puma_dash.core.curvature import inverse_of
from puma_dash.core.engine import Engine

from .cases import CASES, CONVEX, Reference, trained


def chosen(project):
    return inverse_of(Engine(project), "auto").facts["damping"]


@pytest.mark.parametrize("name", CONVEX)
def test_linear_models_with_weight_decay_need_none(name):
    assert chosen(CONVEX[name].project()) == 0


def test_linear_models_without_weight_decay_get_the_least():
    assert chosen(CONVEX["softmax"].project(weight_decay=0.0)) in settled.GRID[:4]


@pytest.mark.parametrize("case", [*CASES.values(), trained()], ids=[*CASES, "trained"])
def test_the_least_at_which_predictions_hold(case):
    """The rule written out with dense algebra; solves to a fidelity move it a little."""
    reference = Reference(case)
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(settled.SHARE_REMOVED * reference.n))
    probes = [torch.randperm(reference.n, generator=generator)[:count] for _ in range(settled.PROBES)]
    slope, now = reference.criterion_gradient(), reference.criterion()

    def miss(damping):
        total = scale = 0.0
        for rows in probes:
            e = torch.zeros(reference.n).double()
            e[rows] = -1
            move = reference.delta(e, damping)
            total += abs(float(reference.criterion(theta=reference.theta + move) - now - slope @ move))
            scale += abs(float(slope @ move))
        return total / scale

    found = settled.GRID.index(chosen(case.project()))
    assert miss(settled.GRID[min(found + 1, len(settled.GRID) - 1)]) <= 1.5 * settled.LARGEST_MISS
    if found > 1:
        assert miss(settled.GRID[found - 2]) > settled.LARGEST_MISS


def test_it_is_settled_once_for_all_questions():
    project = CASES["softmax"].project()
    first = puma.value(project, criterion="brier").diagnostics["damping"]
    patched = puma.patch(project, puma.PatchPlan(remove=(3,)))
    assert patched.diagnostics["damping"] == first


def test_a_store_keeps_it(monkeypatch):
    project, kept = CASES["softmax"].project(), {}

    def store(name, compute):
        return kept.setdefault(name, None) or kept.update({name: compute()}) or kept[name]

    project.memo["store"] = store
    first = chosen(project)
    assert any(name.startswith("damping") for name in kept)
    monkeypatch.setattr(settled, "calibrate", lambda engine: pytest.fail("calibrated again"))
    assert chosen(project) == first
    np.testing.assert_equal([v["value"] for k, v in kept.items() if k.startswith("damping")], [first])


@pytest.mark.parametrize("least", [0.0, 1e-4, 2e-3, 0.01, 0.02, 0.5, 10.0, 11.0])
def test_the_search_ends_at_the_least_that_holds(monkeypatch, least):
    """From the middle of the grid in both directions; where none holds, at the largest."""
    monkeypatch.setattr(settled, "_holds", lambda engine, damping, *_: damping >= least)
    expected = next((value for value in settled.GRID if value >= least), settled.GRID[-1])
    assert chosen(CASES["softmax"].project()) == expected


@pytest.mark.parametrize(("most", "rows"), [(11, None), (10, 10)])
def test_probes_of_many_rows_are_solved_on_some(monkeypatch, most, rows):
    asked, kind = [], puma.ConjugateGradient
    monkeypatch.setattr(settled, "PROBE_ROWS", most)
    monkeypatch.setattr(
        "puma_dash.core.curvature.conjugate_gradient.ConjugateGradient",
        lambda **settings: asked.append(settings["rows"]) or kind(**settings),
    )
    assert settled.calibrate(Engine(CASES["softmax"].project())) in settled.GRID
    assert set(asked) == {rows}
