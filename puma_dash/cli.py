"""The command line: thin shells over the calls of the API; those of the method stand in ``cli_method``."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

from puma_dash import cli_method
from puma_dash._version import __version__
from puma_dash.cli_options import Device, Source, examples, has_code, load, progress, show

BEGIN = """In this order, to begin with:
  puma-dash demo                                       look at it in the browser
  puma-dash check digits                               how far to believe its numbers
  puma-dash value digits --top 20                      the most harmful rows
  puma-dash patch digits --top 100 --steps 3           patched.safetensors
  puma-dash compare digits --patch patched.safetensors
  puma-dash report digits --patch patched.safetensors

\b
Results are JSON on stdout, progress and errors go to stderr. Exit codes:
  0   fine
  1   a rail failed, or a replayed patch was not reproduced
  2   what you can mend: one sentence says what was expected
  70  a fault of PUMA Dash, with its traceback"""

app = typer.Typer(
    help="Find the training rows that make a model fail, patch their influence away, compare.",
    epilog="\b\n" + BEGIN,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Port = Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)]


@app.command(epilog=examples("demo", "demo --present"))
def demo(
    port: Port = 8501,
    present: Annotated[bool, typer.Option("--present", help="With a guided tour of two minutes.")] = False,
) -> None:
    """Opens the handwritten digits in the browser."""
    from puma_dash.ui import PRESENT

    if present:
        os.environ[PRESENT] = "1"
    serve("digits", port)


@app.command(
    epilog=examples(
        "serve digits", "serve adult --port 8600", "serve --root projects", "serve mymodule:make_project"
    )
)
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
        load(source)  # a wrong name is told here, not in the browser
        if has_code(source):
            os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    typer.echo(f"PUMA Dash {__version__}: http://127.0.0.1:{port}")
    os.chdir(app_folder())
    command = [sys.executable, "-m", "puma_dash.ui.server", "run", "app.py", "--server.port", str(port)]
    os.execv(sys.executable, command)


@app.command(
    epilog=examples(
        "init adult",
        "init adult --train adult.csv --test adult_test.csv --target income --weights model.safetensors",
        'init adult --set \'data.groups = ["sex", "race"]\'',
    )
)
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
    """Writes the project.toml of a folder, from what you say and its files.

    The encoding of a table's columns goes with it. With nothing but a folder whose project.toml has no
    [data.columns], adds them.
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


@app.command(epilog=examples("check adult", "check mymodule:make_project"))
def check(source: Source, device: Device = None) -> None:
    """Says what is wrong with a project, and how far to believe it.

    All that is wrong where it cannot be opened, exit code 2; else what it is, and a finding for each check.
    """
    import puma_dash as puma
    from puma_dash.core.loaders.project_folder import problems

    try:
        project = load(source)
    except puma.ProjectError as error:
        for sentence in (problems(source) if os.path.exists(source) else []) or [str(error)]:
            typer.echo(f"Error: {sentence}", err=True)
        raise typer.Exit(2) from error
    with progress() as told:
        findings = puma.health(project, device, told)
    rows = {name: len(getattr(project, name) or ()) for name in ("train", "validation", "test")}
    show(
        {
            "name": project.name,
            "rows": rows,
            "task": project.task.name,
            "loss": str(project.loss),
            "classes": list(project.class_names or ()),
            "fingerprint": project.fingerprint,
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
    )


@app.command(epilog=examples("reproduce fig6", "reproduce all --seeds 3 --output figures"))
def reproduce(
    figure: Annotated[str, typer.Argument(help="fig3, fig4, fig5, fig6, fig7, fig8, fig9, or all.")],
    output: Annotated[Path, typer.Option(help="The folder that pages, tables and settings go to.")] = Path(
        "reproduced"
    ),
    seeds: Annotated[
        int | None, typer.Option(help="How many repetitions, each with its own seed.", min=1)
    ] = None,
    mnist: Annotated[
        Path | None, typer.Option(help="The folder with the four files of MNIST, for fig7.")
    ] = None,
) -> None:
    """Runs an experiment of the PUMA paper and says what agrees.

    A page with the picture, its tables as CSV, and the settings, seeds and versions as JSON go to the folder.
    MNIST comes from --mnist, from PUMA_DASH_MNIST, or from openml.org; else digits stand in.
    """
    from puma_dash.core.experiments import EXPERIMENTS
    from puma_dash.core.loaders.mnist import FOLDER
    from puma_dash.core.registry import resolve
    from puma_dash.ui.experiments import write

    if mnist is not None:
        os.environ[FOLDER] = str(mnist)
    done = {}
    try:
        for key in EXPERIMENTS if figure == "all" else [figure]:
            experiment = resolve(EXPERIMENTS, key, "figure")
            experiment = dataclasses.replace(experiment, seeds=seeds or experiment.seeds)
            start = time.perf_counter()
            with progress() as told:
                found = experiment(told)
            files = write(key, experiment, found, time.perf_counter() - start, output)
            done[key] = {"told": found.told, "files": [str(path) for path in files]}
    finally:
        if done:  # also where the last one finds no MNIST
            show(done)


for command, shown in (
    (
        cli_method.value,
        (
            "value digits --top 10",
            "value adult --criterion demographic_parity --output psi.parquet",
            'value adult --criterion \'cross_entropy(group=("sex", "Female"))\'',
            "value digits --method self_influence --output scores.csv",
        ),
    ),
    (
        cli_method.forecast,
        (
            "forecast digits --top 100",
            "forecast digits --rows marked.csv --hold cross_entropy --hold calibration",
            "forecast digits --top 50 --output strengths.csv",
        ),
    ),
    (
        cli_method.patch,
        (
            "patch digits --top 100 --steps 3",
            "patch adult --criterion demographic_parity --hold demographic_parity --hold cross_entropy=0.002",
            "patch digits --scores shapley.csv --top 50",
            "patch digits --rows wrong.csv --relabel prediction --output relabelled.safetensors",
        ),
    ),
    (
        cli_method.compare,
        (
            "compare digits --patch patched.safetensors",
            "compare digits --patch patched.safetensors --split test --against retrain --output c.csv",
        ),
    ),
    (cli_method.report, ("report digits --patch patched.safetensors --output report.html",)),
):
    app.command(epilog=examples(*shown))(command)


@app.command(epilog=examples("replay 7"))
def replay(
    entry: Annotated[int, typer.Argument(help="The entry of the ledger, as the History page names it.")],
    home: Annotated[
        Path | None, typer.Option(help="The folder that the app keeps its things in, if not the usual one.")
    ] = None,
) -> None:
    """Makes a patch of the ledger again and says what fits.

    Exit code 1 where something does not.
    """
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
    if has_code(source) and Path.cwd().is_relative_to(Path(root).resolve()):
        raise ProjectError(
            "expected to be started outside of the root, since code is imported from where one starts, and "
            f"others may write below {root}; try cd to another folder."
        )
    os.environ[ROOT] = str(Path(root).resolve())


def main() -> None:
    """Runs the command line; what a user can mend is one sentence and exit code 2, without a traceback.

    Faults of our own get a code, too: 1 says something of a patch.
    """
    from puma_dash.core.types import ProjectError

    try:
        app()
    except ProjectError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(70) from None
