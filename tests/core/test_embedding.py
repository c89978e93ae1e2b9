"""Maps: principal components against a singular value decomposition, features against the model's layers."""

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core.embedding.base import features
from puma_dash.core.engine import Engine

from .cases import CASES, trained
from .test_architectures import ARCHITECTURES

PCA, UMAP, COLUMNS = (puma.EMBEDDINGS[key] for key in ("pca", "umap", "columns"))


@pytest.fixture(scope="module")
def engine():
    return Engine(trained().project(), batch_size=7)


@pytest.mark.parametrize("space", ["penultimate", "inputs"])
def test_pca(engine, space):
    x, model = torch.as_tensor(trained().train[0]), trained().model
    vectors = x if space == "inputs" else torch.tanh(model[0](x)).detach()
    u, s, _ = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    xy, axes = PCA(space=space)(engine)
    np.testing.assert_allclose(np.abs(xy), (u * s)[:, :2].abs(), atol=1e-4)
    shares = (s**2 / (s**2).sum()).tolist()
    for share, axis in zip(shares, axes, strict=False):
        assert f"({100 * share:.0f} % of variance)" in axis


def test_columns(engine):
    xy, axes = COLUMNS(first=2, second=0)(engine)
    np.testing.assert_allclose(xy, trained().train[0][:, [2, 0]], rtol=1e-6)
    assert axes == ("input 3", "input 1")
    with pytest.raises(puma.ProjectError, match="0 to 2"):
        COLUMNS(second=3)(engine)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_penultimate_is_what_the_last_linear_layer_sees(name):
    case = ARCHITECTURES[name]()
    vectors = features(Engine(case.project(), batch_size=5), "penultimate")
    head = [module for module in case.model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        z = case.model.eval()(torch.as_tensor(case.train[0]))
        np.testing.assert_allclose(head(torch.as_tensor(vectors).double()), z, atol=1e-5)


def test_a_model_without_a_linear_layer_is_mapped_by_its_inputs():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 6), torch.nn.Flatten()).double()
    engine = Engine(CASES["convolution"].but(model=model).project())
    with pytest.raises(puma.ProjectError, match='space="inputs"'):
        PCA()(engine)
    assert PCA(space="inputs")(engine).xy.shape == (22, 2)


def test_an_unknown_space_is_refused(engine):
    with pytest.raises(puma.ProjectError, match="penultimate or inputs"):
        PCA(space="elsewhere")(engine)


def test_umap_keeps_far_groups_apart_and_is_the_same_twice():
    case = trained()
    x = case.train[0] + 100 * (case.train[1] == 0)[:, None]
    engine = Engine(case.but(train=(x, case.train[1])).project())
    threads = torch.get_num_threads()
    xy, again = (UMAP(space="inputs", neighbors=5)(engine).xy for _ in range(2))
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == threads  # numba sets OpenMP's, which is torch's, to all cores
    np.testing.assert_array_equal(xy, again)
    group = case.train[1] == 0
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.diag(np.full(60, np.inf))
    assert (group[distances.argmin(1)] == group).all()
