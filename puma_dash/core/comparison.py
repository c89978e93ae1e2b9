"""Before and after on the same rows: what a patch did, with intervals and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.evaluation.metrics import METRICS, metrics, per_class, per_row
from puma_dash.core.evaluation.reliability import reliability
from puma_dash.core.evaluation.statistics import mcnemar_p, paired_intervals
from puma_dash.core.evaluation.verdicts import judged, rails
from puma_dash.core.objective import SquaredError
from puma_dash.core.types import Comparison, Patch, Project, ProjectError, Split

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.plan import PatchPlan

MOST_GROUPS = 30
"""Columns with more values than this, or than half the rows, name no groups."""


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
        ProjectError: the patch belongs to another project, or the project is a regression.
    """
    import pandas as pd

    if isinstance(project.loss, SquaredError):
        raise ProjectError(
            "expected a classification project to compare, but its loss is squared error; "
            "try patch.measured, which has the change of each held criterion."
        )
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
    flips = _flips(before, after, targets)
    counts = flips["kind"].value_counts()
    fixed, broken = int(counts.get("fixed", 0)), int(counts.get("broken", 0))
    low, high = intervals["accuracy"]
    errors = {
        "criterion": "error_rate",
        "label": "error rate",
        "unit": "fraction of rows",
        "test": "exact McNemar",
        "held": False,
        "predicted": np.nan,
        "measured": old["accuracy"] - new["accuracy"],
        "tolerance": 0.0,
        "low": -high,
        "high": -low,
        "p": mcnemar_p(fixed, broken),
        "within": fixed >= broken,
    }
    marked_rows = _marked_rows(old_engine, new_engine, patch.plan)
    return Comparison(
        split=split,
        n=len(targets),
        metrics=table,
        reliability=pd.concat(curves, ignore_index=True),
        flips=flips,
        confusion=_confusion(flips),
        verdicts=judged([errors, *rails(patch, split, old_engine, new_engine, seed)]),
        per_class=classes,
        per_group=_per_group(project.split(split), flips),
        marked=_marked(marked_rows),
        marked_rows=marked_rows,
        fingerprint=project.fingerprint,
        diagnostics={
            "fixed": fixed,
            "broken": broken,
            "mcnemar_p": mcnemar_p(fixed, broken),
            "device": str(old_engine.device),
        },
    )


def comparison_seconds(rows: int, rails: int) -> float:
    """About how long ``compare`` takes for its resampling, on one core of 2020."""
    return 0.8 + 0.3 * rails + rows * (7e-5 + 4e-5 * rails)


def _flips(before: np.ndarray, after: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Row, target, classes and confidences before and after of every row, and its kind.

    Kinds are fixed, broken, kept right and kept wrong.
    """
    import pandas as pd

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


def _per_group(data: Split, flips: pd.DataFrame) -> pd.DataFrame:
    """Accuracy before and after of the rows with each value of each column that names groups."""
    import pandas as pd

    right = pd.DataFrame({model: flips[model] == flips["target"] for model in ("before", "after")})
    found = [pd.DataFrame(columns=["column", "group", "n", "before", "after"])]
    for frame in (frame for frame in (data.groups, data.meta) if frame is not None):
        for name in frame.columns:
            if 1 < frame[name].nunique() <= min(MOST_GROUPS, len(data) // 2):
                groups = right.groupby(frame[name].to_numpy())
                table = groups.mean().assign(n=groups.size(), column=str(name))
                found.append(table.rename_axis("group").reset_index().astype({"group": str}))
    filled = [table for table in found if len(table)] or found
    return pd.concat(filled, ignore_index=True)[list(found[0].columns)]


def _marked_rows(before: Engine, after: Engine, plan: PatchPlan) -> pd.DataFrame:
    """Every row the plan touched: what was done, its labels, predicted class and loss before and after.

    The loss is that on ``label``, which for a relabelled row is the old label in one line and the new one in
    another.
    """
    import pandas as pd

    train = before.split("train")
    relabelled = list(plan.relabel)
    parts = []
    for done, rows, labels in (
        ("removed", list(plan.remove), None),
        ("up-weighted", list(plan.upweight), None),
        ("relabelled, old label", relabelled, None),
        ("relabelled, new label", relabelled, list(plan.relabel.values())),
    ):
        if not rows:
            continue
        data = train.take(np.array(rows))
        label = data.targets.numpy(force=True) if labels is None else np.array(labels)
        part = pd.DataFrame({"row": rows, "done": done, "label": label})
        for name, engine in (("before", before), ("after", after)):
            probabilities = engine.probabilities(engine.outputs(data))
            part[name] = probabilities.argmax(1)
            part[f"loss {name}"] = per_row(probabilities, label)["nll"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _marked(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean loss and accuracy on the rows the plan touched, by what was done to them."""
    import pandas as pd

    right = {f"accuracy {name}": rows[name] == rows["label"] for name in ("before", "after")}
    groups = rows.assign(**right).groupby("done", sort=False)
    means = groups[["loss before", "accuracy before", "loss after", "accuracy after"]].mean()
    return pd.concat([groups.size().rename("n"), means], axis=1).rename_axis("rows").reset_index()
