"""What a command line says of a criterion, a method or a curvature: Python's settings, and nothing is run."""

import pytest

import puma_dash as puma
from puma_dash.core.registry import parsed


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("brier", puma.Brier()),
        (" brier() ", puma.Brier()),
        ("calibration(of_class=3)", puma.Calibration(of_class=3)),
        ("calibration (bins=7, of_class='cat')", puma.Calibration(bins=7, of_class="cat")),
        ('cross_entropy(group=("sex", "Female (F)"))', puma.CrossEntropy(group=("sex", "Female (F)"))),
        ("cross_entropy(rows=[7, 3], split='train')", puma.CrossEntropy(rows=(3, 7), split="train")),
    ],
)
def test_what_is_spelled_is_made(text, made):
    assert parsed(puma.CRITERIA, text, "criterion") == made


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("beauty", "expected one of the criterion names"),
        ("beauty(of_class=3)", "expected one of the criterion names"),
        (
            "calibration(of_klass=3)",
            r"expected settings of calibration \(split, .*bins.*\), but got of_klass",
        ),
        ("calibration(3)", r"such as calibration\(setting=value\)"),
        ("calibration(of_class=cat)", "try quotes around texts"),
        ("calibration(of_class=", "try quotes around texts"),
        ("calibration(of_class=3)(bins=3)", "try quotes"),
        ("calibration(of_class=3); brier()", "try quotes"),
        ("calibration(of_class=__import__('os').getpid())", "try quotes"),
        ("calibration(**{'bins': 3})", "expected settings of calibration"),
        ("calibration(bins=0)", "expected bins to be"),
        ("calibration(" + "[" * 5000, "try quotes"),
        ("calibration(bins=3, bins=4)", "try quotes"),
    ],
)
def test_anything_else_is_told_and_not_run(text, sentence):
    with pytest.raises(puma.ProjectError, match=sentence):
        parsed(puma.CRITERIA, text, "criterion")
