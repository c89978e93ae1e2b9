"""The source's experiments, on few seeds: what they find, by measures of our own and third parties'."""

import dataclasses
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from scipy.stats import t
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import puma_dash as puma
from puma_dash.core.demos.digits import Digits
from puma_dash.core.demos.two_moons import TwoMoons
from puma_dash.core.experiments import EXPERIMENTS, rails
from puma_dash.core.experiments.base import summary, told_value
from puma_dash.core.types import Cancelled


@pytest.fixture(scope="module")
def found():
    """The result of each experiment on two seeds, once."""
    done = {}

    def of(key):
        if key not in done:
            done[key] = EXPERIMENTS[key](seeds=2)()
        return done[key]

    return of


def only(result):
    (table,) = result.tables.values()
    return table


@pytest.mark.parametrize("key", EXPERIMENTS)
def test_every_experiment_describes_itself_and_can_be_cancelled(key):
    kind = EXPERIMENTS[key]
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert kind.label.startswith(f"Figure {key.removeprefix('fig')}: ")
    assert "(2022)" in kind.reference
    assert all("help" in entry.metadata for entry in dataclasses.fields(kind))

    class Set:
        def is_set(self):
            return True

    with pytest.raises(Cancelled):
        kind(seeds=1)(cancel=Set())


def test_intervals_are_those_of_students_t():
    values = np.random.default_rng(0).normal(size=7)
    lines = [{"way": way, "x": value + k} for k, way in enumerate("ba") for value in values]
    table = summary(lines, ["way"])
    assert table["way"].tolist() == ["b", "a"]
    low, high = t.interval(0.95, 6, values.mean(), values.std(ddof=1) / np.sqrt(7))
    assert table["x"].tolist() == pytest.approx([values.mean(), values.mean() + 1])
    assert table["x ±"].tolist() == pytest.approx([(high - low) / 2] * 2)
    assert told_value(table, {"way": "a"}, "x", 1) == f"{values.mean() + 1:.1f} ± {(high - low) / 2:.1f}"
    assert told_value(summary(lines[:1], ["way"]), {"way": "b"}, "x") == f"{values[0]:.3f}"


def test_flips_are_found_as_scikit_learn_counts_them(found):
    result = found("fig5")
    project = Digits(seed=0)()
    flipped = project.train.meta["flipped"].to_numpy()
    loss = puma.value(project, "loss").scores
    at = np.argsort(loss, kind="stable")[:100]
    assert result.arrays["loss"][0, 10] == pytest.approx(flipped[at].mean())
    assert only(result)["AUC"].is_monotonic_decreasing
    assert "does not agree" in result.told  # plain loss finds random flips best, here as elsewhere


def test_a_cluster_is_forgotten_and_the_rest_holds(found):
    table = only(found("fig6")).set_index("model")
    assert table.loc["before", "the cluster"] > 0.9
    assert table.loc["patched", "the cluster"] < 0.1
    for name in ("its class elsewhere", "the other class"):
        assert table.loc["patched", name] > table.loc["before", name] - 0.02
    assert "it agrees with the source" in found("fig6").told


def test_kinds_of_rows(found):
    result = found("fig8")
    flipped, kind = result.arrays["flipped"], result.arrays["kind"]
    np.testing.assert_array_equal(flipped, TwoMoons(seed=0)().train.meta["flipped"])
    assert flipped[kind == 0].mean() > 0.6
    assert flipped[kind == 0].sum() > 0.8 * flipped.sum()
    assert (result.arrays["psi"][kind == 2] > 0).all()
    assert not (kind[result.arrays["psi"] < 0] == 2).any()


def test_calibration_is_mended(found):
    result = found("fig9")
    table = only(result).set_index("model")
    assert (table["ece"].drop("before") < 0.5 * table.loc["before", "ece"]).all()
    counts = result.arrays["before.count"]
    assert counts.sum() == 2_000


def test_fairness_fails_without_its_rail_and_holds_with_it(found):
    table = only(found("fig3")).set_index(["patch", "split"])
    assert (table["adversarial loss"] < 0).all()
    assert (table.loc[rails.NOT_HELD, "parity gap"] > 0).all()
    assert (table.loc[rails.HELD, "parity gap"] <= 0).all()
    assert "it agrees with the source" in found("fig3").told


def test_surfaces_are_those_of_the_objective_and_the_criterion(found):
    """At the grid point nearest to theta and in a corner, by plain PyTorch."""
    arrays = found("fig4").arrays
    project = TwoMoons(seed=0)()
    rows = np.argsort(puma.value(project).scores)[-40:].tolist()
    naive = puma.patch(project, puma.PatchPlan(remove=rows, method="influence")).delta
    held = puma.patch(project, puma.PatchPlan(remove=rows, hold="cross_entropy")).delta
    basis = torch.linalg.qr(torch.stack([naive, held]).double().T).Q
    theta = parameters_to_vector(project.model.parameters()).detach().double()
    model = TwoMoons(seed=0).untrained().model.double()
    for i, j in ((12, 12), (0, 24)):
        at = theta + basis @ torch.tensor([arrays["x"][j], arrays["y"][i]])
        vector_to_parameters(at, model.parameters())
        losses = [
            cross_entropy(model(split.inputs.double()), split.targets).item()
            for split in (project.train, project.validation)
        ]
        assert arrays["C"][i, j] == pytest.approx(losses[1], rel=1e-4)
        assert arrays["J"][i, j] == pytest.approx(losses[0] + 0.5e-4 * float(at @ at), rel=1e-4)
    ends = pd.DataFrame(arrays["ends"]).pow(2).sum(axis=1) ** 0.5
    assert ends.tolist() == pytest.approx([float(naive.norm()), float(held.norm())], rel=1e-4)


def test_without_mnist_the_style_is_one_of_the_digits_and_that_is_said(monkeypatch):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("PUMA_DASH_MNIST", "")
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    found = EXPERIMENTS["fig7"](seeds=1)()
    assert found.told.startswith("On the digits of scikit-learn, since MNIST is not at hand")
    assert "no network" in found.told
    table = only(found).set_index("model")
    assert table.loc["before", "the marked style"] > 0.9
    assert table.loc["patched", "the marked style"] < 0.3
    assert table.loc["patched", "other 4s"] > table.loc["before", "other 4s"] - 0.06
    assert found.arrays["images"].shape[1:] == (8, 8)


def test_a_folder_that_was_named_must_have_mnist(monkeypatch, tmp_path):
    with pytest.raises(puma.ProjectError, match="four files of MNIST"):
        EXPERIMENTS["fig7"](seeds=1, folder=str(tmp_path))()
    monkeypatch.setenv("PUMA_DASH_MNIST", str(tmp_path))
    with pytest.raises(puma.ProjectError, match="four files of MNIST"):
        EXPERIMENTS["fig7"](seeds=1)()
