"""What became of every row of a split: which classes flipped, how far values moved; and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from puma_dash.core.evaluation.metrics import per_class
from puma_dash.core.evaluation.reliability import reliability
from puma_dash.core.evaluation.residuals import residual_edges
from puma_dash.core.evaluation.statistics import mcnemar_p, row_draws
from puma_dash.core.evaluation.verdicts import RESAMPLES, evidence

if TYPE_CHECKING:
    import pandas as pd


class Answers(NamedTuple):
    """What both models answer on the same rows, and the truth."""

    before: np.ndarray
    """probabilities (n, c) or values (n, k)"""
    after: np.ndarray
    """the same"""
    targets: np.ndarray
    """class numbers (n,) or values (n, k)"""


class Outcome(NamedTuple):
    """What of a comparison depends on whether answers are classes or values."""

    tables: dict[str, pd.DataFrame]
    """Fields of ``Comparison``."""
    verdict: dict[str, Any]
    """What is known of the model's own quality, which nobody held."""
    facts: dict[str, Any]


def of_classes(answers: Answers, names: Sequence[str], accuracy: tuple[float, float]) -> Outcome:
    """The outcome of a classifier with the classes ``names``; ``accuracy`` is the interval of its change."""
    import pandas as pd

    before, after, targets = answers
    flips = _flips(answers)
    counts = flips["kind"].value_counts()
    fixed, broken = int(counts.get("fixed", 0)), int(counts.get("broken", 0))
    curves = [
        reliability(probabilities, targets).assign(model=label)
        for label, probabilities in (("before", before), ("after", after))
    ]
    classes = per_class(before, targets, tuple(names)).rename(columns={"accuracy": "before"})
    classes["after"] = per_class(after, targets, tuple(names))["accuracy"]
    verdict = {
        "criterion": "error_rate",
        "label": "error rate",
        "unit": "fraction of rows",
        "test": "exact McNemar",
        "measured": (broken - fixed) / len(targets),
        "low": -accuracy[1],
        "high": -accuracy[0],
        "p": mcnemar_p(fixed, broken),
        "within": fixed >= broken,
    }
    tables = {
        "reliability": pd.concat(curves, ignore_index=True),
        "flips": flips,
        "confusion": _confusion(flips),
        "per_class": classes,
    }
    return Outcome(tables, verdict, {"fixed": fixed, "broken": broken, "mcnemar_p": verdict["p"]})


def of_values(answers: Answers, names: Sequence[str], seed: int) -> Outcome:
    """The outcome of a regression with the outputs ``names``; ``seed`` is that of the resampling."""
    import pandas as pd

    before, after, targets = answers
    n, k = targets.shape
    was, now = (np.abs(values - targets).mean(1, dtype=np.float64) for values in (before, after))
    change = now - was
    drawn = row_draws(lambda rows: change[rows].mean(), np.zeros(n), seed=seed, resamples=RESAMPLES)
    verdict = {
        "criterion": "absolute_error",
        "label": "mean absolute error",
        "unit": "target units",
        "test": "paired bootstrap",
        "measured": float(change.mean()),
        **evidence(drawn, 0.0, n)._asdict(),
    }
    each = {
        "row": np.repeat(np.arange(n), k),
        "output": np.tile(np.array(names, dtype=object), n),
        "target": targets.ravel(),
        "before": before.ravel(),
        "after": after.ravel(),
    }
    facts = {"closer": int((change < 0).sum()), "further": int((change > 0).sum())}
    tables = {"residuals": _residuals(answers, names), "answers": pd.DataFrame(each)}
    return Outcome(tables, verdict, facts)


def _residuals(answers: Answers, names: Sequence[str]) -> pd.DataFrame:
    """Rows by residual before and after, of each output: equal bins about 0, the outermost hold the rest."""
    import pandas as pd

    tables = []
    for k, name in enumerate(names):
        before, after = (values[:, k] - answers.targets[:, k] for values in answers[:2])
        edges = residual_edges(np.concatenate([before, after]))
        counts = [np.histogram(np.clip(part, *edges[[0, -1]]), edges)[0] for part in (before, after)]
        ends = {"low": edges[:-1], "high": edges[1:]}
        tables.append(pd.DataFrame({"output": name, **ends, "before": counts[0], "after": counts[1]}))
    return pd.concat(tables, ignore_index=True)


def _flips(answers: Answers) -> pd.DataFrame:
    """Row, target, classes and confidences before and after of every row, and its kind.

    Kinds are fixed, broken, kept right and kept wrong.
    """
    import pandas as pd

    before, after, targets = answers
    old, new = before.argmax(1), after.argmax(1)
    was, now = old == targets, new == targets
    kind = np.select([~was & now, was & ~now, was & now], ["fixed", "broken", "kept right"], "kept wrong")
    return pd.DataFrame(
        {
            "row": np.arange(len(targets)),
            "target": targets,
            "before": old,
            "after": new,
            "kind": kind,
            "confidence before": before.max(1),
            "confidence after": after.max(1),
        }
    )


def _confusion(flips: pd.DataFrame) -> pd.DataFrame:
    """Rows of each target and predicted class, before and after; cells that are empty in both are out."""
    import pandas as pd

    cells = {
        model: flips.groupby(["target", model]).size().rename_axis(["target", "predicted"])
        for model in ("before", "after")
    }
    return pd.DataFrame(cells).fillna(0).astype(int).reset_index()
