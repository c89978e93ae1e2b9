"""The calls between the nouns: load, value, forecast, patch, compare."""

from __future__ import annotations

import dataclasses
import importlib
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.curvature import Curvature, inverse_of
from puma_dash.core.demos import DEMOS
from puma_dash.core.engine import CancelEvent, Engine, Progress, choose_device
from puma_dash.core.evaluation.metrics import METRICS, metrics, per_class, per_row
from puma_dash.core.evaluation.reliability import reliability
from puma_dash.core.evaluation.statistics import mcnemar_p, paired_intervals, row_interval
from puma_dash.core.objective import SquaredError
from puma_dash.core.types import (
    Comparison,
    Forecast,
    Patch,
    PatchPlan,
    Project,
    ProjectError,
    Split,
    Valuation,
)
from puma_dash.core.unlearning import InfluenceRemoval, resolve_unlearner
from puma_dash.core.unlearning.base import check_plan_for, direction_of, training_weights
from puma_dash.core.valuation import resolve_valuation

if TYPE_CHECKING:
    import pandas as pd


def load(source: str) -> Project:
    """The project named ``source``: a demo ("digits"), or "module:factory" for a callable that returns one.

    Raises:
        ProjectError: no such demo or module, or the factory did not return a Project.
    """
    if source in DEMOS:
        return DEMOS[source]()()
    module_name, colon, factory_name = source.partition(":")
    if not colon:
        raise ProjectError(
            f"expected a demo ({', '.join(DEMOS)}) or module:factory, but got {source!r}; "
            "try puma.load('digits'), or a module on the Python path and a function in it."
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
    criterion: str | Criterion = "cross_entropy",
    *,
    curvature: str | Curvature = "auto",
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Valuation:
    """One score per training row; lower means more suspicious.

    Args:
        project: model and data.
        method: a key of ``VALUATIONS`` or an instance; "psi" is the influence on ``criterion``.
        criterion: a key of ``CRITERIA`` or an instance; lower is better.
        curvature: a key of ``CURVATURES`` or an instance, used by methods that solve.
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Returns:
        Scores (n,) float64 with their provenance. psi_j / n is the change of the criterion on removing row j.
    """
    engine = engine_of(project, device, progress, cancel)
    chosen, target = resolve_valuation(method), resolve_criterion(criterion)
    start = time.perf_counter()
    scores, facts = chosen(engine, target, curvature)
    return Valuation(
        scores=scores.double().numpy(force=True).copy(),  # the engine keeps its own
        method=repr(chosen),
        criterion=target.name,
        fingerprint=project.fingerprint,
        diagnostics={"seconds": time.perf_counter() - start, "device": str(engine.device), **facts},
    )


def forecast(
    project: Project,
    plan: PatchPlan,
    *,
    split: str = "validation",
    curvature: str | Curvature = "auto",
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Forecast:
    """What ``plan`` is predicted to do on ``split``, to first order, before anything is changed.

    One solve and one forward-mode pass over the split. For methods that are not linear (retraining) it is the
    forecast of naive influence removal.
    """
    check_plan_for(project, plan)
    engine = engine_of(project, device, progress, cancel)
    start = time.perf_counter()
    method = resolve_unlearner(plan.method)
    reweight = getattr(method, "reweight", InfluenceRemoval().reweight)
    inverse = inverse_of(engine, curvature)
    change, known, facts = reweight(engine, plan, inverse)
    delta, residual = direction_of(engine, change, inverse)
    table, flips = _predicted(engine, engine.split(split), plan.strength * delta)
    totals = plan.strength / engine.n * known.total(engine, change)
    return Forecast(
        criteria=dict(zip((c.name for c in known.criteria), totals.tolist(), strict=True)),
        metrics=table,
        flips=flips,
        weights=training_weights(engine, change),
        fingerprint=project.fingerprint,
        diagnostics={
            **inverse.facts,
            **facts,
            "residual": max(residual, known.residual),
            "split": split,
            "n": len(engine.split(split)),
            "seconds": time.perf_counter() - start,
        },
    )


def patch(
    project: Project,
    plan: PatchPlan,
    *,
    curvature: str | Curvature = "auto",
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
    engine = engine_of(project, device, progress, cancel)
    criteria = [resolve_criterion(hold) for hold in plan.hold]
    start = time.perf_counter()
    method = resolve_unlearner(plan.method)
    update = method(engine, plan, curvature, seed)
    patched = Engine(project.with_model(update.model), device=engine.device)
    before = {criterion.name: engine.criterion(criterion) for criterion in criteria}
    after = {criterion.name: patched.criterion(criterion) for criterion in criteria}
    return Patch(
        model=update.model,
        plan=plan,
        delta=(engine.theta_of(update.model) - engine.theta).cpu(),
        weights=update.weights,
        predicted=update.predicted,
        measured={name: after[name] - before[name] for name in before},
        strength=update.strength,
        seconds=time.perf_counter() - start,
        fingerprint=project.fingerprint,
        diagnostics={
            **update.diagnostics,
            "method": repr(method),
            "device": str(engine.device),
            "criteria_before": before,
            "criteria_after": after,
        },
    )


def compare(
    project: Project,
    patch: Patch,
    split: str = "validation",
    *,
    seed: int = 0,
    device: str | None = None,
) -> Comparison:
    """Before and after on ``split``: metrics with intervals, reliability, flips, verdicts on what was held.

    Raises:
        ProjectError: the patch belongs to another project.
    """
    import pandas as pd

    if patch.fingerprint != project.fingerprint:
        raise ProjectError(
            f"expected a patch of project {project.name!r} ({project.fingerprint[:8]}), but this one "
            f"belongs to another ({patch.fingerprint[:8]}); try loading the project it was made for."
        )
    old_engine = engine_of(project, device)
    new_engine = Engine(project.with_model(patch.model), device=old_engine.device)
    data = old_engine.split(split)
    targets = data.targets.numpy(force=True)
    before = _probabilities(old_engine, old_engine.outputs(data))
    after = _probabilities(new_engine, new_engine.outputs(data))
    old, new = metrics(before, targets), metrics(after, targets)
    intervals = paired_intervals(before, after, targets, seed=seed)
    names = project.class_names or ()
    table = pd.DataFrame(
        {
            "before": old,
            "after": new,
            "change": {name: new[name] - old[name] for name in METRICS},
            "low": {name: intervals[name][0] for name in METRICS},
            "high": {name: intervals[name][1] for name in METRICS},
        }
    )
    curves = [
        reliability(probabilities, targets).assign(model=label)
        for label, probabilities in (("before", before), ("after", after))
    ]
    classes = per_class(before, targets, names).rename(columns={"accuracy": "before"})
    classes["after"] = per_class(after, targets, names)["accuracy"]
    flips = _flips(before.argmax(1), after.argmax(1), targets)
    counts = flips["kind"].value_counts()
    fixed, broken = int(counts.get("fixed", 0)), int(counts.get("broken", 0))
    return Comparison(
        split=split,
        n=len(targets),
        metrics=table,
        reliability=pd.concat(curves, ignore_index=True),
        flips=flips,
        verdicts=_verdicts(patch, split, old_engine, new_engine, seed),
        per_class=classes,
        marked=_marked(old_engine, new_engine, patch.plan),
        fingerprint=project.fingerprint,
        diagnostics={
            "fixed": fixed,
            "broken": broken,
            "mcnemar_p": mcnemar_p(fixed, broken),
            "device": str(old_engine.device),
        },
    )


def apply(project: Project, patch: Patch) -> Project:
    """The project as it stands after ``patch``: its model, labels and training weights."""
    if patch.plan.relabel and patch.strength != 1:
        raise ProjectError(
            f"expected a patch at strength 1 to go on from, but it relabels at strength {patch.strength:g}, "
            "which leaves rows between two labels; try a larger tolerance, or fewer relabels."
        )
    targets = project.train.targets.clone()
    for row, label in patch.plan.relabel.items():
        targets[row] = label
    full = torch.as_tensor(patch.weights)
    own = torch.ones_like(full) if project.train.weights is None else project.train.weights.to(full)
    weights = (own + patch.strength * (full - own)).clamp_min(0)
    train = dataclasses.replace(project.train, targets=targets, weights=weights)
    return dataclasses.replace(project, model=patch.model, train=train)


def engine_of(
    project: Project,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Engine:
    """The engine of ``project`` on ``device``: the same one for later calls, with what it has factored."""
    where = choose_device(device)
    if where not in project.memo:
        project.memo[where] = Engine(project, device=where)
    return project.memo[where].listen(progress, cancel)


def _probabilities(engine: Engine, outputs: torch.Tensor) -> np.ndarray:
    return engine.loss.probabilities(outputs).numpy(force=True)


def _predicted(engine: Engine, data: Split, delta: torch.Tensor) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics before and predicted, and the rows predicted to change class; empty for a regression."""
    import pandas as pd

    if isinstance(engine.loss, SquaredError):
        return (
            pd.DataFrame(columns=["before", "predicted", "change"]),
            pd.DataFrame(columns=["row", "target", "before", "after"]),
        )
    z, dz = engine.pushforward(data, delta)
    before, after = _probabilities(engine, z), _probabilities(engine, z + dz)
    targets = data.targets.numpy(force=True)
    table = pd.DataFrame({"before": metrics(before, targets), "predicted": metrics(after, targets)})
    table["change"] = table["predicted"] - table["before"]
    old, new = before.argmax(1), after.argmax(1)
    rows = np.flatnonzero(old != new)
    flips = {"row": rows, "target": targets[rows], "before": old[rows], "after": new[rows]}
    return table, pd.DataFrame(flips)


def _flips(before: np.ndarray, after: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Row, target, classes before and after, and kind (fixed, broken, kept right or wrong) of every row."""
    import pandas as pd

    was, now = before == targets, after == targets
    kind = np.select([~was & now, was & ~now, was & now], ["fixed", "broken", "kept right"], "kept wrong")
    return pd.DataFrame(
        {"row": np.arange(len(targets)), "target": targets, "before": before, "after": after, "kind": kind}
    )


def _verdicts(patch: Patch, split: str, before: Engine, after: Engine, seed: int) -> pd.DataFrame:
    """One row per held criterion: predicted, measured, tolerance, interval of the change, verdict.

    Criteria on all rows of validation, where patches are tuned, are judged on ``split``.
    """
    import pandas as pd

    rows = []
    for hold in patch.plan.hold:
        held = resolve_criterion(hold)
        elsewhere = held.rows is None and held.split == "validation" != split
        criterion = dataclasses.replace(held, split=split) if elsewhere else held
        tolerance = patch.plan.tolerance.get(held.name, 0.0)
        low, high = _criterion_interval(criterion, before, after, seed)
        rows.append(
            {
                "criterion": criterion.name,
                "predicted": np.nan if elsewhere else patch.predicted.get(held.name, np.nan),
                "measured": after.criterion(criterion) - before.criterion(criterion),
                "tolerance": tolerance,
                "low": low,
                "high": high,
                "verdict": "pass" if high <= tolerance else "fail" if low > tolerance else "inconclusive",
            }
        )
    columns = ["criterion", "predicted", "measured", "tolerance", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _criterion_interval(
    criterion: Criterion, before: Engine, after: Engine, seed: int
) -> tuple[float, float]:
    """Bootstrap interval of the criterion's change, resampling its evaluation rows."""
    data = criterion.evaluation(before)
    old, new = before.outputs(data), after.outputs(data)

    def change(rows: np.ndarray) -> float:
        index = torch.as_tensor(rows, device=old.device)
        groups = None if data.groups is None else data.groups.iloc[rows]
        drawn = Split(index, data.targets[index], groups=groups)
        difference = criterion(new[index], drawn, before.loss) - criterion(old[index], drawn, before.loss)
        return float(difference)

    return row_interval(change, len(data), seed=seed)


def _marked(before: Engine, after: Engine, plan: PatchPlan) -> pd.DataFrame:
    """Mean loss and accuracy on the rows the plan touched, by what was done to them."""
    import pandas as pd

    train = before.split("train")
    rows = []
    for name, marked in (
        ("removed", plan.remove),
        ("upweighted", plan.upweight),
        ("relabelled", plan.relabel),
    ):
        if not marked:
            continue
        data = train.take(np.array(list(marked)))
        targets = data.targets.numpy(force=True)
        entry: dict[str, Any] = {"rows": name, "n": len(data)}
        for label, engine in (("before", before), ("after", after)):
            known = per_row(_probabilities(engine, engine.outputs(data)), targets)
            entry[f"loss {label}"] = known["nll"].mean()
            entry[f"accuracy {label}"] = known["correct"].mean()
        rows.append(entry)
    return pd.DataFrame(rows)
