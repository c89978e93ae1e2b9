"""Plans and criteria as JSON: what files, the cache and the pages hold of them."""

from __future__ import annotations

import json
from typing import Any

from puma_dash.core.criteria import CRITERIA, Criterion, resolve_criterion
from puma_dash.core.plan import PatchPlan
from puma_dash.core.types import ProjectError
from puma_dash.core.unlearning import UNLEARNERS


def plan_record(plan: PatchPlan) -> dict[str, Any]:
    """A plan; criteria as :func:`criterion_record` has them, the method by registry key with its options."""
    fields = vars(plan).copy()
    method = fields.pop("method")
    if isinstance(method, str):
        name, options = method, {}
    else:
        name = next(key for key, kind in UNLEARNERS.items() if kind is type(method))
        options = vars(method)
    hold = [criterion_record(criterion) for criterion in plan.hold]
    return plain({**fields, "hold": hold, "method": name, "options": options})


def plan_of(record: dict[str, Any]) -> PatchPlan:
    """The plan in ``record``, which a page may have written."""
    fields = dict(record)
    name, options = fields.pop("method"), fields.pop("options", {})
    if name not in UNLEARNERS:
        raise ProjectError(f"expected one of the methods {', '.join(UNLEARNERS)}, but got {name!r}.")
    fields["hold"] = [criterion_of(held) for held in fields.get("hold", ())]
    for mapping in ("upweight", "relabel"):
        fields[mapping] = {int(row): value for row, value in fields.get(mapping, {}).items()}
    return PatchPlan(**fields, method=UNLEARNERS[name](**options))


def criterion_record(criterion: str | Criterion) -> str | dict[str, Any]:
    """A criterion: its registry key, or where it is not the default, the key with its settings and rows."""
    made = resolve_criterion(criterion)
    if made == type(made)():
        return made.key
    return plain({"criterion": made.key, **vars(made)})


def criterion_of(record: str | dict[str, Any]) -> str | Criterion:
    """The criterion in ``record``, which a page may have written; a registry key stays one.

    Raises:
        ProjectError: there is no such criterion, or it has no such settings.
    """
    if isinstance(record, str):
        return record
    fields = dict(record)
    name = fields.pop("criterion", None)
    if name not in CRITERIA:
        raise ProjectError(f"expected one of the criteria {', '.join(CRITERIA)}, but got {name!r}.")
    settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    try:
        return CRITERIA[name](**settings)
    except TypeError as unknown:
        raise ProjectError(f"expected settings of {name}, but got {', '.join(settings)}.") from unknown


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` with only what JSON carries."""
    return json.loads(json.dumps(facts, default=float))
