"""Plans and criteria as JSON: what a page writes, the worker reads, and the other way round."""

import json

import pytest

import puma_dash as puma
from puma_dash.core.criteria import CRITERIA, Calibration, CrossEntropy
from puma_dash.core.records import criterion_of, criterion_record, plan_of, plan_record

OWN = [
    CrossEntropy(rows=(3, 1)),
    CrossEntropy(split="train", of_class="cat"),
    Calibration(bins=7, group=("sex", "female")),
    CrossEntropy(of_class=2, group=("age", 30.5)),
]


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_as_it_comes_is_its_key(name):
    assert criterion_record(name) == criterion_record(CRITERIA[name]()) == name
    assert criterion_of(name) == name


@pytest.mark.parametrize("criterion", OWN, ids=lambda criterion: criterion.name)
def test_a_criterion_of_ones_own_comes_back(criterion):
    assert criterion_of(json.loads(json.dumps(criterion_record(criterion)))) == criterion


@pytest.mark.parametrize("record", [{}, {"criterion": "os"}, {"criterion": "brier", "nonsense": 1}])
def test_what_is_no_criterion_is_refused_in_words(record):
    with pytest.raises(puma.ProjectError, match="expected"):
        criterion_of(record)


def test_a_plan_comes_back():
    plan = puma.PatchPlan(
        remove=(4, 2),
        upweight={7: 0.5},
        relabel={9: 1},
        hold=("brier", OWN[0]),
        tolerance={OWN[0].name: 0.1},
        steps=3,
        intent="forget",
    )
    back = plan_of(json.loads(json.dumps(plan_record(plan))))
    assert plan_record(back) == {**plan_record(plan), "options": vars(back.method)}
    assert (back.hold, back.tolerance, back.relabel) == (plan.hold, plan.tolerance, plan.relabel)
