"""Before and after on the same rows: what a patch did, with intervals and verdicts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from puma_dash.core.criteria import Criterion, resolve_criterion
from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.evaluation.metrics import METRICS, metrics, per_class, per_row
from puma_dash.core.evaluation.reliability import reliability
from puma_dash.core.evaluation.statistics import mcnemar_p, paired_intervals, row_interval
from puma_dash.core.types import Comparison, Patch, Project, ProjectError, Split

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.plan import PatchPlan


def compare(
    project: Project,
    patch: Patch,
    split: str = "validation",
    *,
    seed: int = 0,
    device: str | None = None,
) -> Comparison:
    """Before and after on ``split``: metrics with intervals, reliability, flips, verdicts on what was held.

    Looks at test are counted by the pages and the command line, which keep a ledger, not by this call.

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
    before = old_engine.probabilities(old_engine.outputs(data))
    after = new_engine.probabilities(new_engine.outputs(data))
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

    Criteria on all rows of validation, where patches are tuned, are judged on ``split``, if they can be.
    """
    import pandas as pd

    rows = []
    for hold in patch.plan.hold:
        held = resolve_criterion(hold)
        criterion = _on(held, split, before.project)
        data = criterion.evaluation(before)  # adversarial examples stay those of the model before
        tolerance = patch.plan.tolerance.get(held.name, 0.0)
        low, high = _criterion_interval(criterion, data, before, after, seed)
        rows.append(
            {
                "criterion": criterion.name,
                "predicted": patch.predicted.get(held.name, np.nan) if criterion == held else np.nan,
                "measured": after.criterion(criterion, data=data) - before.criterion(criterion, data=data),
                "tolerance": tolerance,
                "low": low,
                "high": high,
                "verdict": "pass" if high <= tolerance else "fail" if low > tolerance else "inconclusive",
            }
        )
    columns = ["criterion", "predicted", "measured", "tolerance", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _on(held: Criterion, split: str, project: Project) -> Criterion:
    """``held`` on ``split``; as it is where it names another split or rows, or ``split`` lacks its groups."""
    if held.rows is not None or held.split != "validation":
        return held
    moved = dataclasses.replace(held, split=split)
    try:
        moved.check(project)
    except ProjectError:
        return held
    return moved


def _criterion_interval(
    criterion: Criterion, data: Split, before: Engine, after: Engine, seed: int
) -> tuple[float, float]:
    """Bootstrap interval of the criterion's change, resampling its evaluation rows ``data``."""
    old, new = (
        criterion.per_row(engine.outputs(data), data, engine.loss).cpu() for engine in (before, after)
    )

    def change(rows: np.ndarray) -> float:
        times = torch.from_numpy(np.bincount(rows, minlength=len(data))).to(new) / len(data)
        return float(
            criterion.of_means(torch.tensordot(times, new, 1))
            - criterion.of_means(torch.tensordot(times, old, 1))
        )

    return row_interval(change, criterion.strata(data), seed=seed)


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
            known = per_row(engine.probabilities(engine.outputs(data)), targets)
            entry[f"loss {label}"] = known["nll"].mean()
            entry[f"accuracy {label}"] = known["correct"].mean()
        rows.append(entry)
    return pd.DataFrame(rows)
