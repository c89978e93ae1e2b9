"""The report: one HTML file for people who decide, readable offline, with the limits stated."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puma_dash._version import __version__
from puma_dash.ui import text
from puma_dash.ui.compare import (
    Record,
    binned,
    flips_sentence,
    metric_table,
    patch_sentence,
    verdict_table,
)
from puma_dash.ui.figures import predicted_measured_figure, reliability_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from puma_dash.core.types import Patch, Project

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def report(project: Project, patch: Patch, path: str | Path) -> Path:
    """The path of the report on ``patch``, written as one self-contained HTML file.

    The test split is opened where the project has one.

    Raises:
        ProjectError: the patch belongs to another project.
    """
    from puma_dash.core import comparison
    from puma_dash.core.engine import engine_of
    from puma_dash.workspace.records import comparison_record, patch_record

    record = Record("", patch_record(patch, comparison.compare(project, patch, "validation")))
    test = None if project.test is None else comparison_record(comparison.compare(project, patch, "test"))
    rows = {name: len(getattr(project, name) or ()) for name in ("train", "validation", "test")}
    facts = {
        "name": project.name,
        "fingerprint": project.fingerprint,
        "rows": rows,
        "loss": engine_of(project).loss.label,
        "weight_decay": project.weight_decay,
        "parameters": sum(p.numel() for p in project.model.parameters()),
    }
    Path(path).write_text(report_html(facts, record, test), "utf-8")
    return Path(path)


def report_html(project: dict[str, Any], record: Record, test: dict[str, Any] | None) -> str:
    """The report as HTML: what was done, what came of it on validation and test, what to keep in mind."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    comparisons = [c for c in (test, record.validation) if c is not None]
    sections = [
        {
            "split": c["split"],
            "n": c["n"],
            "sentence": flips_sentence(c),
            "metrics": metric_table(c).to_html(index=False, border=0),
            "reliability": _html(
                reliability_figure(
                    binned(c, "before"), binned(c, "after"), title="Accuracy against confidence", n=c["n"]
                )
            ),
        }
        for c in comparisons
    ]
    predicted, measured = record.info["predicted"], record.info["measured"]
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        project=project,
        info=record.info,
        sentence=patch_sentence(record.info),
        sections=sections,
        verdicts=verdict_table(record.validation).to_html(index=False, border=0)
        if record.validation["verdicts"]["data"]
        else "",
        predicted=_html(predicted_measured_figure(predicted, measured, title="Predicted and measured change"))
        if predicted
        else "",
        doubts=record.doubts(),
        plotly=get_plotlyjs(),
        psi=text.PSI_SENTENCE,
        read_reliability=text.READ_RELIABILITY,
        read_predicted=text.READ_PREDICTED_MEASURED,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _html(figure: go.Figure) -> str:
    figure.update_layout(template="plotly_white", font_family="system-ui, sans-serif")
    return figure.to_html(include_plotlyjs=False, full_html=False, config={"displayModeBar": False})
