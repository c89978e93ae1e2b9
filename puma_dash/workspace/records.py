"""Patches and comparisons as JSON: what the cache, the pages and the report read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.records import plain, plan_record
from puma_dash.core.task import CLASSIFICATION, REGRESSION
from puma_dash.core.types import Comparison, Patch

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.evaluation.membership import RemovalEvidence

FLIPS = ("fixed", "broken", "kept right", "kept wrong")
MOST_CELLS = 900
"""Of the confusion matrix, those that changed most."""
MOST_ANSWERS = 400
"""Rows of a regression, evenly spread, whose values are kept."""


def patch_record(patch: Patch, validation: Comparison) -> dict[str, Any]:
    """Everything of a patch but its weights, with its comparison on validation."""
    return {
        "fingerprint": patch.fingerprint,
        "plan": plan_record(patch.plan),
        "strength": patch.strength,
        "seconds": patch.seconds,
        "predicted": patch.predicted,
        "measured": patch.measured,
        "diagnostics": plain(patch.diagnostics),
        "comparison": comparison_record(validation),
    }


def comparison_record(compared: Comparison) -> dict[str, Any]:
    """A comparison: its tables, of the flips only the rows that changed sides, of values only some."""
    return {
        "split": compared.split,
        "n": compared.n,
        "metrics": table(compared.metrics),
        "verdicts": table(compared.verdicts),
        "per_group": table(compared.per_group),
        "marked": table(compared.marked),
        "diagnostics": plain(compared.diagnostics),
        **(_of_classes(compared) if compared.answers.empty else _of_values(compared)),
    }


def _of_classes(compared: Comparison) -> dict[str, Any]:
    kinds, cells = compared.flips["kind"], compared.confusion
    most = (cells["after"] - cells["before"]).abs().nlargest(MOST_CELLS).index
    return {
        "task": CLASSIFICATION.name,
        "reliability": table(compared.reliability),
        "flips": {kind: int((kinds == kind).sum()) for kind in FLIPS},
        "changed": table(compared.flips[kinds.isin(["fixed", "broken"])]),
        "confusion": table(cells.loc[most]),
        "per_class": table(compared.per_class),
    }


def _of_values(compared: Comparison) -> dict[str, Any]:
    some = np.unique(np.linspace(0, compared.n - 1, MOST_ANSWERS).round().astype(int))
    return {
        "task": REGRESSION.name,
        "residuals": table(compared.residuals),
        "answers": table(compared.answers[compared.answers["row"].isin(some)]),
    }


def evidence_record(found: RemovalEvidence) -> dict[str, Any]:
    """Removal evidence: its sentence and tables."""
    return {
        "sentence": found.sentence,
        "rows": len(found.rows),
        "references": found.references,
        "membership": table(found.membership),
        "distances": table(found.distances),
        "diagnostics": plain(found.diagnostics),
    }


def comparison_arrays(compared: Comparison) -> dict[str, np.ndarray]:
    """Of every row of the split how it flipped and what it is taken for; of every marked row what is known.

    Kinds of flips are numbered as in the record's ``flips``, what was done as in its ``marked``. Of values it
    is those of the new model (n, k), and of marked rows, too, all are (m, k).
    """
    flips, marked = compared.flips, compared.marked_rows
    done = compared.marked["rows"].tolist()
    values = not compared.answers.empty
    k = len(compared.answers) // compared.n if values else 1
    arrays: dict[str, np.ndarray] = {
        "marked.done": np.array([done.index(name) for name in marked["done"][::k]], np.uint8),
        "marked.row": marked["row"][::k].to_numpy(np.int32),
        **{
            f"marked.{name}": marked[name][::k].to_numpy(np.float32) for name in ("loss before", "loss after")
        },
    }
    for name in ("label", "before", "after"):
        found = marked[name].to_numpy(np.float32 if values else np.int32)
        arrays[f"marked.{name}"] = found.reshape(-1, k) if values else found
    if values:
        after = compared.answers["after"].to_numpy(np.float32).reshape(-1, k)
        return {**arrays, "answers.after": after}
    return {
        **arrays,
        "flips.kind": np.array([FLIPS.index(kind) for kind in flips["kind"]], np.uint8),
        "flips.after": flips["after"].to_numpy(np.int32),
        "flips.confidence": flips["confidence after"].to_numpy(np.float32),
    }


def table(frame: pd.DataFrame) -> dict[str, Any]:
    """A table; ``pd.DataFrame(**table)`` gives it back."""
    return json.loads(frame.to_json(orient="split", double_precision=15))
