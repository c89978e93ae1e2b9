"""A criterion of some rows, of a class, of a group: its value, its name, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.task import CLASSIFICATION

from .cases import CASES, case, mlp

SOFTMAX, REGRESSION = CASES["softmax"], CASES["regression"]
NAMES = ("cat", "dog", "cow")
SEX = np.resize(["f", "m", "m"], 15)
AGE = np.resize([1, 2, 3, 4], 15)


def split(part=SOFTMAX.validation, **columns):
    """Rows with the columns of ``groups``."""
    return puma.Split(*part, groups=pd.DataFrame(columns) if columns else None)


def project(validation=None, like=SOFTMAX, **changes):
    """Rows with a sex, an age that is known of validation only, and names for the classes."""
    own = puma.Split(
        *like.validation, groups=pd.DataFrame({"sex": SEX}), meta=pd.DataFrame({"age": AGE, "sex": "?"})
    )
    names = {"class_names": NAMES} if like is SOFTMAX else {}
    return like.project(validation=validation or own, **{**names, **changes})


RESTRICTIONS = {
    "a class": ({"of_class": 2}, SOFTMAX.validation[1] == 2),
    "a class by name": ({"of_class": "dog"}, SOFTMAX.validation[1] == 1),
    "a group": ({"group": ("sex", "f")}, SEX == "f"),
    "a column of meta": ({"group": ("age", 3)}, AGE == 3),
    "rows of a group": ({"group": ("sex", "m"), "rows": (0, 1, 2, 4)}, np.isin(np.arange(15), (1, 2, 4))),
    "rows of a class": (
        {"of_class": 2, "rows": range(9)},
        (SOFTMAX.validation[1] == 2) & (np.arange(15) < 9),
    ),
    "a group of a class": (
        {"group": ("sex", "m"), "of_class": 0},
        (SEX == "m") & (SOFTMAX.validation[1] == 0),
    ),
}


@pytest.mark.parametrize("key", ["cross_entropy", "brier", "calibration", "margin", "adversarial"])
@pytest.mark.parametrize(("restriction", "rows"), RESTRICTIONS.values(), ids=RESTRICTIONS)
def test_a_restriction_is_the_criterion_of_its_rows(key, restriction, rows):
    engine = Engine(project())
    criterion = puma.CRITERIA[key](**restriction)
    data = criterion.evaluation(engine)
    assert len(data) == rows.sum()
    assert data.targets.tolist() == SOFTMAX.validation[1][rows].tolist()
    same = puma.CRITERIA[key](rows=np.flatnonzero(rows))
    assert engine.criterion(criterion) == pytest.approx(engine.criterion(same), rel=1e-12)


def test_missing_groups_belong_to_none():
    sex = pd.Series(np.resize(["f", "m", None], 15), dtype="string")
    engine = Engine(project(split(sex=sex)))
    assert len(puma.Brier(group=("sex", "m")).evaluation(engine)) == 5
    own = [engine.criterion(puma.CrossEntropy(group=("sex", value))) for value in ("f", "m")]
    assert engine.criterion(puma.WorstGroup()) == pytest.approx(max(own))


def test_classes_are_the_groups_of_a_project_without():
    engine = Engine(SOFTMAX.project())
    own = [engine.criterion(puma.CrossEntropy(of_class=k)) for k in range(3)]
    assert engine.criterion(puma.WorstGroup()) == pytest.approx(max(own))


def test_a_group_of_another_column():
    engine = Engine(project())
    own = [engine.criterion(puma.CrossEntropy(group=("age", value))) for value in (1, 2, 3, 4)]
    assert engine.criterion(puma.WorstGroup(attribute="age")) == pytest.approx(max(own))
    both = puma.WorstGroup(attribute="age", group=("sex", "m"))
    own = [engine.criterion(puma.CrossEntropy(rows=np.flatnonzero((k == AGE) & (SEX == "m")))) for k in AGE]
    assert engine.criterion(both) == pytest.approx(max(own))


def test_names_are_unique_and_equal_criteria_are_equal():
    rows = [None, (1,), (2,), (1, 2), tuple(range(12)), tuple(range(1, 13))]
    criteria = [
        kind(split=split, rows=chosen, of_class=of_class, group=group)
        for kind in puma.CRITERIA.values()
        for split in ("validation", "train", "test")
        for chosen in rows
        for of_class in (None, 0, 1, "1")
        for group in (None, ("sex", "f"), ("sex", "m"), ("age", 1), ("age", "1"))
    ]
    criteria += [
        puma.Calibration(bins=10),
        puma.Calibration(norm=2),
        puma.Margin(temperature=0.5),
        puma.Adversarial(seed=1),
        puma.WorstGroup(attribute="sex"),
        puma.EqualizedOdds(positive=0),
    ]
    assert len({criterion.name for criterion in criteria}) == len(criteria) == len(set(criteria))
    for key, kind in puma.CRITERIA.items():
        assert kind().name == key
    assert puma.Brier(rows=(3, 1, 3)) == puma.Brier(rows=np.array([1, 3]))
    assert puma.Brier(rows=puma.Selection([3, 1], "lasso")) == puma.Brier(rows=(1, 3))
    assert puma.Brier(rows=[3, 1]).name == puma.Brier(rows=(1, 3)).name
    assert puma.Brier(group=["age", np.int64(3)]) == puma.Brier(group=("age", 3))
    assert puma.Brier(group=("age", np.int64(3))).name == puma.Brier(group=("age", 3)).name
    assert puma.Brier(of_class=np.int64(2)).name == puma.Brier(of_class=2).name


def test_names_can_be_read():
    assert puma.CrossEntropy(of_class=3).name == "cross_entropy of class 3"
    assert puma.Brier(group=("sex", "female"), split="test").name == "brier where sex = 'female' on test"
    named = puma.Calibration(bins=10, of_class="dog").name
    assert named == "calibration (bins 10) of class 'dog'"


def measured(criterion, **changes):
    return lambda: Engine(project(**changes)).criterion(criterion)


ONE_SIDED = {"sex": np.where(SOFTMAX.validation[1] == 2, "f", np.resize(["m", "f"], 15))}
TOKENS = case(mlp(3, 3).float(), (3,), 3)
MISTAKES = {
    "a class number too large": (measured(puma.Brier(of_class=3)), "from 0 to 2 or by name (cat, dog, cow)"),
    "an unknown class": (measured(puma.Brier(of_class="horse")), "(cat, dog, cow), but got 'horse'"),
    "a class that is a bool": (lambda: puma.Brier(of_class=True), "but got True"),
    "a class of a regression": (
        measured(puma.CRITERIA["squared_error"](of_class=0), like=REGRESSION),
        "a class of a classifier",
    ),
    "an unknown column": (measured(puma.Brier(group=("race", "x"))), "groups or meta (age, sex, sex)"),
    "no columns at all": (
        measured(puma.Brier(group=("race", "x")), validation=split()),
        "meta (it has none), but got 'race'",
    ),
    "an unknown value": (measured(puma.Brier(group=("sex", "x"))), "sex in the validation split (f, m)"),
    "a group without a value": (lambda: puma.Brier(group="sex"), "a column and a value"),
    "a group of three": (lambda: puma.Brier(group=("sex", "f", "m")), "a column and a value"),
    "no row left": (measured(puma.Brier(group=("sex", "f"), rows=(1, 2))), "none is left"),
    "half a bin": (lambda: puma.Calibration(bins=2.5), "bins to be a whole number"),
    "no temperature": (lambda: puma.Margin(temperature=0.0), "temperature to be a number from 1e-06"),
    "no groups": (
        measured(puma.DemographicParity(), validation=split()),
        "expected groups in the validation",
    ),
    "no attribute": (measured(puma.EqualizedOdds(attribute="race")), "but got 'race'"),
    "a single group": (measured(puma.WorstGroup(), validation=split(sex=["f"] * 15)), "two groups"),
    "a single group left": (measured(puma.DemographicParity(group=("sex", "f"))), "two groups"),
    "a group that only training has": (
        measured(
            puma.DemographicParity(), train=split(SOFTMAX.train, sex=np.resize(["f", "m", "other"], 22))
        ),
        "has none of other",
    ),
    "groups elsewhere only": (
        measured(
            puma.WorstGroup(), validation=split(), train=split(SOFTMAX.train, sex=np.resize(["f", "m"], 22))
        ),
        "groups in the validation split, as in train",
    ),
    "a positive class too large": (measured(puma.DemographicParity(positive=3)), "positive to be a class"),
    "a positive class below 0": (
        lambda: puma.EqualizedOdds(positive=-1),
        "positive to be a whole number of at least 0",
    ),
    "a group without positives": (
        measured(puma.EqualizedOdds(), validation=split(**ONE_SIDED)),
        "of the positive class in every group for equalized_odds, but there are none in m",
    ),
    "a group without others": (
        measured(puma.EqualizedOdds(of_class=2)),
        "of other classes in every group for equalized_odds of class 2, but there are none in f, m",
    ),
}
MISTAKES |= {
    f"{key} of a regression": (measured(kind(), like=REGRESSION, validation=None), f"project for {key}, but")
    for key, kind in puma.CRITERIA.items()
    if kind.task is CLASSIFICATION
}


@pytest.mark.parametrize(("mistake", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_answered_in_words(mistake, words):
    with pytest.raises(puma.ProjectError) as caught:
        mistake()
    text = str(caught.value)
    assert words in text
    assert text.startswith("expected ")
    assert text.endswith(".")


def test_a_split_that_lacks_the_groups_is_judged_where_it_was_held():
    """The test split cannot tell: the verdict stays on validation and says so by its name."""
    made = project(test=puma.Split(*SOFTMAX.validation))
    plan = puma.PatchPlan(remove=(1,), hold=("demographic_parity", "brier"), method="influence")
    patch = puma.patch(made, plan)
    verdicts = puma.compare(made, patch, split="test").verdicts
    assert verdicts["criterion"].tolist() == ["error_rate", "demographic_parity", "brier on test"]
    assert verdicts["measured"][1] == patch.measured["demographic_parity"]


def test_resamples_keep_small_groups():
    """One row of a group: a resample without it has no gap to measure."""
    sex = np.array(["f"] + ["m"] * 14)
    made = project(split(sex=sex), train=split(SOFTMAX.train, sex=np.resize(["f", "m"], 22)))
    plan = puma.PatchPlan(remove=(1, 2), hold=("worst_group", "demographic_parity"), method="influence")
    verdicts = puma.compare(made, puma.patch(made, plan)).verdicts
    assert np.isfinite(verdicts[["low", "high"]].to_numpy()).all()
    parity = verdicts.set_index("criterion").loc["demographic_parity"]
    assert parity["low"] < parity["measured"] < parity["high"]


def test_groups_are_part_of_what_a_project_is():
    """Results of group criteria must not pass for those of other groups."""
    prints = [project(split(sex=sex)).fingerprint for sex in (SEX, SEX[::-1].copy())]
    prints += [project(split(gender=SEX)).fingerprint, project(split()).fingerprint]
    assert len(set(prints)) == 4
