"""The calls between the nouns: load, value, patch, apply; forecast and compare have modules of their own."""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.curvature import CURVATURES, Curvature, Estimate, inverse_of
from puma_dash.core.curvature.damping import calibration_estimate
from puma_dash.core.curvature.influence import ask_first, influences_of, scoring_estimate
from puma_dash.core.demos import DEMOS
from puma_dash.core.engine import CancelEvent, Engine, Progress, engine_of
from puma_dash.core.loaders.project_folder import open_folder
from puma_dash.core.plan import PatchPlan
from puma_dash.core.registry import resolve
from puma_dash.core.types import (
    Patch,
    Project,
    ProjectError,
    Valuation,
)
from puma_dash.core.unlearning import resolve_unlearner
from puma_dash.core.unlearning.base import change_of, check_plan_for, relabelled
from puma_dash.core.valuation import resolve_valuation


def load(source: str | Path) -> Project:
    """The project named ``source``: a demo ("digits"), a folder with a project.toml, or "module:factory".

    Raises:
        ProjectError: no such demo, folder or module, something in the folder does not fit, or the factory did
            not return a Project.
    """
    if source in DEMOS:
        return DEMOS[str(source)]()()
    if os.path.exists(source):
        return open_folder(source)
    source = str(source)
    module_name, colon, factory_name = source.partition(":")
    if not colon:
        raise ProjectError(
            f"expected a demo ({', '.join(DEMOS)}), a project folder or module:factory, but got {source!r}; "
            "try puma.load('digits'), puma-dash init FOLDER, or a function of a module on the Python path."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = (
            "starting in the folder that holds it"
            if error.name == module_name
            else f"installing {error.name}"
        )
        raise ProjectError(
            f"expected a module named {module_name!r} on the Python path, but importing it failed ({error}); "
            f"try {where}."
        ) from error
    except Exception as error:
        raise ProjectError(
            f"expected a module named {module_name!r} that can be imported, but {_told(error)}; "
            "try importing it in Python yourself."
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise ProjectError(
            f"expected a function {factory_name!r} in module {module_name!r}, but it has none."
        )
    try:
        project = factory()
    except ProjectError:
        raise
    except (Exception, SystemExit) as error:
        raise ProjectError(
            f"expected {source} to return a puma.Project, but it raised {_told(error)}; "
            "try calling it in Python yourself."
        ) from error
    if not isinstance(project, Project):
        raise ProjectError(
            f"expected {source} to return a puma.Project, but it returned {type(project).__name__}."
        )
    return project


def _told(error: BaseException) -> str:
    """An exception of the user's code in words: type, message and the line it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def value(
    project: Project,
    method: str | Any = "psi",
    criterion: str | Criterion | None = None,
    *,
    curvature: str | Curvature = "auto",
    parameters: str = "all",
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Valuation:
    """One score per training row; lower means more suspicious.

    Args:
        project: model and data.
        method: a key of ``VALUATIONS`` or an instance; "psi" is the influence on ``criterion``.
        criterion: a key of ``CRITERIA`` or an instance; lower is better. None is "cross_entropy", and for a
            regression "squared_error".
        curvature: a key of ``CURVATURES`` or an instance, used by methods that solve.
        parameters: which take part: "all", "last" (the last layer) or a pattern of names ("blocks.3.*").
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Returns:
        Scores (n,) float64 with their provenance. psi_j / n is the change of the criterion on removing row j.
        ``diagnostics["seconds"]`` is what computing the scores took. For psi that is also so where an earlier
        call has done it, maybe for several ``criteria`` at once; what B took, once for all questions, is told
        apart as ``factor_seconds``.
    """
    engine = engine_of(project, device, progress, cancel, parameters)
    chosen, target = resolve_valuation(method), resolve_criterion(criterion or project.task.criterion)
    start = time.perf_counter()
    scores, facts = chosen(engine, target, curvature)
    return Valuation(
        scores=scores.double().numpy(force=True).copy(),  # the engine keeps its own
        method=repr(chosen),
        criterion=target.name,
        fingerprint=project.fingerprint,
        diagnostics={"seconds": time.perf_counter() - start, "device": str(engine.device), **facts},
    )


def values(
    project: Project,
    criteria: Sequence[str | Criterion],
    *,
    curvature: str | Curvature = "auto",
    parameters: str = "all",
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> dict[str, Valuation]:
    """psi of several criteria by name, for one block solve and one pass over the training rows.

    Arguments, unit and sign as in ``value``, which then finds them done; the ``seconds`` in the diagnostics
    are those of all the criteria together.
    """
    engine = engine_of(project, device, progress, cancel, parameters)
    targets = [resolve_criterion(criterion) for criterion in criteria]
    influences_of(engine, targets, inverse_of(engine, curvature))
    return {
        target.name: value(project, "psi", target, curvature=curvature, parameters=parameters, device=device)
        for target in targets
    }


def estimate(
    project: Project,
    curvature: str | Curvature = "auto",
    *,
    method: str | Any = "psi",
    device: str | None = None,
    parameters: str = "all",
) -> Estimate:
    """What ``value`` will cost in seconds and bytes, for one criterion.

    For psi that is curvature, gradient and scoring pass; methods that retrain say how often. Only one batch
    is run, to time it. The order of magnitude is right, on an idle machine.

    Args:
        project: model and data.
        curvature: a key of ``CURVATURES`` or an instance.
        method: a key of ``VALUATIONS`` or an instance.
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.
        parameters: which take part: "all", "last" (the last layer) or a pattern of names.

    Raises:
        ProjectError: curvature or method cannot be used on this project, or nobody can tell how long its
            trainer takes.
    """
    engine = engine_of(project, device, parameters=parameters)
    valuation = resolve_valuation(method)
    if hasattr(valuation, "estimate"):
        return valuation.estimate(engine)
    chosen = resolve(CURVATURES, curvature, "curvature")
    settling = calibration_estimate(engine, chosen.damping)
    own = chosen.estimate(engine) + scoring_estimate(engine)
    return own if settling is None else own + settling


def patch(
    project: Project,
    plan: PatchPlan,
    *,
    curvature: str | Curvature = "auto",
    parameters: str = "all",
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Patch:
    """A new model according to ``plan``, with what was predicted and what was measured.

    Raises:
        ProjectError: the plan does not fit the project, or its method cannot run.
        Cancelled: ``cancel`` was set.
    """
    check_plan_for(project, plan)
    engine = engine_of(project, device, progress, cancel, parameters)
    criteria = [resolve_criterion(hold) for hold in plan.hold]
    start = time.perf_counter()
    method = resolve_unlearner(plan.method)
    if "curvature" in method.needs:
        ask_first(engine, criteria, curvature)
    update = method(engine, plan, curvature, seed)
    patched = Engine(project.with_model(update.model), device=engine.device)
    before, after = {}, {}
    for criterion in criteria:
        data = criterion.evaluation(engine)  # the same rows for both, also where they depend on the model
        before[criterion.name] = engine.criterion(criterion, data=data)
        after[criterion.name] = patched.criterion(criterion, data=data)
    return Patch(
        model=update.model,
        plan=plan,
        delta=change_of(engine, update.model).cpu(),
        weights=update.weights,
        predicted=update.predicted,
        measured={name: after[name] - before[name] for name in before},
        strength=update.strength,
        seconds=time.perf_counter() - start - update.diagnostics.get("ahead_seconds", 0.0),
        fingerprint=project.fingerprint,
        diagnostics={
            **update.diagnostics,
            "method": repr(method),
            "device": str(engine.device),
            "criteria_before": before,
            "criteria_after": after,
        },
    )


def apply(project: Project, patch: Patch) -> Project:
    """The project as it stands after ``patch``: its model, labels and training weights, without records."""
    if patch.plan.relabel and patch.strength != 1:
        raise ProjectError(
            f"expected a patch at strength 1 to go on from, but it relabels at strength {patch.strength:g}, "
            "which leaves rows between two labels; try a larger tolerance, or fewer relabels."
        )
    full = torch.as_tensor(patch.weights)
    own = torch.ones_like(full) if project.train.weights is None else project.train.weights.to(full)
    weights = (own + patch.strength * (full - own)).clamp_min(0)
    targets = relabelled(project.train.targets, patch.plan.relabel)
    train = dataclasses.replace(project.train, targets=targets, weights=weights)
    return dataclasses.replace(project, model=patch.model, train=train, records=None)
