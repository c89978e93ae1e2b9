"""The same answers on a GPU as on the CPU, to single precision."""

import numpy as np
import pytest
import torch

import puma_dash as puma

from .cases import case as made
from .cases import convolution, mlp

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]
MODELS = {
    "network": lambda: made(mlp(3, 8, 3).float(), (3,), 3, n=60),
    "weighted network": lambda: made(
        mlp(3, 8, 3).float(), (3,), 3, n=60, weights=np.resize([1, 0.5, 2.0], 60)
    ),
    "convolution": lambda: made(convolution().float(), (1, 6, 6), 3, n=60),
    "regression": lambda: made(mlp(3, 8, 2).float(), (3,), 2, "squared_error", n=60),
}


@pytest.fixture(params=MODELS)
def project(request):
    return MODELS[request.param]().project()


@pytest.fixture
def key(project):
    return "squared_error" if project.loss == puma.LOSSES["squared_error"]() else "cross_entropy"


CURVATURES = [puma.Dense(damping=0.1), puma.ConjugateGradient(damping=0.1, tolerance=1e-5)]


@pytest.mark.parametrize("curvature", CURVATURES)
def test_value(project, key, curvature):
    cpu, cuda = (
        puma.value(project, "psi", key, curvature=curvature, device=d).scores for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda, cpu, rtol=2e-3, atol=2e-3 * np.abs(cpu).max())


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("method", ["puma", "influence"])
def test_patch_forecast_and_compare(project, key, curvature, method):
    relabel = {} if key == "squared_error" else {4: int(project.train.targets[4] == 0)}
    plan = puma.PatchPlan(
        remove=(1, 2), upweight={7: 0.5}, relabel=relabel, hold=(key,), method=method, tolerance={key: 10.0}
    )
    cpu, cuda = (puma.patch(project, plan, curvature=curvature, device=d) for d in ("cpu", "cuda"))
    torch.testing.assert_close(
        cuda.delta.double(), cpu.delta, rtol=2e-3, atol=2e-3 * float(cpu.delta.abs().max())
    )
    assert cuda.predicted[key] == pytest.approx(cpu.predicted[key], rel=1e-2, abs=1e-5)
    assert cuda.measured[key] == pytest.approx(cpu.measured[key], rel=1e-2, abs=1e-5)
    assert {p.device.type for p in cuda.model.parameters()} == {"cpu"}
    if key != "squared_error":
        forecast = puma.forecast(project, plan, curvature=curvature, device="cuda")
        assert forecast.criteria == pytest.approx(cuda.predicted, rel=1e-3, abs=1e-6)
        assert puma.compare(project, cuda, device="cuda").n == 15


@pytest.mark.parametrize("method", ["gradient_dot", "loss", "random"])
def test_baselines(project, key, method):
    cpu, cuda = (puma.value(project, method, key, device=d).scores for d in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda, cpu, rtol=1e-3, atol=1e-4)


def test_retrain(project):
    project = MODELS["network"]().project(trainer=puma.AdamRecipe(project.loss, epochs=2))
    if project.loss == puma.LOSSES["squared_error"]():
        pytest.skip("one classification model is enough")
    cpu, cuda = (
        puma.patch(project, puma.PatchPlan(remove=(1, 2), method="retrain"), device=d).delta
        for d in ("cpu", "cuda")
    )
    torch.testing.assert_close(cuda.double(), cpu.double(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("space", ["penultimate", "inputs"])
def test_embedding(project, space):
    from puma_dash.core.engine import Engine

    cpu, cuda = (puma.EMBEDDINGS["pca"](space=space)(Engine(project, device=d)).xy for d in ("cpu", "cuda"))
    np.testing.assert_allclose(np.abs(cuda), np.abs(cpu), atol=1e-2)


def test_exact_hessian(project, key):
    curvature = puma.Dense(damping=5.0, matrix="hessian")
    cpu, cuda = (
        puma.value(project, "psi", key, curvature=curvature, device=d).scores for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda, cpu, rtol=2e-3, atol=2e-3 * np.abs(cpu).max())
