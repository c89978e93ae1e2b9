"""The commands of the method: value, forecast, patch, compare, report. Each is one call of the API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from puma_dash import cli_options as given
from puma_dash.cli_options import (
    Column,
    Curvature,
    Device,
    Hold,
    Method,
    Negate,
    OfCriterion,
    Parameters,
    Relabel,
    RowsFile,
    Scores,
    Seed,
    Source,
    Strength,
    Top,
    Upweight,
)

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.types import Comparison, Patch

Output = Annotated[
    Path | None, typer.Option(help="Write the table there too, by its ending: .csv, .parquet or .json.")
]
PatchFile = Annotated[
    Path, typer.Option("--patch", help="The file that puma-dash patch or Patch.save wrote.")
]


def value(
    source: Source,
    criterion: OfCriterion = None,
    method: Annotated[
        str, typer.Option(help="psi, loss, knn_shapley and others, see the docs; 'psi(leverage=True)'.")
    ] = "psi",
    top: Annotated[int, typer.Option(help="How many rows to print, lowest score first.", min=1)] = 20,
    output: Annotated[
        Path | None, typer.Option(help="Write all rows there, by the ending: .csv, .parquet or .json.")
    ] = None,
    curvature: Curvature = "auto",
    parameters: Parameters = "all",
    device: Device = None,
) -> None:
    """Scores every training row; prints the most suspicious ones.

    Criterion: lower is better. psi < 0: removing this row is predicted to improve it (harmful). psi > 0: the
    row is valuable. Removing row j changes the criterion by about psi_j / n. The lowest scores of every
    method are the most suspicious.
    """
    import puma_dash as puma
    from puma_dash.core.registry import parsed
    from puma_dash.core.saved import check_written, scores_table
    from puma_dash.core.valuation import VALUATIONS

    if output is not None:
        check_written(output)
    call = {"criterion": given.criterion(criterion), "curvature": given.curvature(curvature)}
    chosen = parsed(VALUATIONS, method, "valuation method")
    project = given.load(source)
    with given.progress() as progress:
        found = puma.value(project, chosen, **call, parameters=parameters, device=device, progress=progress)
    if output is not None:
        found.save(output, project)
    table = scores_table(found, project)
    given.show(
        {
            "criterion": found.criterion,
            "method": found.method,
            "diagnostics": found.diagnostics,
            "rows": table.iloc[found.harmful(top)].to_dict("records"),
        }
    )


def forecast(
    source: Source,
    top: Top = None,
    criterion: OfCriterion = None,
    rows: RowsFile = None,
    scores: Scores = None,
    column: Column = None,
    negate: Negate = False,
    relabel: Relabel = None,
    upweight: Upweight = None,
    hold: Hold = None,
    method: Method = "puma",
    strength: Strength = 1.0,
    split: Annotated[str, typer.Option(help="Where metrics are predicted.")] = "validation",
    output: Output = None,
    curvature: Curvature = "auto",
    parameters: Parameters = "all",
    device: Device = None,
) -> None:
    """Predicts what a patch will do, before anything is changed.

    Takes the options of puma-dash patch. "criteria" are predicted by sums of psi, "refined" and "metrics" by
    outputs that move along a straight line, which comes nearer. With --output the change of everything at
    strengths from 0 to 2 or beyond, a line each.
    """
    import puma_dash as puma
    from puma_dash.core.records import plan_record
    from puma_dash.core.saved import check_written, write_table

    if output is not None:
        check_written(output)
    wanted = given.criterion(criterion)
    call = {"curvature": given.curvature(curvature), "parameters": parameters, "device": device}
    project = given.load(source)
    with given.progress() as progress:
        marked = given.chosen(
            project, top, rows, scores, column, negate, criterion=wanted, **call, progress=progress
        )
        plan = puma.PatchPlan(
            **given.marked(project, marked, relabel, upweight),
            **given.held(project, hold or (), wanted),
            method=given.method(method),
            strength=strength,
        )
        found = puma.forecast(project, plan, split=split, **call, progress=progress)
    told = {
        "plan": plan_record(plan),
        "criteria": found.criteria,
        "refined": found.refined,
        "split": split,
        "metrics": found.metrics.to_dict("index"),
        "flips": len(found.flips),
        "diagnostics": found.diagnostics,
    }
    if output is not None:
        write_table(output, found.strengths.reset_index(), told)
    given.show(told)


def patch(
    source: Source,
    top: Top = None,
    criterion: OfCriterion = None,
    rows: RowsFile = None,
    scores: Scores = None,
    column: Column = None,
    negate: Negate = False,
    relabel: Relabel = None,
    upweight: Upweight = None,
    hold: Hold = None,
    method: Method = "puma",
    intent: Annotated[
        str, typer.Option(help="With several steps: unseen (as if never trained on) or forget.")
    ] = "unseen",
    steps: Annotated[int, typer.Option(help="Relinearised steps; 1 is the paper's patch.", min=1)] = 1,
    strength: Strength = 1.0,
    output: Annotated[
        Path,
        typer.Option(help="Where the patched weights go (safetensors), with the plan and what came of it."),
    ] = Path("patched.safetensors"),
    curvature: Curvature = "auto",
    parameters: Parameters = "all",
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Takes the influence of rows away, while what must hold, holds.

    The rows are the --top most harmful ones, or those of --rows; they are removed, or get another label or
    weight. PUMA lowers the strength until no held criterion gets worse than allowed on validation. Exit code
    1 where that leaves nothing, or one got worse all the same. "ratio" is measured / predicted change.
    """
    import puma_dash as puma
    from puma_dash.core.records import plan_record
    from puma_dash.core.saved import check_folder
    from puma_dash.core.types import NEGLIGIBLE_CHANGE

    check_folder(output)
    wanted = given.criterion(criterion)
    call = {"curvature": given.curvature(curvature), "parameters": parameters, "device": device}
    project = given.load(source)
    with given.progress() as progress:
        marked = given.chosen(
            project, top, rows, scores, column, negate, criterion=wanted, **call, progress=progress
        )
        plan = puma.PatchPlan(
            **given.marked(project, marked, relabel, upweight),
            **given.held(project, hold or (), wanted),
            method=given.method(method),
            intent=intent,
            steps=steps,
            strength=strength,
        )
        made = puma.patch(project, plan, **call, seed=seed, progress=progress)
    made.save(output)
    given.show(
        {
            "plan": plan_record(plan),
            "strength": made.strength,
            "predicted": made.predicted,
            "measured": made.measured,
            "ratio": made.ratio,
            "doubts": list(made.doubts),
            "seconds": made.seconds,
            "validation": _told(puma.compare(project, made, "validation", device=device)),
            "weights": str(output),
        }
    )
    worse = [
        name
        for name, change in made.measured.items()
        if not change <= plan.tolerance.get(name, 0.0) + NEGLIGIBLE_CHANGE
    ]
    if made.strength == 0:
        _fail("no strength holds what must hold, so the model is as it was")
    if worse:
        _fail(f"got worse than allowed on validation: {', '.join(worse)}")


