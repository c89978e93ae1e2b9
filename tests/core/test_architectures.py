"""Models as people build them: values and patches against reverse mode row by row."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import puma_dash as puma

from .cases import Case, Reference, case, convolution, flat

TOKENS = np.random.default_rng(0).integers(0, 12, (30, 5))
LABELS = np.arange(30) % 3


class Text(nn.Module):
    """Token ids, an embedding, something that mixes tokens, a mean and a linear layer."""

    def __init__(self, mix=None):
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(12, 4), mix or nn.Identity(), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.mix(self.embedding(tokens)).mean(1))


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Tied(nn.Module):
    """One weight used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def text(mix=None) -> Case:
    torch.manual_seed(0)
    model = Text(mix() if mix else None).double()
    return Case(model, "cross_entropy", (TOKENS[:18], LABELS[:18]), (TOKENS[18:], LABELS[18:]))


def frozen() -> Case:
    model = convolution()
    model[0].requires_grad_(False)
    return case(model, (1, 6, 6), 3)


def tied() -> Case:
    torch.manual_seed(0)
    return case(Tied().double(), (3,), 3)


ARCHITECTURES = {
    "convolution": lambda: case(convolution(), (1, 6, 6), 3),
    "frozen convolution": frozen,
    "embedding": text,
    "layer norm": lambda: text(lambda: nn.LayerNorm(4)),
    "attention": lambda: text(SelfAttention),
    "transformer": lambda: text(lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)),
    "gelu transformer": lambda: text(
        lambda: nn.TransformerEncoderLayer(4, 2, 6, activation="gelu", norm_first=True, batch_first=True)
    ),
    "recurrent": lambda: text(Recurrent),
    "tied weights": tied,
}


@pytest.fixture(params=ARCHITECTURES, scope="module")
def built(request):
    made = ARCHITECTURES[request.param]()
    return Reference(made), made.project()


def test_value(built):
    reference, project = built
    curvature = puma.ConjugateGradient(damping=0.1, tolerance=1e-10)
    scores = puma.value(project, curvature=curvature).scores
    np.testing.assert_allclose(scores, reference.psi(damping=0.1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [puma.ConjugateGradient, puma.Dense])
def test_patch(built, kind, tmp_path):
    reference, project = built
    if kind is puma.Dense and isinstance(getattr(reference.case.model, "mix", None), Recurrent):
        with pytest.raises(
            puma.ProjectError, match="ConjugateGradient"
        ):  # torch.func cannot take it row by row
            puma.value(project, curvature=puma.Dense())
        return
    curvature = kind(damping=0.1) if kind is puma.Dense else kind(damping=0.1, tolerance=1e-10)
    patch = puma.patch(project, puma.PatchPlan(remove=(1, 4), method="influence"), curvature=curvature)
    e = np.isin(np.arange(reference.n), (1, 4)) * -1.0
    torch.testing.assert_close(patch.delta, reference.delta(e, damping=0.1), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(flat(patch.model), reference.theta + patch.delta)
    still = [name for name, p in reference.case.model.named_parameters() if not p.requires_grad]
    for name in still:
        assert torch.equal(patch.model.get_parameter(name), reference.case.model.get_parameter(name))

    patch.save(tmp_path / "patched.safetensors")
    restored = copy.deepcopy(reference.case.model)
    restored.load_state_dict(load_file(tmp_path / "patched.safetensors"))
    assert torch.equal(flat(restored), flat(patch.model))


def test_forecast_and_puma(built):
    _, project = built
    plan = puma.PatchPlan(remove=(1, 4), hold=("cross_entropy",), tolerance={"cross_entropy": 10.0})
    curvature = puma.ConjugateGradient(damping=0.1, tolerance=1e-8)
    forecast, patch = (call(project, plan, curvature=curvature) for call in (puma.forecast, puma.patch))
    assert forecast.criteria == pytest.approx(patch.predicted, rel=1e-6)


def test_retraining_starts_from_fresh_weights_but_keeps_what_was_frozen():
    made = frozen()
    made.model[6].bias.requires_grad_(False)
    recipe = puma.AdamRecipe(puma.LOSSES["cross_entropy"](), epochs=1)
    patch = puma.patch(made.project(trainer=recipe), puma.PatchPlan(remove=(1,), method="retrain"))
    assert torch.equal(patch.model[0].weight, made.model[0].weight)
    assert torch.equal(patch.model[6].bias, made.model[6].bias)
    assert not torch.equal(patch.model[6].weight, made.model[6].weight)


def test_a_model_that_mixes_rows_is_refused():
    """Statistics of the batch in eval mode: a row's output depends on its neighbours, psi has no meaning."""
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)
    ).double()
    with pytest.raises(puma.ProjectError):
        puma.value(case(model, (3,), 3).project())
