"""The report: one HTML file for people who decide, readable offline and on paper, with the limits stated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash._version import __version__
from puma_dash.core.task import CLASSIFICATION, TASKS
from puma_dash.ui import text
from puma_dash.ui.answers import Classes, answers_in
from puma_dash.ui.compare import (
    Record,
    binned,
    metric_table,
    outcome_sentence,
    patch_sentence,
    task_of,
    verdict,
    verdict_table,
)
from puma_dash.ui.evidence import distance_table, evidence_chart, membership_table, powerless
from puma_dash.ui.figures import (
    class_figure,
    predicted_measured_figure,
    reliability_figure,
    thumbnails,
)
from puma_dash.ui.panels import plain_number
from puma_dash.ui.values_charts import values_chart
from puma_dash.ui.values_figures import READ_MOVED, READ_RESIDUALS

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from puma_dash.core.types import Patch, Project
    from puma_dash.workspace.store import Arrays

TEMPLATE = Path(__file__).with_name("report.html.jinja")
MOST_EXAMPLES = 24
MOST_ROWS_LISTED = 200
FLIPS = {
    "fixed": "wrong before, right after",
    "broken": "right before, wrong after",
    "kept right": "right before and after",
    "kept wrong": "wrong before and after",
}
CHARTS = {
    "classification": [
        ("Each class", "classes", text.READ_CLASSES),
        ("Reliability", "reliability", text.READ_RELIABILITY),
    ],
    "regression": [
        ("Predictions and targets", "answers", READ_MOVED),
        ("Residuals", "residuals", READ_RESIDUALS),
    ],
}
DONE = {"remove": "removed", "relabel": "relabelled", "upweight": "up-weighted"}


@dataclass(frozen=True)
class Decision:
    """What the ledger says of a patch.

    Args:
        entry: its entry.
        kind: "accepted" or "discarded".
        version: what the new version is called; empty where there is none.
        parent: what the version is called that it started from.
        who: who decided.
        when: in words.
        why: in their words.
        previous: hash of the entry before.
        hash: of the entry.
        chain: the verdict on the whole ledger.
    """

    entry: int
    kind: str
    version: str
    parent: str
    who: str
    when: str
    why: str
    previous: str
    hash: str
    chain: str


def report(project: Project, patch: Patch, path: str | Path, *, openings: int | None = None) -> Path:
    """The path of the report on ``patch``, written as one self-contained HTML file.

    The test split is opened where the project has one. That look is counted by the command line and the
    pages, which keep a ledger; a call from Python alone is not.

    Args:
        project: that was patched.
        patch: what the report is about.
        path: of the file.
        openings: how often test was opened so far, where somebody counts.

    Raises:
        ProjectError: the patch belongs to another project.
    """
    from puma_dash.core import comparison
    from puma_dash.core.engine import engine_of
    from puma_dash.workspace.overview import overview_of
    from puma_dash.workspace.provenance import provenance
    from puma_dash.workspace.records import comparison_record, patch_record

    validation = comparison.compare(project, patch, "validation")
    info = {**patch_record(patch, validation), **provenance(project, patch, seed=None)}
    test = None if project.test is None else comparison_record(comparison.compare(project, patch, "test"))
    arrays, known = overview_of(project, engine_of(project), project.name)
    examples = examples_of(info["plan"], arrays, known)
    Path(path).write_text(report_html(info, test, examples=examples, openings=openings), "utf-8")
    return Path(path)


def report_html(
    info: dict[str, Any],
    test: dict[str, Any] | None,
    *,
    examples: dict[str, Any] | None = None,
    decision: Decision | None = None,
    openings: int | None = None,
    evidence: dict[str, Any] | None = None,
) -> str:
    """The report as HTML.

    Args:
        info: record of the patch with its comparison on validation and where it comes from.
        test: the comparison on test, if it was opened.
        examples: some of the marked rows, from :func:`examples_of`.
        decision: what the ledger says of it; None where no ledger knows it.
        openings: how often the test split of the project was opened; None where nobody counts.
        evidence: record of the removal evidence, if it was computed.
    """
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    record = Record("", info)
    comparisons = [comparison for comparison in (test, record.validation) if comparison is not None]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        project=info["project"],
        info=info,
        verdict=headline(info, comparisons[0]),
        lead=outcome_sentence(comparisons[0]),
        sentence=patch_sentence(info),
        asked=asked(info),
        sections=[section(comparison) for comparison in comparisons],
        predicted=_predicted(info["predicted"], info["measured"]),
        doubts=record.doubts(),
        marked=_table(_marked(record.validation)),
        examples=examples,
        evidence=None if evidence is None else _evidence(evidence),
        decision=decision,
        openings=openings,
        flips=FLIPS,
        facts=_facts(info["diagnostics"]),
        rows_listed=MOST_ROWS_LISTED,
        plotly=get_plotlyjs(),
        psi=text.PSI_SENTENCE,
        names="Classes" if task_of(record.validation) is CLASSIFICATION else "Outputs",
        charts=CHARTS[task_of(record.validation).name],
        read_predicted=text.READ_PREDICTED_MEASURED,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def headline(info: dict[str, Any], comparison: dict[str, Any]) -> tuple[str, str]:
    """What the report says first: "pass", "fail" or "inconclusive", and the sentence for it."""
    if info["strength"] == 0:
        return "fail", "Nothing was applied: what had to hold would not have held at any strength tried."
    kind, told = verdict(comparison)
    return kind, f"On {comparison['split']}, {told}."


def asked(info: dict[str, Any]) -> list[str]:
    """What was asked for, in words."""
    import pandas as pd

    plan, rails = info["plan"], pd.DataFrame(**info["comparison"]["verdicts"])
    marks = [f"{len(plan[name]):,} training rows {done}" for name, done in DONE.items() if plan[name]]
    held = [
        f"{rail['label']} may get worse by {rail['tolerance']:g} {rail['unit']}"
        for rail in rails[rails["held"]].to_dict("records")
    ]
    return [
        ", ".join(marks),
        f"strength {plan['strength']:g} (1 is the whole change), {plan['steps']} "
        f"step{'s' * (plan['steps'] > 1)}, intent: {text.INTENTS[plan['intent']]}",
        f"to hold on validation: {'; '.join(held) or 'nothing'}",
    ]


def section(comparison: dict[str, Any]) -> dict[str, Any]:
    """Tables and figures of one split."""
    import pandas as pd

    split, n = comparison["split"], comparison["n"]
    classes = task_of(comparison) is CLASSIFICATION
    groups = pd.DataFrame(**comparison["per_group"]) if "per_group" in comparison else pd.DataFrame()
    return {
        "split": split,
        "n": n,
        "sentence": outcome_sentence(comparison),
        "verdicts": _table(verdict_table(comparison)) if comparison["verdicts"]["data"] else "",
        "metrics": _table(metric_table(comparison)),
        "flips": comparison.get("flips", {}),
        "groups": ""
        if groups.empty
        else _table(_rates(groups, text.percent if classes else "{:.4g}".format)),
        "rate": "Accuracy" if classes else "RMSE",
        **(_of_classes(comparison) if classes else _of_values(comparison)),
    }


def _of_classes(comparison: dict[str, Any]) -> dict[str, str]:
    """The charts of a classifier."""
    import pandas as pd

    split, n = comparison["split"], comparison["n"]
    before, after = binned(comparison, "before"), binned(comparison, "after")
    reliability = reliability_figure(before, after, title=f"Accuracy against confidence on {split}", n=n)
    classes = pd.DataFrame(**comparison["per_class"])
    names, rates = classes["class"].tolist(), (classes["before"], classes["after"])
    per_class = class_figure(names, *rates, title=f"Accuracy of each class on {split}", x_title="accuracy")
    return {
        "classes": _figure(per_class, text.class_alt(names, *rates, f"Accuracy on {split}")),
        "reliability": _figure(reliability, text.reliability_alt(before, after, n=n)),
    }


def _of_values(comparison: dict[str, Any]) -> dict[str, str]:
    """The charts of a regression, one below the other for each output."""
    import pandas as pd

    outputs = pd.DataFrame(**comparison["answers"])["output"].unique()
    found = {}
    for kind in ("answers", "residuals"):
        drawn = (values_chart(comparison, kind, output) for output in outputs)
        found[kind] = "".join(_figure(figure, alt) for figure, alt, _ in drawn)
    return found


def examples_of(plan: dict[str, Any], arrays: Arrays, known: dict[str, Any]) -> dict[str, Any] | None:
    """Some of the marked rows, those the model fitted worst: pictures where there are any, else a table.

    Args:
        plan: what was marked; removed rows are shown before relabelled and up-weighted ones.
        arrays: of the overview of the version that was patched.
        known: its facts.
    """
    import pandas as pd

    kind = next(name for name in DONE if plan[name])
    marked = np.array([int(row) for row in plan[kind]])
    chosen = marked[np.argsort(-arrays["loss"][marked], kind="stable")[:MOST_EXAMPLES]]
    answers = answers_in(known, arrays)
    told: dict[str, Any] = {
        "row": chosen,
        TASKS[known["task"]].target: answers.words(answers.target[chosen]),
        "model said": answers.words(answers.predicted[chosen]),
    }
    if isinstance(answers, Classes):
        told["confidence"] = [text.percent(value, 0) for value in answers.confidence[chosen]]
    table = pd.DataFrame({**told, "loss": [plain_number(value, 2) for value in arrays["loss"][chosen]]})
    for column in known["columns"]:
        values, categories = arrays[f"column.{column['name']}"][chosen], column["categories"]
        named = None if categories is None else [categories[k] if k >= 0 else "" for k in values]
        table[f"data: {column['name']}"] = [f"{v:.4g}" for v in values] if named is None else named
    pictures = thumbnails(arrays["images"][chosen], size=72) if "images" in arrays else None
    rows = table.to_dict("records")
    return {
        "done": DONE[kind],
        "target": TASKS[known["task"]].target,
        "shown": len(chosen),
        "of": len(marked),
        "pictures": None if pictures is None else list(zip(pictures, rows, strict=True)),
        "table": _table(table),
    }


def _predicted(predicted: Mapping[str, float], measured: Mapping[str, float]) -> str:
    if not predicted:
        return ""
    figure = predicted_measured_figure(
        predicted, measured, title="Predicted and measured change on validation"
    )
    return _figure(figure, text.predicted_measured_alt(predicted, measured))


def _marked(comparison: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(**comparison["marked"])
    for column in frame.columns[2:]:
        shown = text.percent if column.startswith("accuracy") else plain_number
        frame[column] = frame[column].map(shown)
    return frame


def _evidence(found: dict[str, Any]) -> dict[str, str]:
    """Sentence, tables and figure of the removal evidence."""
    figure, alt = evidence_chart(found)
    return {
        "sentence": found["sentence"],
        "note": powerless(found),
        "membership": _table(membership_table(found)),
        "distances": _table(distance_table(found)),
        "figure": _figure(figure, alt),
        "read": text.READ_EVIDENCE,
        "read_distances": text.READ_DISTANCES.format(count=found["references"]),
    }


def _rates(groups: pd.DataFrame, shown: Callable[[float], str]) -> pd.DataFrame:
    return groups.assign(before=groups["before"].map(shown), after=groups["after"].map(shown))


def _facts(diagnostics: dict[str, Any]) -> list[tuple[str, str]]:
    """How it was computed, as far as a line each can say it."""
    return [
        (name.replace("_", " ").capitalize(), f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in diagnostics.items()
        if value is not None and not isinstance(value, dict)
    ]


def _table(frame: pd.DataFrame) -> str:
    """A table as HTML, its text escaped."""
    return frame.to_html(index=False, border=0)


def _figure(figure: go.Figure, alt: str) -> str:
    """A figure as HTML that draws itself, with its alternative text."""
    from markupsafe import escape

    figure.update_layout(font_family="system-ui, sans-serif")
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)  # as Streamlit's theme does
    drawn = figure.to_html(
        include_plotlyjs=False, full_html=False, config={"displayModeBar": False, "responsive": True}
    )
    return f'<figure role="img" aria-label="{escape(alt)}">{drawn}</figure>'
