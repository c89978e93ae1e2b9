"""The command line: thin shells over the calls of the API."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from puma_dash._version import __version__

app = typer.Typer(
    help="Find the training rows that make a model fail, patch their influence away, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _absolute(source: str) -> str:
    """A folder by its full path: the ledger and the pages know it by one name, wherever the command runs."""
    from puma_dash.ui.text import DEMOS

    return str(Path(source).resolve()) if source not in DEMOS and os.path.exists(source) else source


Source = Annotated[
    str,
    typer.Argument(
        help="A demo (digits, two-moons, radial), a project folder, or module:factory.", callback=_absolute
    ),
]
Port = Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)]
Criterion = Annotated[
    str | None,
    typer.Option(help="What psi is about: brier, calibration, ...; lower is better. By default the loss."),
]
Top = Annotated[int, typer.Option(help="How many rows to print or remove, most harmful first.", min=1)]


@app.command()
def serve(
    source: Source = "digits",
    port: Port = 8501,
    root: Annotated[
        Path | None,
        typer.Option(help="Project folders below it can be opened in the browser (PUMA_DASH_ROOT)."),
    ] = None,
) -> None:
    """Opens a project in the browser."""
    from puma_dash.ui import SERVED, app_folder
    from puma_dash.ui.text import DEMOS
    from puma_dash.workspace.places import ROOT
    from puma_dash.workspace.store import home

    os.environ[SERVED] = source
    _allow(str(root or os.environ.get(ROOT, "")), source)
    if "PUMA_DASH_HOME" in os.environ:  # it may be relative to here
        os.environ["PUMA_DASH_HOME"] = str(home().resolve())
    if source not in DEMOS:
        _load(source)  # a wrong name is told here, not in the browser
        if _has_code(source):
            os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    typer.echo(f"PUMA Dash {__version__}: http://127.0.0.1:{port}")
    os.chdir(app_folder())
    command = [sys.executable, "-m", "puma_dash.ui.server", "run", "app.py", "--server.port", str(port)]
    os.execv(sys.executable, command)


@app.command()
def demo(
    port: Port = 8501,
    present: Annotated[bool, typer.Option("--present", help="With a guided tour of two minutes.")] = False,
) -> None:
    """Opens the handwritten digits in the browser."""
    from puma_dash.ui import PRESENT

    if present:
        os.environ[PRESENT] = "1"
    serve("digits", port)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project folder, with the model and the data in it.")],
    train: Annotated[str, typer.Option(help="The training rows: FILE, or INPUTS,TARGETS for arrays.")] = "",
    validation: Annotated[str, typer.Option(help="Likewise; put aside from test if not given.")] = "",
    test: Annotated[str, typer.Option(help="Likewise.")] = "",
    target: Annotated[str, typer.Option(help="Column of a table with the label.")] = "",
    weights: Annotated[str, typer.Option(help="The file of the trained model.")] = "",
    loss: Annotated[str, typer.Option(help="cross_entropy, binary_cross_entropy or squared_error.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any line of project.toml: 'data.groups = [\"sex\"]'.")
    ] = None,
    ask: Annotated[bool | None, typer.Option(help="Ask for what is not given; so in a terminal.")] = None,
) -> None:
    """Writes project.toml from what you say and from the files, with the encoding of a table's columns.

    With nothing but a folder whose project.toml has no [data.columns], adds them.
    """
    from puma_dash.core.loaders import starter

    given = {"train": train, "validation": validation, "test": test, "target": target}
    given |= {"weights": weights, "loss": loss}
    fresh = folder.is_dir() and not (folder / starter.FILE).exists()
    if fresh and (sys.stdin.isatty() if ask is None else ask):
        guesses = starter.guesses(folder)
        for key, question in starter.QUESTIONS.items():
            given[key] = given[key] or typer.prompt(question, default=guesses.get(key, ""))
    for remark in starter.start(folder, starter.told(given, settings or [])):
        typer.echo(remark)
    typer.echo(f"Wrote {folder / starter.FILE}; now try puma-dash check {folder}.")


@app.command()
def check(source: Source) -> None:
    """Loads a project, says what it is or all that is wrong with it, and how far to believe its numbers."""
    import puma_dash as puma
    from puma_dash.core.loaders.project_folder import problems

    try:
        project = _load(source)
    except puma.ProjectError as error:
        for sentence in (problems(source) if os.path.exists(source) else []) or [str(error)]:
            typer.echo(f"Error: {sentence}", err=True)
        raise typer.Exit(2) from error
    rows = {name: len(getattr(project, name) or ()) for name in ("train", "validation", "test")}
    _print(
        {
            "name": project.name,
            "rows": rows,
            "task": project.task.name,
            "loss": str(project.loss),
            "classes": list(project.class_names),
            "fingerprint": project.fingerprint,
            "findings": [dataclasses.asdict(finding) for finding in puma.health(project)],
        }
    )


@app.command()
def value(source: Source, criterion: Criterion = None, top: Top = 20) -> None:
    """Prints the most harmful training rows with their psi."""
    import puma_dash as puma

    found = puma.value(_load(source), criterion=criterion)
    rows = found.harmful(top)
    _print(
        {
            "criterion": found.criterion,
            "diagnostics": found.diagnostics,
            "rows": [{"row": int(row), "psi": float(found.scores[row])} for row in rows],
        }
    )


@app.command()
def patch(
    source: Source,
    output: Annotated[Path, typer.Option(help="Where the patched weights go (safetensors).")] = Path(
        "patched.safetensors"
    ),
    criterion: Criterion = None,
    top: Top = 50,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report there; opens the test split.")
    ] = None,
) -> None:
    """Removes the influence of the most harmful rows, holding the criterion, and prints what came of it."""
    import puma_dash as puma

    for path in (output, report):
        if path is not None and not path.resolve().parent.is_dir():
            raise puma.ProjectError(f"expected a folder for {path}, but there is none; try making it first.")
    project = _load(source)
    held = criterion or project.task.criterion
    rows = puma.value(project, criterion=held).harmful(top)
    made = puma.patch(project, puma.PatchPlan(remove=tuple(rows.tolist()), hold=(held,)))
    made.save(output)
    compared = puma.compare(project, made, "validation")
    if report is not None:
        puma.report(project, made, report, openings=_opened_test(source))
    _print(
        {
            "removed": sorted(rows.tolist()),
            "strength": made.strength,
            "predicted": made.predicted,
            "measured": made.measured,
            "ratio": {name: ratio if math.isfinite(ratio) else None for name, ratio in made.ratio.items()},
            "doubts": list(made.doubts),
            "seconds": made.seconds,
            "validation": compared.metrics.to_dict("index"),
            "weights": str(output),
        }
    )


@app.command()
def replay(
    entry: Annotated[int, typer.Argument(help="The entry of the ledger, as the History page names it.")],
    home: Annotated[
        Path | None, typer.Option(help="The folder that the app keeps its things in, if not the usual one.")
    ] = None,
) -> None:
    """Makes a patch again from the ledger and says what fits: exit code 0, or 1 where something does not."""
    if home is not None:
        os.environ["PUMA_DASH_HOME"] = str(home.resolve())
    sys.path.append(os.getcwd())  # last: nothing in it stands for a library
    from puma_dash.workspace.ledger import Ledger
    from puma_dash.workspace.replay import replay as replayed
    from puma_dash.workspace.store import home as home_folder

    checks = replayed(Ledger(home_folder()), entry, home_folder())
    for check in checks:
        mark = "fits  " if check.fits else "DIFFERS" if check.decides else "note  "
        typer.echo(f"{mark:8}{check.name}: {check.sentence}")
    failed = [check.name for check in checks if check.decides and not check.fits]
    verdict = f"was not reproduced: {', '.join(failed)}" if failed else "was reproduced"
    typer.echo(f"Entry {entry} {verdict}.")
    raise typer.Exit(1 if failed else 0)


def _allow(root: str, source: str) -> None:
    """Lets the browser open project folders below ``root``; below none where it is empty."""
    from puma_dash.core.types import ProjectError
    from puma_dash.workspace.places import ROOT

    if not root:
        return
    if not os.path.isdir(root):
        raise ProjectError(f"expected root to be a folder, but {root} is none; try making it first.")
    if _has_code(source) and Path.cwd().is_relative_to(Path(root).resolve()):
        raise ProjectError(
            "expected to be started outside of the root, since code is imported from where one starts, and "
            f"others may write below {root}; try cd to another folder."
        )
    os.environ[ROOT] = str(Path(root).resolve())


def _has_code(source: str) -> bool:
    """Whether a source needs modules from the current folder: a function, or factories that are trusted.

    Not otherwise: a torch.py that lies beside somebody's model must not be imported as PyTorch.
    """
    from puma_dash.ui.text import DEMOS

    named = source not in DEMOS and not os.path.exists(source)
    return named or bool(os.environ.get("PUMA_DASH_FACTORIES"))


def _load(source: str) -> Any:
    if _has_code(source):
        sys.path.append(os.getcwd())  # last, as in replay
    import puma_dash as puma

    return puma.load(source)


def _opened_test(source: str) -> int:
    """How often the test split of ``source`` was opened; this time, too, goes into the ledger."""
    from puma_dash.workspace.ledger import Ledger
    from puma_dash.workspace.store import home

    ledger = Ledger(home())
    ledger.append("test opened", source=source, parent=None, why="a report from the command line")
    return ledger.openings(source)


def _print(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, indent=2, default=float))


def main() -> None:
    """Runs the command line; what a user can mend is one sentence and exit code 2, without a traceback."""
    from puma_dash.core.types import ProjectError

    try:
        app()
    except ProjectError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