def compare(
    source: Source,
    patch: PatchFile,
    split: Annotated[str, typer.Option(help="validation, or test: that look is counted.")] = "validation",
    against: Annotated[
        list[str] | None, typer.Option(help="Also what this method makes of the same rows; several times.")
    ] = None,
    output: Output = None,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Judges a patch: before and after, a verdict on every rail.

    Changes have 95 % intervals. Verdicts are pass, fail or inconclusive, by paired bootstrap with Holm's
    correction; exit code 1 where one of the patch is fail. With --output the metrics of all methods, a line
    each.
    """
    import puma_dash as puma
    from puma_dash.core.saved import check_written, write_table

    if output is not None:
        check_written(output)
    rivals = {text: given.method(text) for text in against or ()}
    project = given.load(source)
    project.split(split)
    made = {"patch": puma.read_patch(patch, project)}
    with given.progress() as progress:
        for name, method in rivals.items():
            plan = _rival(made["patch"], method)
            made[name] = puma.patch(project, plan, seed=seed, device=device, progress=progress)
    found = {name: puma.compare(project, one, split, device=device) for name, one in made.items()}
    if split == "test":
        _opened_test(source, "a comparison from the command line")
    told = {
        "split": split,
        "n": found["patch"].n,
        "methods": {
            name: {"seconds": made[name].seconds, "strength": made[name].strength, **_told(one)}
            for name, one in found.items()
        },
    }
    if output is not None:
        write_table(output, _metrics(found), told)
    given.show(told)
    verdicts = found["patch"].verdicts
    failed = verdicts[verdicts["held"] & (verdicts["verdict"] == "fail")]["criterion"]
    if len(failed):
        _fail(f"worse than allowed on {split}, beyond chance: {', '.join(failed)}")


def report(
    source: Source,
    patch: PatchFile,
    output: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """Writes one HTML file on a patch, for people who decide.

    It opens the test split, which is counted.
    """
    import puma_dash as puma
    from puma_dash.core.saved import check_folder

    check_folder(output)
    project = given.load(source)
    made = puma.read_patch(patch, project)
    openings = None if project.test is None else _opened_test(source, "a report from the command line")
    puma.report(project, made, output, openings=openings)
    given.show({"report": str(output), "test_opened": openings})


def _rival(made: Patch, method: Any) -> Any:
    """The plan of ``made`` for another method; steps are PUMA's, and retraining knows no strength."""
    from puma_dash.core.unlearning import Puma, Retrain

    plan = replace(made.plan, method=method)
    plan = plan if isinstance(method, Puma) else replace(plan, steps=1, intent="unseen")
    return replace(plan, strength=1.0) if isinstance(method, Retrain) else plan


def _told(compared: Comparison) -> dict[str, Any]:
    return {
        "metrics": compared.metrics.to_dict("index"),
        "verdicts": compared.verdicts.to_dict("records"),
    }


def _metrics(found: dict[str, Comparison]) -> pd.DataFrame:
    """method, metric, before, after, change, low, high."""
    import pandas as pd

    tables = {name: one.metrics.rename_axis("metric") for name, one in found.items()}
    return pd.concat(tables, names=["method"]).reset_index()


def _fail(told: str) -> None:
    typer.echo(f"A rail failed: {told}.", err=True)
    raise typer.Exit(1)


def _opened_test(source: str, why: str) -> int:
    """How often the test split of ``source`` was opened; this time, too, goes into the ledger."""
    from puma_dash.workspace.ledger import Ledger
    from puma_dash.workspace.store import home

    ledger = Ledger(home())
    ledger.append("test opened", source=source, parent=None, why=why)
    return ledger.openings(source)
