"""Which parameters take part: names in the order of execution, and the dense algebra of the part."""

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.curvature import inverse_of
from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.objective import Parameters

from .cases import CASES, Reference, case, mlp

close = torch.testing.assert_close
ROW = torch.zeros(1, 3).double()
EXACT = puma.Dense(damping=0.03)


class Crossed(nn.Module):
    """Registered from the last layer to the first; one layer is never passed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body, self.unused = nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


class Tokens(nn.Module):
    """Holds parameters itself, as vision transformers hold their class token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shift, self.head, self.body = nn.Parameter(torch.ones(3)), nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x + self.shift)))


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(3, 3))

    def forward(self, x):
        return x @ self.kernel


def frozen_head():
    model = Crossed()
    model.head.requires_grad_(False)
    return model


def normed_head():
    model = Crossed()
    nn.utils.parametrizations.weight_norm(model.head)
    return model


class Attending(nn.Module):
    """The output layer of the attention is a child that is never called by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.body = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        x = self.body(x)[:, None]
        return self.attention(x, x, x)[0][:, 0]


LAST = {
    "registered backwards": (Crossed, ["head.weight", "head.bias"]),
    "parameters of its own": (Tokens, ["head.weight", "head.bias"]),
    "wrapped": (lambda: Wrapped(Tokens()), ["model.head.weight", "model.head.bias"]),
    "after another": (
        lambda: nn.Sequential(mlp(3, 3), Tokens()),
        ["1.head.weight", "1.head.bias"],
    ),
    "one normed layer": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"],
    ),
    "in a row": (lambda: mlp(3, 5, 3), ["2.weight", "2.bias"]),
    "one layer": (lambda: nn.Linear(3, 3), ["weight", "bias"]),
    "one layer, wrapped": (lambda: Wrapped(nn.Linear(3, 3)), ["model.weight", "model.bias"]),
    "no layer": (Bare, ["kernel"]),
    "frozen head": (frozen_head, ["body.weight", "body.bias"]),
    "normed head": (
        normed_head,
        ["head.bias", "head.parametrizations.weight.original0", "head.parametrizations.weight.original1"],
    ),
    "attention": (
        Attending,
        [
            f"attention.{name}"
            for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        ],
    ),
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_layer_is_the_one_passed_last(name):
    make, names = LAST[name]
    assert Parameters.of(make().double(), "last", ROW).names == tuple(names)


PATTERNS = {
    "all": ["head.weight", "head.bias", "body.weight", "body.bias", "unused.weight", "unused.bias"],
    "*": ["head.weight", "head.bias", "body.weight", "body.bias", "unused.weight", "unused.bias"],
    "body.*": ["body.weight", "body.bias"],
    "*.bias": ["head.bias", "body.bias", "unused.bias"],
    "[hb]*.weight": ["head.weight", "body.weight"],
    "body.weight": ["body.weight"],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(pattern):
    model = Crossed().double()
    parameters = Parameters.of(model, pattern, ROW)
    assert parameters.names == tuple(PATTERNS[pattern])
    named = dict(model.named_parameters())
    theta = torch.cat([named[name].detach().reshape(-1) for name in PATTERNS[pattern]])
    close(parameters.flatten(named), theta)
    assert list(parameters.unflatten(theta)) == PATTERNS[pattern]
    for name, value in parameters.unflatten(theta).items():
        close(value, named[name].detach())
    assert [part.stop - part.start for part in parameters.slices] == parameters.sizes
    assert parameters.slices[-1].stop == len(theta)


def test_the_frozen_never_take_part():
    assert Parameters.of(frozen_head().double(), "all", ROW).names == tuple(PATTERNS["all"][2:])
    with pytest.raises(
        puma.ProjectError, match=r"head.*matches none; the names are body\.weight, body\.bias"
    ):
        Parameters.of(frozen_head().double(), "head.*", ROW)


def test_long_lists_of_names_are_cut():
    model = mlp(*[2] * 9)
    with pytest.raises(puma.ProjectError, match=r"the names are 0\.weight, .*10\.bias \.\.\.\.$"):
        Parameters.of(model, "nothing", torch.zeros(1, 2).double())


CASE = case(Crossed().double(), (3,), 3, weights=CASES["weighted softmax"].weights)
CHOICES = {
    "last": ("head.weight", "head.bias"),
    "body.*": ("body.weight", "body.bias"),
    "*.bias": PATTERNS["*.bias"],
}


@pytest.fixture(params=CHOICES)
def which(request):
    return request.param


@pytest.fixture
def part(which):
    """The reference, and which entries of its theta take part."""
    reference = Reference(CASE)
    return reference, torch.cat(
        [torch.full((shape.numel(),), name in CHOICES[which]) for name, shape in reference.shapes.items()]
    )


def restricted(reference, taking, damping=0.03):
    """Gradients of rows and B, of the part."""
    return reference.gradients()[:, taking], reference.b(damping)[taking][:, taking]


def test_theta_is_the_part(which, part):
    reference, taking = part
    engine = Engine(CASE.project(), parameters=which)
    close(engine.theta, reference.theta[taking])
    close(engine.outputs("train"), reference.outputs(reference.x).detach())
    moved = reference.theta.clone()
    moved[taking] += 0.2
    close(engine.outputs("train", engine.theta + 0.2), reference.outputs(reference.x, moved))


@pytest.mark.parametrize(
    "curvature", [EXACT, puma.ConjugateGradient(damping=0.03, tolerance=1e-11)], ids=["dense", "products"]
)
def test_psi_of_the_part(which, part, curvature):
    reference, taking = part
    gradients, b = restricted(reference, taking)
    for key in ("cross_entropy", "brier"):
        expected = gradients @ torch.linalg.solve(b, reference.criterion_gradient(key)[taking])
        found = puma.value(CASE.project(), criterion=key, curvature=curvature, parameters=which)
        np.testing.assert_allclose(found.scores, expected, rtol=1e-6, atol=1e-9)
        several = puma.values(CASE.project(), ["brier", key], curvature=curvature, parameters=which)
        np.testing.assert_allclose(several[key].scores, expected, rtol=1e-6, atol=1e-9)
    assert found.diagnostics["parameters"] == int(taking.sum())


def test_a_patch_and_its_forecast_move_the_part_alone(which, part):
    reference, taking = part
    gradients, b = restricted(reference, taking)
    e = torch.zeros(reference.n).double()
    e[[2, 6]], e[7] = -1, 0.5
    delta = torch.zeros_like(reference.theta)
    delta[taking] = -torch.linalg.solve(b, gradients.T @ e) / reference.n
    slope = float(reference.criterion_gradient() @ delta)

    project = CASE.project()
    plan = puma.PatchPlan(remove=(2, 6), upweight={7: 0.5}, hold=("cross_entropy",), method="influence")
    patch = puma.patch(project, plan, curvature=EXACT, parameters=which)
    close(patch.delta, delta[taking], rtol=1e-7, atol=1e-10)
    for name, value in patch.model.named_parameters():
        before = project.model.get_parameter(name)
        assert torch.equal(value, before) == (name not in CHOICES[which] or name.startswith("unused"))
    close(patch.model(reference.x), reference.outputs(reference.x, reference.theta + delta))
    assert patch.predicted["cross_entropy"] == pytest.approx(slope, rel=1e-7)

    forecast = puma.forecast(project, plan, curvature=EXACT, parameters=which)
    x, y = (torch.as_tensor(values) for values in CASE.validation)
    line = reference.outputs(x).detach() + reference.jacobians(x) @ delta
    refined = (line.logsumexp(1) - line[torch.arange(len(y)), y]).mean() - reference.criterion()
    assert forecast.criteria["cross_entropy"] == pytest.approx(slope, rel=1e-7)
    assert forecast.refined["cross_entropy"] == pytest.approx(float(refined), rel=1e-7)


@pytest.mark.parametrize("intent", ["unseen", "forget"])
def test_steps_and_compensation_move_the_part_alone(which, part, intent):
    project, (_, taking) = CASE.project(), part
    plan = puma.PatchPlan(remove=(2, 6), hold=("cross_entropy",), steps=3, intent=intent, strength=0.5)
    patch = puma.patch(project, plan, curvature=EXACT, parameters=which)
    assert len(patch.delta) == int(taking.sum())
    assert patch.delta.any()
    for name, value in patch.model.named_parameters():
        if name not in CHOICES[which]:
            assert torch.equal(value, project.model.get_parameter(name))


def test_questions_about_parts_do_not_meet():
    """One engine each, whatever the order of the questions; the estimate is of the part, too."""
    project, orders = CASE.project(), (["all", "last", "body.*", "all"], ["last", "all"])
    alone = {
        which: puma.value(CASE.project(), curvature=EXACT, parameters=which).scores
        for which in ("all", "last", "body.*")
    }
    for order in orders:
        for which in order:
            found = puma.value(project, curvature=EXACT, parameters=which).scores
            np.testing.assert_allclose(found, alone[which], rtol=1e-12)
            puma.estimate(project, EXACT, parameters=which)
    assert not np.allclose(alone["all"], alone["last"])
    engines = {which: engine_of(project, parameters=which) for which in alone}
    assert len({id(engine) for engine in engines.values()}) == 3
    assert [len(engine.theta) for engine in engines.values()] == [37, 15, 16]
    for which, engine in engines.items():
        assert engine is engine_of(project, parameters=which)
        assert f"{len(engine.theta):,} parameters" in puma.estimate(project, EXACT, parameters=which).note


def test_the_last_layer_needs_no_damping():
    """Outputs are linear in it; the damping of all parameters is a question of its own."""
    project = CASE.project()
    assert inverse_of(engine_of(project, parameters="last"), "auto").facts["damping"] == 0
    assert inverse_of(engine_of(project), "auto").facts["damping"] > 0


CALLS = {
    "value": puma.value,
    "values": lambda project, **more: puma.values(project, ["brier"], **more),
    "estimate": puma.estimate,
    "patch": lambda project, **more: puma.patch(project, puma.PatchPlan(remove=(1,)), **more),
    "forecast": lambda project, **more: puma.forecast(project, puma.PatchPlan(remove=(1,)), **more),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_pattern_that_matches_nothing(call):
    words = r'"all", "last" or a pattern of names, but \'fc\.\*\' matches none; .*head\.weight'
    with pytest.raises(puma.ProjectError, match=words):
        CALLS[call](CASE.project(), parameters="fc.*")
