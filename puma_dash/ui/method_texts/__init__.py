"""Every method in five sentences, for the Guide and the documentation; imports nothing but text."""

from __future__ import annotations

from typing import NamedTuple

from puma_dash.ui.method_texts.base import HEADS, MethodText
from puma_dash.ui.method_texts.judges import JUDGES
from puma_dash.ui.method_texts.unlearners import UNLEARNERS
from puma_dash.ui.method_texts.valuations import VALUATIONS

__all__ = [
    "GROUPS",
    "HEADS",
    "JUDGES",
    "LEGEND",
    "QUESTIONS",
    "UNLEARNERS",
    "VALUATIONS",
    "MethodText",
    "named",
    "text_of",
]


class Group(NamedTuple):
    """Methods of one kind; the title goes on where "Methods that" begins."""

    title: str
    told: str
    texts: dict[str, MethodText]


GROUPS = {
    "values": Group("value rows", "One score per training row; lower means more suspicious.", VALUATIONS),
    "removes": Group("remove rows", "From the rows that are marked to a changed model.", UNLEARNERS),
    "judges": Group("judge the answer", "How far to believe scores and patches.", JUDGES),
}

LEGEND = (
    r"$\theta$ are the trained parameters, $n$ is the number of training rows, $\ell_j$ the loss of row $j$ "
    r"times its weight in training. $C$ is the criterion on the evaluation rows, lower is better; $B$ the "
    r"curvature of the training objective, plus damping. A plan re-weights row $j$ by $e_j$: $-1$ removes "
    r"it. $\tau$ is the strength of a patch. $V$ is what a model is worth: its accuracy, or minus the "
    "criterion. Numbers were measured on one thread: digits are 1,000 rows, a tenth of them with a flipped "
    "label, and a network of 2,410 parameters; MNIST, where nothing else is said, are 10,000 rows and 56,970 "
    "parameters."
)


class Question(NamedTuple):
    """What somebody wants to know or do."""

    asked: str
    methods: tuple[str, ...]
    """Each as ``named`` takes it."""
    why: str


QUESTIONS = (
    Question(
        "Which rows make this number bad?",
        ("values.psi",),
        "It asks about any criterion and predicts how it would change.",
    ),
    Question(
        "Which labels are wrong?",
        ("values.representer", "values.knn_shapley", "values.self_influence", "values.loss"),
        "Each finds .92 to .94 (± .01) of the flips in a tenth of digits; the second needs clean validation.",
    ),
    Question(
        "Which rows does the model know by heart?",
        ("values.self_influence",),
        "It asks what a row does to its own loss; some of the rows it finds are right, and rare.",
    ),
    Question(
        "What did the rows do during training?",
        ("values.tracin",),
        "It looks at the way there and not only at the end, and needs checkpoints of it.",
    ),
    Question(
        "What is a row worth, whatever the model?",
        ("values.knn_shapley", "values.data_shapley_tmc"),
        "Both pay fair shares that add up: the first within seconds, the second within minutes to hours.",
    ),
    Question(
        "How do I move a number and hold others?",
        ("removes.puma",),
        "It predicts, keeps what must hold, measures, and is quick enough to try several plans.",
    ),
    Question(
        "How do I get rid of rows for good?",
        ("removes.retrain", "removes.sisa"),
        "Their models never saw the rows; the second saves time where its ensemble was trained ahead.",
    ),
    Question(
        "What did a removal leave behind?",
        ("judges.removal_evidence",),
        "One attack on the patched and on retrained models gives evidence, though no proof.",
    ),
    Question(
        "Is psi to be believed on this model?",
        ("judges.five_terms", "judges.linear_datamodeling"),
        "The first says why influence and retraining differ, the second how well whole sets are ranked.",
    ),
    Question(
        "Is this list worth reading?",
        ("values.random", "values.loss"),
        "It should be better than chance, and say something that the plain loss does not.",
    ),
)


def named(method: str) -> tuple[str, str] | None:
    """Group and key of ``method``, a key ("tracin") or, where two groups have it, "removes.influence".

    A bare key is looked for in the order of ``GROUPS``; None where there is no such method.
    """
    asked, _, key = method.rpartition(".")
    return next(((g, key) for g, group in GROUPS.items() if asked in ("", g) and key in group.texts), None)


def text_of(method: str) -> MethodText:
    """What ``method``, as ``named`` takes it, says of itself."""
    found = named(method)
    assert found is not None, f"no method is called {method!r}"
    group, key = found
    return GROUPS[group].texts[key]
