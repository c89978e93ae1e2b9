"""What the worker does for the Methods page: score rows by any method, and find out which to believe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from puma_dash.core import api
from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.engine import CancelEvent, Progress, engine_of, within
from puma_dash.core.evaluation.datamodeling import datamodeling_score
from puma_dash.core.evaluation.flips import find_flips
from puma_dash.core.evaluation.trust import decompose
from puma_dash.core.experiments import EXPERIMENTS
from puma_dash.core.records import criterion_of, plain
from puma_dash.core.retraining import retraining_estimate
from puma_dash.core.types import ProjectError
from puma_dash.core.valuation import VALUATIONS
from puma_dash.workspace.projects import CODE, opened, store
from puma_dash.workspace.records import table
from puma_dash.workspace.store import key

if TYPE_CHECKING:
    from puma_dash.core.types import Project
    from puma_dash.workspace.index import Index

TOLD = 5
"""From so many seconds on it is said beforehand how long psi takes."""


def costs(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """What each method will cost here, and one training, in seconds."""
    project, index = opened(params, progress)
    name = key("costs", project.fingerprint, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found: dict[str, float | None] = {}
        for done, method in enumerate(VALUATIONS):
            progress(0.2 + 0.8 * done / len(VALUATIONS), 1, "Estimating what each method costs")
            found[method] = _cost(project, method)
        try:
            training = retraining_estimate(engine_of(project), 1, len(project.train)).seconds
        except ProjectError:  # a trainer of the user's own: only a run can tell
            training = None
        return {}, {"seconds": found, "training": training}

    store().fetch(name, compute)
    index.with_finding("costs", name)
    return {}


def _cost(project: Project, method: str) -> float | None:
    """Seconds; None where only a run can tell, or where it cannot be asked."""
    try:
        return api.estimate(project, method=method).seconds
    except ProjectError:
        return None


def score(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Scores every training row by some methods; what is finished stays when the rest is cancelled."""
    project, index = opened(params, progress)
    criterion = resolve_criterion(criterion_of(params["criterion"]))
    methods, refused = params["methods"], {}
    for k, method in enumerate(methods):
        part = within(within(progress, 0.2, 1), k / len(methods), (k + 1) / len(methods))
        try:
            valued(project, index, method, criterion, part, cancel)
        except ProjectError as reason:
            refused[method] = str(reason)
    if len(refused) == len(methods):
        raise ProjectError("\n\n".join(refused.values()))
    return {"refused": refused}


def valued(
    project: Project, index: Index, method: str, criterion: Criterion, progress: Progress, cancel: CancelEvent
) -> None:
    """Scores every training row by one method and notes it in the index; others than psi by their label."""
    name = key("value", project.fingerprint, method, criterion, CODE)
    label = VALUATIONS[method].label

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        seconds = api.estimate(project).seconds if method == "psi" else 0.0

        def told(done: float, total: float, message: str) -> None:
            cost = "" if seconds < TOLD else f"; psi takes about {seconds:.0f} s"
            progress(done, total, f"{message}{cost}" if method == "psi" else f"{label}: {message}")

        found = api.value(project, method, criterion, progress=told, cancel=cancel)
        facts = {**found.diagnostics, "method": found.method, "criterion": found.criterion}
        return {"scores": found.scores}, plain(facts)

    store().fetch(name, compute)
    index.with_values(method, criterion.name, name)
    if method != "psi":
        told = index.criteria.get(criterion.name, {}).get("label", criterion.label)
        asked = f" of {told}" if "criterion" in VALUATIONS[method].needs else ""
        index.with_scores(f"{label}{asked}", name)


def flips(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """How soon each method comes upon wrong labels: known ones, or ones flipped in copies."""
    project, index = opened(params, progress)
    settings = {name: params[name] for name in ("known", "share", "repeats")}
    names = {
        method: key("flips", project.fingerprint, method, settings, CODE) for method in params["methods"]
    }
    missing = [method for method, name in names.items() if store().load(name) is None]
    if missing:
        found = find_flips(project, missing, **settings, progress=within(progress, 0.1, 1), cancel=cancel)
        lines = found.table.set_index("method")
        facts = {"flips": found.flips, "rows": found.rows, "repeats": found.repeats, **found.diagnostics}
        for method, curve in found.curves.items():
            line = {
                name: None if np.isnan(value) else float(value) for name, value in lines.loc[method].items()
            }
            store().save(names[method], {"curve": curve}, {"line": line, **facts})
        for method, reason in found.refused.items():
            store().save(names[method], {}, {"refused": reason, **facts})
    for method, name in names.items():
        index.with_finding(f"flips {params['settings']}/{method}", name)
    return {}


def datamodeling(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """How well each method foresees what retraining on part of the rows does to a criterion."""
    project, index = opened(params, progress)
    criterion = resolve_criterion(criterion_of(params["criterion"]))
    times = {name: params[name] for name in ("subsets", "trainings")}
    name = key("datamodeling", project.fingerprint, params["methods"], criterion, times, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found = datamodeling_score(
            project,
            params["methods"],
            criterion=criterion,
            **times,
            progress=within(progress, 0.1, 1),
            cancel=cancel,
        )
        info = {
            "criterion": found.criterion,
            "table": table(found.table),
            "ceiling": None if np.isnan(found.ceiling) else found.ceiling,
            "subsets": list(found.values.shape),
            "refused": found.refused,
            **found.diagnostics,
        }
        return {"values": found.values}, plain(info)

    store().fetch(name, compute)
    index.with_finding(f"datamodeling {criterion.name}", name)
    return {}


def trust(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Where the answers of influence and of retraining part, when some rows are removed."""
    project, index = opened(params, progress)
    criterion = resolve_criterion(criterion_of(params["criterion"]))
    rows = np.array(params["rows"], dtype=np.int64)
    name = key("trust", project.fingerprint, rows, criterion, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found = decompose(
            project, rows, criterion=criterion, progress=within(progress, 0.1, 1), cancel=cancel
        )
        info = {
            "criterion": found.criterion,
            "retrained": found.retrained,
            "influence": found.influence,
            "predicted": found.predicted,
            "terms": table(found.terms),
            "stages": table(found.stages),
            "unfinished": found.diagnostics["unfinished"],
            "seconds": found.diagnostics["seconds"],
            "damping": found.diagnostics["damping"],
        }
        return {"rows": rows}, plain(info)

    store().fetch(name, compute)
    index.with_finding("trust", name)
    return {}


def experiment(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Runs one of the source's experiments, which know nothing of the project that is open."""
    _, index = opened(params, progress)
    chosen = EXPERIMENTS[params["experiment"]](seeds=params["seeds"])
    name = key("experiment", chosen, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        start = time.perf_counter()
        found = chosen(within(progress, 0.1, 1), cancel)
        tables = {title: table(pd.DataFrame(frame)) for title, frame in found.tables.items()}
        seconds = time.perf_counter() - start
        return found.arrays, {"tables": tables, "told": found.told, "seeds": chosen.seeds, "seconds": seconds}

    store().fetch(name, compute)
    index.with_finding(f"experiment {params['experiment']}", name)
    return {}
