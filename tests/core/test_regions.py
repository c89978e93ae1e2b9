"""Decision regions: of a model whose regions are known, and only where there is a plane."""

import numpy as np
import pytest
import torch
from torch import nn

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.evaluation.regions import SIDE, decision_regions, is_flat


def plane(sign):
    """A project whose model says class 1 where sign * (x + 2 y) > 0."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(sign * torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
        model.bias.zero_()
    points = torch.tensor([[-1.0, -3.0], [2.0, 1.0], [0.5, 0.0], [1.0, 1.0]])
    split = puma.Split(points, torch.tensor([0, 1, 0, 1]))
    return puma.Project(name="plane", model=model, train=split, validation=split)


def test_both_models_on_one_grid_around_the_rows():
    projects = [plane(1), plane(-1)]
    found = decision_regions([Engine(project) for project in projects], projects[0].train)
    assert (found["x"][[0, -1]], found["y"][[0, -1]]) == (
        pytest.approx([-1.24, 2.24]),
        pytest.approx([-3.32, 1.32]),
    )
    x, y = np.meshgrid(found["x"], found["y"])
    np.testing.assert_array_equal(found["class"][0], x + 2 * y > 0)
    np.testing.assert_array_equal(found["class"][1], x + 2 * y < 0)
    sure = 1 / (1 + np.exp(-np.abs(x + 2 * y)))
    np.testing.assert_allclose(found["confidence"][0], sure, atol=1e-3)
    assert found["confidence"].shape == (2, SIDE, SIDE)


@pytest.mark.parametrize(
    ("inputs", "flat"), [(torch.zeros(3, 2), True), (torch.zeros(3, 3), False), (torch.zeros(3, 2, 2), False),
                         (torch.zeros(3, 2, dtype=torch.long), False)]
)  # fmt: skip
def test_only_points_in_the_plane_have_regions(inputs, flat):
    assert is_flat(puma.Split(inputs, torch.zeros(3, dtype=torch.long))) == flat
