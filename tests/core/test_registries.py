"""One contract for everything that can be added: a frozen dataclass that is called."""

import dataclasses
import inspect
import typing

import numpy as np
import pytest

import puma_dash as puma

REGISTRIES = {
    "CRITERIA": puma.CRITERIA,
    "CURVATURES": puma.CURVATURES,
    "VALUATIONS": puma.VALUATIONS,
    "UNLEARNERS": puma.UNLEARNERS,
    "EMBEDDINGS": puma.EMBEDDINGS,
    "DEMOS": puma.DEMOS,
    "LOSSES": puma.LOSSES,
    "ARCHITECTURES": puma.ARCHITECTURES,
    "LOADERS": puma.LOADERS,
}
ENTRIES = [
    pytest.param(kind, id=f"{registry}.{key}")
    for registry, entries in REGISTRIES.items()
    for key, kind in entries.items()
]


@pytest.mark.parametrize("kind", ENTRIES)
def test_contract(kind):
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    one, same = kind(), kind()
    assert one == same
    assert hash(one) == hash(same)
    assert repr(one) == repr(same)
    assert "__call__" in dir(kind)
    assert inspect.getdoc(kind)
    assert inspect.getdoc(kind.__call__)
    own = {entry.name for entry in dataclasses.fields(kind)}
    for text in ("label", "reference"):
        assert isinstance(getattr(kind, text), str)
        assert getattr(kind, text).strip()
        assert text not in own


@pytest.mark.parametrize("kind", ENTRIES)
def test_fields_describe_themselves(kind):
    for entry in dataclasses.fields(kind):
        assert entry.default is not dataclasses.MISSING, entry.name
        assert entry.metadata.get("help", "").strip(), f"{entry.name} has no help"
        value = getattr(kind(), entry.name)
        if "choices" in entry.metadata:
            assert value in entry.metadata["choices"].split()
        if isinstance(value, int | float):
            assert entry.metadata.get("min", value) <= value <= entry.metadata.get("max", value)


BEYOND = [
    pytest.param(kind, {entry.name: entry.metadata[end] + step}, id=f"{kind.__name__}-{entry.name}-{end}")
    for entries in REGISTRIES.values()
    for kind in entries.values()
    for entry in dataclasses.fields(kind)
    for end, step in (("min", -1), ("max", 1))
    if end in entry.metadata
]


@pytest.mark.parametrize(("kind", "fields"), BEYOND)
def test_numbers_outside_their_range_are_refused(kind, fields):
    """The range is part of the field: a form may be bypassed, a notebook has none."""
    refused(kind, **fields)


def refused(kind, **fields):
    ((name, value),) = fields.items()
    with pytest.raises(puma.ProjectError) as caught:
        kind(**fields)
    text = str(caught.value)
    assert text.startswith(f"expected {name} to be ")
    assert text.endswith(f", but got {value!r}.")
    return text


EXAMPLES = {
    bool: [True, np.False_],
    int: [7, 0, -3, np.int64(2)],
    float: [0.25, 0.0, -0.5, np.float32(0.5)],
    str: ["a lot", "", np.str_("some")],
    type(None): [None],
}
"""Values of each kind; ranges and choices may still refuse them."""
NOTHING = [float("nan"), float("inf"), -float("inf"), 1j, b"7", object, [7], (0.25,), {}, 10**400]
FIELDS = [
    pytest.param(kind, entry, kinds, id=f"{kind.__name__}-{entry.name}")
    for entries in REGISTRIES.values()
    for kind in entries.values()
    for entry in dataclasses.fields(kind)
    for hint in (typing.get_type_hints(kind)[entry.name],)
    for kinds in (set(typing.get_args(hint)) or {hint},)
    if kinds <= set(EXAMPLES)  # rows and groups have checks of their own, in test_errors.py
]


@pytest.mark.parametrize(("kind", "entry", "kinds"), FIELDS)
def test_other_kinds_of_values_are_refused(kind, entry, kinds):
    """A word where a number is due, a fraction where a whole number is, True for 1: nothing is guessed."""
    taken = kinds | ({int} if float in kinds else set())
    others = [value for part in set(EXAMPLES) - taken for value in EXAMPLES[part]]
    for value in others + (NOTHING if int not in kinds else NOTHING[:-1]):
        refused(kind, **{entry.name: value})
    if "choices" in entry.metadata:
        text = refused(kind, **{entry.name: "a lot"})
        assert all(word in text for word in entry.metadata["choices"].split())


