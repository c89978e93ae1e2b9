"""What the worker does for the pages: prepare a project, value, embed, forecast, patch, accept.

Each task takes JSON parameters and returns JSON; everything large goes through the cache, under keys that a
page can read without importing torch. This module is imported by the worker only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.datasets
import sklearn.decomposition
import sklearn.metrics  # noqa: F401
import torch
import torch._dynamo
import torchmetrics.functional.classification  # noqa: F401

from puma_dash.core import api, comparison, forecasting
from puma_dash.core.criteria import Adversarial, resolve_criterion
from puma_dash.core.curvature.base import describe_device
from puma_dash.core.demos import DEMOS
from puma_dash.core.embedding import Columns, Pca, resolve_embedding
from puma_dash.core.engine import CancelEvent, Engine, Progress, choose_device, engine_of, within
from puma_dash.core.evaluation.health import health
from puma_dash.core.evaluation.membership import evidence_estimate, removal_evidence
from puma_dash.core.evaluation.regions import decision_regions, is_flat
from puma_dash.core.records import criterion_of, criterion_record, plain, plan_of
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import Patch, Project, ProjectError
from puma_dash.core.unlearning.base import change_of
from puma_dash.core.unlearning.estimate import patch_estimate
from puma_dash.workspace import judging, weights
from puma_dash.workspace.evidence import REFERENCES, evidence_key
from puma_dash.workspace.index import LAYOUT, Index
from puma_dash.workspace.judging import valued
from puma_dash.workspace.opening import describe, unpack
from puma_dash.workspace.overview import annotations_digest, overview_of, rows_of_split
from puma_dash.workspace.projects import CODE, close, keeper, ledger, open_project, opened, store, with_state
from puma_dash.workspace.provenance import patch_anew, provenance, state
from puma_dash.workspace.records import (
    comparison_arrays,
    comparison_record,
    evidence_record,
    patch_record,
    table,
)
from puma_dash.workspace.store import home, key
from puma_dash.workspace.story import story_of


def prepare(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Opens a project and computes what its pages show first: predictions, psi and a map."""
    source, version = params["source"], params["version"]
    progress(0, 1, "Training the demo's model" if source in DEMOS else "Loading the project")
    close()  # a factory is called anew, so that its changes are seen
    project = open_project(source, version)
    engine = engine_of(project).listen(within(progress, 0.4, 0.5), cancel)
    progress(0.4, 1, "Predictions")
    overview = key(
        "overview",
        project.fingerprint,
        source,
        project.name,
        project.class_names,
        annotations_digest(project),
        project.notes,
        LAYOUT,
        CODE,
    )
    store().fetch(overview, lambda: overview_of(project, engine, source))
    index = Index.of(home(), source, version).with_overview(project.fingerprint, overview)
    valued(
        project, index, "psi", resolve_criterion(project.task.criterion), within(progress, 0.5, 0.8), cancel
    )
    flat = project.train.inputs.ndim == 2 and project.train.inputs.shape[1] == 2
    _embed(project, index, Columns() if flat else Pca(), within(progress, 0.8, 1), cancel)
    return {"fingerprint": project.fingerprint}


