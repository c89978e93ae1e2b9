"""Before and after on the same rows: what a patch did, with intervals and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.evaluation.measures import measures_of
from puma_dash.core.evaluation.outcomes import Answers, of_classes, of_values
from puma_dash.core.evaluation.parity import grouping, parity_changes
from puma_dash.core.evaluation.statistics import paired_intervals
from puma_dash.core.evaluation.verdicts import judged, rails
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import Comparison, Patch, Project, ProjectError, Split
from puma_dash.core.unlearning.base import relabelled

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.plan import PatchPlan

OF_A_TASK = ("reliability", "flips", "confusion", "per_class", "residuals", "answers")


def compare(
    project: Project,
    patch: Patch,
    split: str = "validation",
    *,
    seed: int = 0,
    device: str | None = None,
) -> Comparison:
    """Before and after on ``split``: metrics with intervals, what became of rows, verdicts on what was held.

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
    data, measures = old_engine.split(split), measures_of(project.task)
    before, after = (engine.answers(engine.outputs(data)) for engine in (old_engine, new_engine))
    answers = Answers(before, after, data.targets.numpy(force=True))
    intervals = paired_intervals(*answers, measures, seed=seed)
    table = pd.DataFrame(
        {
            "before": measures.metrics(before, answers.targets),
            "after": measures.metrics(after, answers.targets),
            "low": {name: low for name, (low, _) in intervals.items()},
            "high": {name: high for name, (_, high) in intervals.items()},
        }
    )
    table.insert(2, "change", table["after"] - table["before"])
    names = project.class_names or ()
    if project.task is CLASSIFICATION:
        outcome = of_classes(answers, names, intervals["accuracy"])
        for name, gap in parity_changes(project.split(split).groups, answers).items():
            table.loc[name] = gap._asdict()
    else:
        outcome = of_values(answers, names, seed)
    own = {"held": False, "predicted": np.nan, "tolerance": 0.0, **outcome.verdict}
    marked_rows = _marked_rows(old_engine, new_engine, patch.plan)
    return Comparison(
        split=split,
        n=len(data),
        metrics=table,
        verdicts=judged([own, *rails(patch, split, old_engine, new_engine, seed)]),
        per_group=_per_group(project.split(split), answers),
        marked=_marked(marked_rows),
        marked_rows=marked_rows,
        fingerprint=project.fingerprint,
        diagnostics={**outcome.facts, "device": str(old_engine.device)},
        **{name: outcome.tables.get(name, pd.DataFrame()) for name in OF_A_TASK},
    )


def comparison_seconds(rows: int, rails: int) -> float:
    """About how long ``compare`` takes for its resampling, on one core of 2020."""
    return 0.8 + 0.3 * rails + rows * (7e-5 + 4e-5 * rails)


def _per_group(data: Split, answers: Answers) -> pd.DataFrame:
    """Accuracy, of values RMSE, before and after of the rows with each value of each column for groups."""
    import pandas as pd

    targets, models = answers.targets, {"before": answers.before, "after": answers.after}
    values = targets.ndim > 1
    quality = pd.DataFrame(
        {
            name: ((found - targets) ** 2).mean(1) if values else found.argmax(1) == targets
            for name, found in models.items()
        }
    )
    found = [pd.DataFrame(columns=["column", "group", "n", "before", "after"])]
    for frame in (frame for frame in (data.groups, data.meta) if frame is not None):
        for name in grouping(frame):
            groups = quality.groupby(frame[name].to_numpy())
            means = groups.mean() ** 0.5 if values else groups.mean()
            table = means.assign(n=groups.size(), column=str(name))
            found.append(table.rename_axis("group").reset_index().astype({"group": str}))
    filled = [table for table in found if len(table)] or found
    return pd.concat(filled, ignore_index=True)[list(found[0].columns)]


def _marked_rows(before: Engine, after: Engine, plan: PatchPlan) -> pd.DataFrame:
    """Every row the plan touched (and output): what was done, its labels, answers and loss before and after.

    The loss is that on ``label``, which for a relabelled row is the old label in one line and the new one in
    another. Answers are classes, or values, each ``output`` on a line of its own.
    """
    import pandas as pd

    train, names = before.split("train"), np.array(before.project.class_names, dtype=object)
    again, new = list(plan.relabel), relabelled(train.targets, plan.relabel)
    classes = before.project.task is CLASSIFICATION
    k = 1 if classes else len(names)
    parts = []
    for done, rows, targets in (
        ("removed", list(plan.remove), train.targets),
        ("up-weighted", list(plan.upweight), train.targets),
        ("relabelled, old label", again, train.targets),
        ("relabelled, new label", again, new),
    ):
        if not rows:
            continue
        index = np.array(rows)
        data = Split(train.take(index).inputs, targets[index])
        part = pd.DataFrame({"row": np.repeat(rows, k), "done": done})
        if not classes:
            part["output"] = np.tile(names, len(rows))
        part["label"] = data.targets.numpy(force=True).ravel()
        for name, engine in (("before", before), ("after", after)):
            outputs = engine.outputs(data)
            answers = engine.answers(outputs)
            part[name] = answers.argmax(1) if classes else answers.ravel()
            losses = engine.loss.plain(outputs, data.targets)
            part[f"loss {name}"] = np.repeat(losses.numpy(force=True), k)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _marked(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean loss and, of classes, accuracy on the rows the plan touched, by what was done to them."""
    import pandas as pd

    kinds = ["loss"] if "output" in rows else ["loss", "accuracy"]
    right = {f"accuracy {name}": rows[name] == rows["label"] for name in ("before", "after")}
    groups = rows.drop_duplicates(["done", "row"]).assign(**right).groupby("done", sort=False)
    means = groups[[f"{kind} {name}" for name in ("before", "after") for kind in kinds]].mean()
    return pd.concat([groups.size().rename("n"), means], axis=1).rename_axis("rows").reset_index()
