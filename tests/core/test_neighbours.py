"""Neighbours of a row against scikit-learn, and what is suspected of it against rows made to be suspect."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.evaluation.neighbours import Row, duplicates, neighbours, suspicions

from .cases import CASES, trained

CLASSES = ["cat", "dog", "fox"]


@pytest.fixture(scope="module")
def engine():
    return Engine(trained().project(), batch_size=7)


@pytest.fixture(scope="module")
def vectors():
    return torch.tanh(trained().model[0](torch.as_tensor(trained().train[0]))).detach().numpy()


@pytest.mark.parametrize("row", [0, 17, 59])
def test_the_nearest_rows_of_each_kind(engine, vectors, row):
    found = neighbours(engine, row, k=7, shown=4)
    distances, order = NearestNeighbors(n_neighbors=60).fit(vectors).kneighbors(vectors[[row]])
    others, far = order[0][order[0] != row], distances[0][order[0] != row]
    assert found.rows.tolist() == others[:7].tolist()
    np.testing.assert_allclose(found.distances, far[:7], rtol=1e-4)
    labels = trained().train[1]
    assert found.same.tolist() == others[labels[others] == labels[row]][:4].tolist()
    assert found.other.tolist() == others[labels[others] != labels[row]][:4].tolist()


def test_usual_distances_are_those_to_the_kth_neighbour(engine, vectors):
    reach = NearestNeighbors(n_neighbors=8).fit(vectors).kneighbors(vectors)[0][:, 7]  # itself comes first
    found = neighbours(engine, 3, k=7)
    assert found.usual == pytest.approx(np.median(reach), rel=1e-4)
    assert found.far == pytest.approx(np.percentile(reach, 99), rel=1e-4)


def test_a_model_without_a_linear_layer_compares_inputs():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 6), torch.nn.Flatten()).double()
    case = CASES["convolution"].but(model=model)
    found = neighbours(Engine(case.project()), 4, k=3)
    flat = case.train[0].reshape(22, -1)
    nearest = NearestNeighbors(n_neighbors=4).fit(flat).kneighbors(flat[[4]])[1][0]
    assert found.rows.tolist() == nearest[1:].tolist()
    assert found.space == "the inputs"


def test_few_rows_have_few_neighbours():
    case = trained(n=9)
    found = neighbours(Engine(case.project()), 2)
    assert len(found.rows) == 8


def test_duplicates_are_the_same_in_every_number():
    case = trained()
    inputs, targets = (part.copy() for part in case.train)
    inputs[[3, 40]] = inputs[11]
    inputs[5] = inputs[11]
    inputs[5, 0] += 1e-9
    engine = Engine(case.but(train=(inputs, targets)).project())
    assert duplicates(engine, 11).tolist() == [3, 40]
    assert duplicates(engine, 5).tolist() == []


def row(**changes):
    fields = {
        "label": 0,
        "prediction": 0,
        "confidence": 0.95,
        "neighbours": np.zeros(10, int),
        "distance": 1.0,
        "usual": 1.0,
        "far": 2.0,
        "copies": np.empty(0, int),
    }
    return Row(**{**fields, **changes})


def neighbourhood(cats, dogs):
    return np.repeat([0, 1, 2], [cats, dogs, 10 - cats - dogs])


SUSPECT = {
    "nothing": ({}, []),
    "a wrong label": ({"prediction": 1, "neighbours": neighbourhood(2, 6)}, ["mislabelled"]),
    "neighbours undecided": ({"prediction": 1, "neighbours": neighbourhood(3, 7)}, []),
    "too few agree": ({"prediction": 1, "confidence": 0.5, "neighbours": neighbourhood(1, 5)}, []),
    "sure and alone": ({"prediction": 1, "neighbours": neighbourhood(5, 5)}, ["over-confident"]),
    "its label learnt by heart": ({"neighbours": neighbourhood(1, 9)}, ["over-confident"]),
    "unsure of the obvious": ({"confidence": 0.55}, ["under-confident"]),
    "wrong and unsure": (
        {"prediction": 1, "confidence": 0.4, "neighbours": neighbourhood(10, 0)},
        ["over-confident"],
    ),
    "far out": ({"distance": 2.5}, ["outlier"]),
    "twice": ({"copies": np.array([0])}, ["duplicate"]),
    "all at once": (
        {"prediction": 1, "neighbours": neighbourhood(0, 9), "distance": 3.0, "copies": np.array([1, 0])},
        ["duplicate", "mislabelled", "outlier"],
    ),
    "alone in the world": ({"neighbours": np.empty(0, int), "distance": 0.0}, []),
}


@pytest.mark.parametrize("name", SUSPECT)
def test_what_a_row_is_suspected_of(name):
    changes, kinds = SUSPECT[name]
    assert [kind for kind, _ in suspicions(row(**changes), CLASSES)] == kinds


def test_the_evidence_is_told_in_numbers():
    wrong = row(prediction=1, neighbours=neighbourhood(1, 8), copies=np.array([0, 2]), distance=3.0)
    told = dict(suspicions(wrong, CLASSES))
    assert told["mislabelled"] == (
        "labelled cat, but the model says dog (95 %) and so do 8 of its 10 nearest rows; 1 carry its label."
    )
    assert told["duplicate"] == (
        "2 other training rows have the identical input, 1 of them with another label."
    )
    assert "3.0 times as far as is usual" in told["outlier"]


def test_a_flipped_label_of_the_digits_is_found():
    """Of the labels that the demo flipped, most are suspected to be wrong; of the others, few."""
    project = puma.load("digits")
    engine = Engine(project)
    flipped = project.train.meta["flipped"].to_numpy(bool)
    labels = project.train.targets.numpy()
    p = engine.probabilities(engine.outputs("train"))

    def suspected(index):
        near = neighbours(engine, index)
        known = Row(
            int(labels[index]),
            int(p[index].argmax()),
            float(p[index].max()),
            labels[near.rows],
            float(near.distances[-1]),
            near.usual,
            near.far,
            np.empty(0, int),
        )
        return "mislabelled" in dict(suspicions(known, list(project.class_names)))

    wrong, right = (np.flatnonzero(which)[:60].tolist() for which in (flipped, ~flipped))
    assert np.mean([suspected(index) for index in wrong]) > 0.5
    assert np.mean([suspected(index) for index in right]) < 0.05
