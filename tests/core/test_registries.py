"""One contract for everything that can be added: a frozen dataclass that is called."""

import dataclasses
import inspect

import pytest

import puma_dash as puma

REGISTRIES = {
    "CRITERIA": puma.CRITERIA,
    "CURVATURES": puma.CURVATURES,
    "VALUATIONS": puma.VALUATIONS,
    "UNLEARNERS": puma.UNLEARNERS,
    "EMBEDDINGS": puma.EMBEDDINGS,
    "DEMOS": puma.DEMOS,
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
    with pytest.raises(puma.ProjectError, match=next(iter(fields))):
        kind(**fields)


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
    assert {"psi", "gradient_dot", "loss", "random"} <= set(puma.VALUATIONS)
    assert {"puma", "influence", "retrain"} <= set(puma.UNLEARNERS)
    assert {"pca", "umap", "columns"} <= set(puma.EMBEDDINGS)
    assert {"digits", "two-moons", "radial"} <= set(puma.DEMOS)
    assert set(puma.LOSSES) == {"cross_entropy", "binary_cross_entropy", "squared_error"}


@pytest.mark.parametrize("kind", puma.CRITERIA.values())
def test_criteria_say_their_unit(kind):
    assert kind.unit.strip()


@pytest.mark.parametrize("kind", [*puma.VALUATIONS.values(), *puma.UNLEARNERS.values()])
def test_methods_say_what_they_need(kind):
    assert set(kind.needs) <= {"criterion", "curvature", "trainer", "recorder"}


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
