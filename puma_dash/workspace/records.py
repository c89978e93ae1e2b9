"""Patches and comparisons as JSON: what the cache, the pages and the report read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from puma_dash.core.plan import PatchPlan
from puma_dash.core.types import Comparison, Patch, ProjectError
from puma_dash.core.unlearning import UNLEARNERS

if TYPE_CHECKING:
    import pandas as pd

FLIPS = ("fixed", "broken", "kept right", "kept wrong")


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
    """A comparison: its tables, and of the flips only the rows that changed sides."""
    kinds = compared.flips["kind"]
    return {
        "split": compared.split,
        "n": compared.n,
        "metrics": table(compared.metrics),
        "reliability": table(compared.reliability),
        "flips": {kind: int((kinds == kind).sum()) for kind in FLIPS},
        "changed": table(compared.flips[kinds.isin(["fixed", "broken"])]),
        "verdicts": table(compared.verdicts),
        "per_class": table(compared.per_class),
        "marked": table(compared.marked),
        "diagnostics": plain(compared.diagnostics),
    }


def plan_record(plan: PatchPlan) -> dict[str, Any]:
    """A plan; criteria by name, the method by registry key with its options."""
    fields = vars(plan).copy()
    method = fields.pop("method")
    if isinstance(method, str):
        name, options = method, {}
    else:
        name = next(key for key, kind in UNLEARNERS.items() if kind is type(method))
        options = vars(method)
    hold = [criterion if isinstance(criterion, str) else criterion.name for criterion in plan.hold]
    return plain({**fields, "hold": hold, "method": name, "options": options})


def plan_of(record: dict[str, Any]) -> PatchPlan:
    """The plan in ``record``, which a page may have written; its criteria are registry keys."""
    fields = dict(record)
    name, options = fields.pop("method"), fields.pop("options", {})
    if name not in UNLEARNERS:
        raise ProjectError(f"expected one of the methods {', '.join(UNLEARNERS)}, but got {name!r}.")
    for mapping in ("upweight", "relabel"):
        fields[mapping] = {int(row): value for row, value in fields.get(mapping, {}).items()}
    return PatchPlan(**fields, method=UNLEARNERS[name](**options))


def table(frame: pd.DataFrame) -> dict[str, Any]:
    """A table; ``pd.DataFrame(**table)`` gives it back."""
    return json.loads(frame.to_json(orient="split", double_precision=15))


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` with only what JSON carries."""
    return json.loads(json.dumps(facts, default=float))
