"""The texts on the methods: complete, one sentence each, and of the classes they are about."""

import re

import pytest
from latex2mathml.converter import convert

import puma_dash as puma
from puma_dash.ui.method_texts import GROUPS, HEADS, LEGEND, QUESTIONS, named, text_of

REGISTRIES = {"values": puma.VALUATIONS, "removes": puma.UNLEARNERS}
TEXTS = [
    pytest.param(text, id=f"{name}.{key}")
    for name, group in GROUPS.items()
    for key, text in group.texts.items()
]


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_method_is_told_under_its_own_name(name):
    """Other tests may add to the registries; what is ours comes first."""
    told, kinds = GROUPS[name].texts, REGISTRIES[name]
    ours = [key for key, kind in kinds.items() if kind.__module__.startswith("puma_dash.")]
    assert list(told) == ours
    for key, text in told.items():
        assert (text.label, text.reference) == (kinds[key].label, kinds[key].reference)


@pytest.mark.parametrize("text", TEXTS)
def test_five_sentences(text):
    assert tuple(text.sentences) == HEADS
    assert len(HEADS) == 5
    for sentence in text.sentences.values():
        words = re.sub(r"\$[^$]+\$", "it", sentence)  # a formula is read as a word
        assert words[0].isupper() or words[:3] in ("it ", "it,", "it:", "psi")
        assert re.fullmatch(r"(?:[^.!?]|\.\d)+\.", words), sentence
        assert 15 <= len(words) <= 220, len(words)
        assert "  " not in sentence


@pytest.mark.parametrize("text", TEXTS)
def test_formulas_can_be_read(text):
    assert "$" in text.formula
    formulas = re.findall(r"\$([^$]+)\$", " ".join(text.sentences.values()))
    assert "$" not in re.sub(r"\$[^$]+\$", "", " ".join(text.sentences.values()))
    for formula in (*formulas, *re.findall(r"\$([^$]+)\$", LEGEND)):
        bare = re.sub(r"\\[{}]", "", formula)
        depth = [bare[:i].count("{") - bare[:i].count("}") for i in range(len(bare) + 1)]
        assert min(depth) == depth[-1] == 0, formula
        assert len(re.findall(r"\\left\b", bare)) == len(re.findall(r"\\right\b", bare))
        assert "\\" not in re.sub(r"<[^>]+>", "", convert(formula)), formula  # every command is known


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.asked)
def test_questions_lead_to_methods(asked):
    assert asked.asked.endswith("?")
    assert asked.why.endswith(".")
    assert [text_of(method).name for method in asked.methods]
    assert all("." in method for method in asked.methods)


@pytest.mark.parametrize(
    ("method", "found"),
    {
        "tracin": ("values", "tracin"),
        "sisa": ("removes", "sisa"),
        "influence": ("values", "influence"),
        "removes.influence": ("removes", "influence"),
        "judges.five_terms": ("judges", "five_terms"),
        "values.sisa": None,
        "nothing": None,
        "": None,
    }.items(),
)
def test_methods_by_name(method, found):
    assert named(method) == found