@pytest.mark.parametrize(("kind", "entry", "kinds"), FIELDS)
def test_numbers_of_numpy_become_plain(kind, entry, kinds):
    given = getattr(kind(), entry.name)
    made = kind(**{entry.name: np.array(given, dtype=type(given) if given is not None else object)[()]})
    assert repr(made) == repr(kind())


def test_a_refusal_says_all_that_fits():
    assert [
        refused(puma.ConjugateGradient, damping=-1.0),
        refused(puma.ConjugateGradient, fidelity=2),
        refused(puma.ConjugateGradient, rows=1.5),
        refused(puma.Calibration, norm=3),
        refused(puma.Puma, weight_max="all"),
        refused(puma.Psi, leverage=1),
    ] == [
        "expected damping to be a number of at least 0 or auto, but got -1.0.",
        "expected fidelity to be a number from 0.5 to 0.99999 or None, but got 2.",
        "expected rows to be a whole number of at least 1 or None, but got 1.5.",
        "expected norm to be a whole number from 1 to 2, but got 3.",
        "expected weight_max to be a number of at least 0, but got 'all'.",
        "expected leverage to be True or False, but got 1.",
    ]


def test_a_whole_number_will_do_for_a_float():
    """And equal settings have equal names."""
    assert puma.Margin(temperature=2).name == puma.Margin(temperature=2.0).name
    assert repr(puma.Dense(damping=np.int64(1))) == repr(puma.Dense(damping=1.0))


def test_keys_are_the_fixed_ones():
    """design.md, section 4: names may be added, never changed."""
    assert {
        "cross_entropy",
        "brier",
        "calibration",
        "margin",
        "worst_group",
        "demographic_parity",
        "equalized_odds",
        "adversarial",
    } <= set(puma.CRITERIA)
    assert all(kind.key == key for key, kind in puma.CRITERIA.items())
    assert {"auto", "dense", "conjugate_gradient", "kfac", "ekfac", "lissa"} <= set(puma.CURVATURES)
    assert {
        "psi",
        "influence",
        "self_influence",
        "gradient_dot",
        "representer",
        "knn_shapley",
        "data_shapley_tmc",
        "data_shapley_g",
        "dvrl",
        "leave_one_out",
        "confident_learning",
        "loss",
        "random",
    } <= set(puma.VALUATIONS)
    assert {"puma", "influence", "retrain"} <= set(puma.UNLEARNERS)
    assert {"pca", "umap", "columns"} <= set(puma.EMBEDDINGS)
    assert {"digits", "two-moons", "radial", "mnist"} == set(puma.DEMOS)
    assert {"tables", "arrays", "images", "idx"} <= set(puma.LOADERS)
    assert set(puma.LOSSES) == {"cross_entropy", "binary_cross_entropy", "squared_error"}


@pytest.mark.parametrize("kind", puma.CRITERIA.values())
def test_criteria_say_their_unit(kind):
    assert kind.unit.strip()


@pytest.mark.parametrize("kind", [*puma.VALUATIONS.values(), *puma.UNLEARNERS.values()])
def test_methods_say_what_they_need(kind):
    assert set(kind.needs) <= {"criterion", "curvature", "trainer", "recorder", "validation"}


@pytest.mark.parametrize("kind", puma.CURVATURES.values())
def test_curvatures_take_a_damping_and_estimate_their_cost(kind):
    assert "damping" in {entry.name for entry in dataclasses.fields(kind)}
    assert list(inspect.signature(kind.__call__).parameters) == ["self", "engine", "theta"]
    assert list(inspect.signature(kind.estimate).parameters) == ["self", "engine"]
    assert inspect.getdoc(kind.estimate)


@pytest.mark.parametrize("kind", puma.DEMOS.values())
def test_demos_say_what_they_show(kind):
    assert kind.summary.strip()
    assert 0 < kind.seconds <= 30