def value(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Scores every training row by one method for one criterion: a registry key, or a record with a label."""
    project, index = opened(params, progress)
    criterion = resolve_criterion(criterion_of(params["criterion"]))
    valued(project, index, params["method"], criterion, within(progress, 0.2, 1), cancel)
    if isinstance(params["criterion"], dict):
        facts = {"label": params["label"], "unit": criterion.unit, "record": criterion_record(criterion)}
        index.with_criterion(criterion.name, facts)
    return {"criterion": criterion.name}


def embed(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Computes one map of the training rows."""
    project, index = opened(params, progress)
    chosen = resolve_embedding(params["embedding"])
    if "space" in params:
        chosen = type(chosen)(space=params["space"])
    _embed(project, index, chosen, within(progress, 0.2, 1), cancel)
    return {}


def forecast(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Predicts what a plan does to the validation split, before anything is changed."""
    project, _ = opened(params, progress)
    found = forecasting.forecast(
        project,
        plan_of(read_plan(params["plan"])),
        [criterion_of(record) for record in params.get("criteria", ())],
        progress=within(progress, 0.2, 1),
        cancel=cancel,
    )
    return {
        "criteria": found.criteria,
        "refined": found.refined,
        "strengths": table(found.strengths),
        "metrics": table(found.metrics),
        "flips": len(found.flips),
        "diagnostics": plain(found.diagnostics),
    }


def story(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """What is known of one training row: whom it hurts, what is like it, what it is suspected of."""
    project, _ = opened(params, progress)
    row = int(params["row"])
    name = key("story", project.fingerprint, project.class_names, row, CODE)
    store().fetch(name, lambda: story_of(project, row, within(progress, 0.2, 1), cancel))
    return {"story": name, "row": row}


def patch(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Computes a patch and compares before and after on validation; nothing becomes current yet."""
    project, _ = opened(params, progress)
    plan = read_plan(params["plan"])
    name = key("patch", project.fingerprint, plan, str(choose_device(params["device"])), params["seed"], CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        made = patch_anew(
            project,
            plan_of(plan),
            device=params["device"],
            seed=params["seed"],
            keep=keeper(project),
            progress=within(progress, 0.2, 0.8),
            cancel=cancel,
        )
        progress(0.8, 1, "Comparing before and after on validation")
        compared = comparison.compare(project, made, "validation", device=params["device"])
        info = {**patch_record(made, compared), **provenance(project, made, seed=params["seed"])}
        arrays = {f"state.{name}": array for name, array in state(made.model).items()}
        arrays |= {"weights": made.weights, **comparison_arrays(compared)}
        if is_flat(project.train) and project.task is CLASSIFICATION:
            engine = engine_of(project, params["device"])
            after = Engine(project.with_model(made.model), device=engine.device)
            found = decision_regions([engine, after], project.train)
            arrays |= {f"regions.{name}": array for name, array in found.items()}
        return arrays, info

    store().fetch(name, compute)
    return {"patch": name}


def estimate(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """What a patch will cost on a device, and where the criteria that it holds stand now.

    The page asks once for all plans of one shape; what it shows is read from the cache under ``name``.
    """
    project, _ = opened(params, progress)
    plan = plan_of(read_plan(params["plan"]))

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        engine = engine_of(project, params["device"], within(progress, 0.2, 1), cancel)
        held = [resolve_criterion(hold) for hold in plan.hold]
        info: dict[str, Any] = {"now": {criterion.name: engine.criterion(criterion) for criterion in held}}
        try:
            found = patch_estimate(project, plan, device=params["device"])
            comparing = comparison.comparison_seconds(len(project.validation), len(held))
            info |= {"seconds": found.seconds + comparing, "bytes": found.bytes}
        except ProjectError as unknown:
            info["refused"] = str(unknown)
        return {}, {**info, "device": describe_device(engine.device)}

    store().fetch(params["name"], compute)
    return {}


def evidence(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Removal evidence on patches; those that carry out the same plan share the models it takes."""
    project, _ = opened(params, progress)
    parts = [(0.05, 0.9), *[(0.9, 0.95)] * len(params["patches"])]  # the first one trains
    for name, (start, end) in zip(params["patches"], parts, strict=False):
        made, told = load_patch(project, name), within(progress, start, end)
        settings: dict[str, Any] = {"device": params["device"], "progress": told, "cancel": cancel}
        if store().load(evidence_key(name)) is None:
            found = removal_evidence(project, made, REFERENCES, **settings)
            store().save(evidence_key(name), {}, evidence_record(found))
    return {}


def evidence_estimated(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """What removal evidence will cost on a device; the page reads it from the cache under ``name``."""
    project, _ = opened(params, progress)
    device = choose_device(params["device"])
    facts = {"device": describe_device(device)}

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        try:
            found = evidence_estimate(project, REFERENCES, device=params["device"])
        except ProjectError as unknown:
            return {}, {**facts, "refused": str(unknown)}
        return {}, {**facts, "seconds": found.seconds, "bytes": found.bytes}

    store().fetch(params["name"], compute)
    return {}


def accept(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Makes a patch the current version, after one look at the test split, which the ledger counts."""
    project, _ = opened(params, progress)
    book = ledger()
    earlier = book.decision(params["patch"])
    if earlier is not None and earlier.kind == "accepted":
        return {"version": earlier.id}
    made = load_patch(project, params["patch"])
    if made.strength == 0:
        raise ProjectError(
            "expected a patch that changes the model, but its guard rails left strength 0; try adjusting."
        )
    after = api.apply(project, made)  # a version that could not be opened is not accepted
    weights.keep(home(), state(project.model))  # a replay starts from it, whatever the source gives then
    details: dict[str, Any] = {
        **store().load(params["patch"]).info,  # type: ignore[union-attr]
        "after": after.fingerprint,
        "kept": {
            "model": weights.keep(home(), state(after.model)),
            "rows": weights.keep(home(), _rows_of(after)),
        },
    }
    known = store().load(evidence_key(params["patch"]))
    if known is not None:
        details["evidence"] = known.info
    common = {"source": params["source"], "parent": params["version"], "patch": params["patch"]}
    common["who"] = params.get("who", "")
    if project.test is not None:
        progress(0.4, 1, "Opening the test split")
        compared = comparison.compare(project, made, "test")
        rows = key("test rows", params["patch"])

        def shown() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            arrays, columns, _ = rows_of_split(engine_of(project), "test")
            return {**arrays, **comparison_arrays(compared)}, {"columns": columns}

        store().fetch(rows, shown)  # in the cache: the ledger holds no copies of rows
        details["test"] = {**comparison_record(compared), "rows": rows}
        book.append("test opened", why="accepting a patch", **common)
    version = book.append("accepted", why=params.get("why", ""), details=details, **common).id
    return {"version": version}


def checks(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Finds out how far to believe the project's numbers: one finding per check, in words."""
    project, index = opened(params, progress)
    name = key("checks", project.fingerprint, project.class_names, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found = health(project, progress=within(progress, 0.2, 1), cancel=cancel)
        return {}, plain({"findings": [vars(finding) for finding in found]})

    store().fetch(name, compute)
    index.with_finding("checks", name)
    return {}


def robustness(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Finds which validation rows stay right when moved by up to epsilon to where the model errs."""
    project, index = opened(params, progress)
    attack = Adversarial(epsilon=params["epsilon"])
    name = key("robustness", project.fingerprint, attack, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        engine = engine_of(project).listen(within(progress, 0.2, 1), cancel)
        moved = attack.evaluation(engine)
        predicted = engine.probabilities(engine.outputs(moved)).argmax(1)
        return {"right": predicted == moved.targets.numpy(force=True)}, vars(attack)

    store().fetch(name, compute)
    index.with_finding("robustness", name)
    return {}


def devices(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Lists the CUDA devices of this machine by name, with their free memory in bytes."""
    found = [
        {
            "id": f"cuda:{i}",
            "name": torch.cuda.get_device_name(i),
            "free": torch.cuda.mem_get_info(i)[0],
        }
        for i in range(torch.cuda.device_count())
    ]
    return {"devices": found}


TASKS: dict[str, Callable[[dict[str, Any], Progress, CancelEvent], dict[str, Any]]] = {
    "unpack": unpack,
    "describe": describe,
    "prepare": prepare,
    "value": value,
    "embed": embed,
    "forecast": forecast,
    "story": story,
    "estimate": estimate,
    "patch": patch,
    "evidence": evidence,
    "evidence_estimate": evidence_estimated,
    "accept": accept,
    "checks": checks,
    "robustness": robustness,
    "costs": judging.costs,
    "score": judging.score,
    "flips": judging.flips,
    "datamodeling": judging.datamodeling,
    "trust": judging.trust,
    "experiment": judging.experiment,
    "devices": devices,
}


# --- what the tasks are made of -------------------------------------------------------


def read_plan(name: str) -> dict[str, Any]:
    """The plan that a page put into the cache under that key."""
    entry = store().load(name)
    if entry is None:
        raise ProjectError(
            "expected a plan in the cache, but it is not there any more; try marking the rows again."
        )
    return entry.info


def load_patch(project: Project, name: str) -> Patch:
    """The patch kept under that key.

    Raises:
        ProjectError: it is not there, or it belongs to another project.
    """
    entry = store().load(name)
    if entry is None:
        raise ProjectError(
            "expected a patch that was computed here, but it is not in the cache; try patching again."
        )
    info = entry.info
    if info["fingerprint"] != project.fingerprint:
        raise ProjectError(
            "expected a patch of this project, but its model or data have changed since; try patching again."
        )
    arrays = {k.removeprefix("state."): v for k, v in entry.arrays.items() if k.startswith("state.")}
    model = with_state(project, arrays)
    engine = engine_of(project)
    return Patch(
        model=model,
        plan=plan_of(info["plan"]),
        delta=change_of(engine, model).cpu(),
        weights=entry.arrays["weights"],
        predicted=info["predicted"],
        measured=info["measured"],
        strength=info["strength"],
        seconds=info["seconds"],
        fingerprint=info["fingerprint"],
        diagnostics=info["diagnostics"],
    )


def _rows_of(project: Project) -> dict[str, np.ndarray]:
    """What patches change of the training rows: labels and weights."""
    found = {"targets": project.train.targets, "weights": project.train.weights}
    return {name: value.numpy(force=True) for name, value in found.items() if value is not None}


def _embed(project: Project, index: Index, embedding: Any, progress: Progress, cancel: CancelEvent) -> None:
    name = key("embedding", project.fingerprint, embedding, CODE)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found = embedding(engine_of(project).listen(progress, cancel))
        return {"xy": found.xy}, {"axes": list(found.axes)}

    store().fetch(name, compute)
    space = getattr(embedding, "space", None)
    index.with_embedding(embedding.label if space is None else f"{embedding.label} of {space}", name)
