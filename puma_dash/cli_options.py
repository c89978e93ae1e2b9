"""What the commands of the method share: options, the rows and criteria they spell, what is printed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.engine import Progress
    from puma_dash.core.types import Project

TOP = 50
PREDICTION = "prediction"


def absolute(source: str) -> str:
    """A folder by its full path: the ledger and the pages know it by one name, wherever the command runs."""
    from puma_dash.ui.text import DEMOS

    return str(Path(source).resolve()) if source not in DEMOS and os.path.exists(source) else source


Source = Annotated[
    str,
    typer.Argument(
        help="A demo (digits, two-moons, radial, mnist), a project folder, or module:factory.",
        callback=absolute,
    ),
]
OfCriterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        help="What psi is about; lower is better. A name (cross_entropy, brier, calibration, margin, ...) "
        "with settings in brackets: 'calibration(of_class=3)', 'cross_entropy(group=(\"sex\", \"Female\"))', "
        "'brier(rows=[3, 7])'. By default the plain loss on validation.",
    ),
]
Top = Annotated[
    int | None, typer.Option(help=f"The rows: how many of the lowest scores. [default: {TOP}]", min=1)
]
Scores = Annotated[
    Path | None, typer.Option(help="Rank by the scores in this file, ours or another tool's, not by psi.")
]
Column = Annotated[str | None, typer.Option(help="Column of the scores, where the file has several.")]
Negate = Annotated[bool, typer.Option("--negate", help="High scores in the file are the suspicious ones.")]
RowsFile = Annotated[
    Path | None,
    typer.Option("--rows", help="The rows: exactly those of this file, in a column row or id, or a list."),
]
Relabel = Annotated[
    str | None,
    typer.Option(
        help=f"Give the rows this label (class name or number, or a value) instead of removing them; "
        f"'{PREDICTION}' is what the model says of each."
    ),
]
Upweight = Annotated[
    float | None, typer.Option(help="Count the rows 1 + this many times instead of removing them.")
]
Hold = Annotated[
    list[str] | None,
    typer.Option(
        help="A criterion that must not get worse, several times; '=' and how much it may: "
        "'calibration=0.01'. By default the one that psi is about."
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help="puma, influence, retrain, fine_tune, ...; settings in brackets: 'puma(sparsity=0.5)'."
    ),
]
Strength = Annotated[float, typer.Option(help="How much of the whole change; 1 is all of it.")]
Curvature = Annotated[
    str,
    typer.Option(help="auto, dense, conjugate_gradient, kfac, ...: 'conjugate_gradient(fidelity=0.999)'."),
]
Parameters = Annotated[
    str,
    typer.Option(help="Which take part: all, last (the last layer) or a pattern of names ('blocks.3.*')."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. By default CUDA where there is one.")]
Seed = Annotated[int, typer.Option(help="Of whatever is drawn.", min=0)]


def examples(*commands: str) -> str:
    """The end of a help text."""
    return "\n".join(["\b", "Examples:", *(f"  puma-dash {command}" for command in commands)])


def has_code(source: str) -> bool:
    """Whether a source needs modules from the current folder: a function, or factories that are trusted.

    Not otherwise: a torch.py that lies beside somebody's model must not be imported as PyTorch.
    """
    from puma_dash.ui.text import DEMOS

    named = source not in DEMOS and not os.path.exists(source)
    return named or bool(os.environ.get("PUMA_DASH_FACTORIES"))


def load(source: str) -> Project:
    """The project of that source; a module may lie in the current folder."""
    if has_code(source):
        sys.path.append(os.getcwd())  # last: nothing in it stands for a library
    import puma_dash as puma

    return puma.load(source)


def criterion(text: str | None) -> Criterion | None:
    """The criterion that an option spells."""
    from puma_dash.core.criteria import CRITERIA
    from puma_dash.core.registry import parsed

    return None if text is None else parsed(CRITERIA, text, "criterion")


def curvature(text: str) -> Any:
    """The curvature that an option spells."""
    from puma_dash.core.curvature import CURVATURES
    from puma_dash.core.registry import parsed

    return text if text == "auto" else parsed(CURVATURES, text, "curvature")


def method(text: str) -> Any:
    """The unlearning method that an option spells."""
    from puma_dash.core.registry import parsed
    from puma_dash.core.unlearning import UNLEARNERS

    return parsed(UNLEARNERS, text, "unlearning method")


def held(project: Project, texts: Sequence[str], default: Criterion | None) -> dict[str, Any]:
    """The fields of a plan that say what must hold, from ``--hold`` and, without it, the criterion of psi."""
    from puma_dash.core.criteria import resolve_criterion
    from puma_dash.core.types import ProjectError

    if not texts:
        return {"hold": (resolve_criterion(default or project.task.criterion),)}
    found, tolerance = [], {}
    for text in texts:
        spelled = re.fullmatch(r"\s*(\w+\s*(?:\(.*\))?)\s*(?:=\s*([\d.eE+-]+))?\s*", text, re.DOTALL)
        try:
            allowed = float(spelled[2] or 0) if spelled else None
        except ValueError:
            allowed = None
        if spelled is None or allowed is None:
            raise ProjectError(
                f"expected --hold CRITERION or CRITERION=TOLERANCE, but got {text!r}; try calibration=0.01."
            )
        made = criterion(spelled[1])
        assert made is not None
        found.append(made)
        tolerance[made.name] = allowed
    return {"hold": tuple(found), "tolerance": tolerance}


def chosen(
    project: Project,
    top: int | None,
    rows: Path | None,
    scores: Path | None,
    column: str | None,
    negate: bool,
    **psi: Any,
) -> np.ndarray:
    """The rows (m,) that the options choose: those of a file, or the lowest scores of a file or of psi."""
    import puma_dash as puma

    if rows is not None:
        if top is not None or scores is not None:
            raise puma.ProjectError(
                "expected the rows of a file (--rows) or the lowest scores (--top, --scores), but got both; "
                "try one of them."
            )
        return puma.read_rows(rows, project).rows
    if scores is not None:
        return puma.read_scores(scores, project, column, negate=negate).harmful(top or TOP)
    return puma.value(project, **psi).harmful(top or TOP)


def marked(project: Project, rows: np.ndarray, relabel: str | None, upweight: float | None) -> dict[str, Any]:
    """The fields of a plan that say what becomes of ``rows``: removed, unless told otherwise."""
    from puma_dash.core.types import ProjectError

    if relabel is not None and upweight is not None:
        raise ProjectError("expected --relabel or --upweight, but got both; try one patch after the other.")
    if upweight is not None:
        return {"upweight": dict.fromkeys(rows.tolist(), upweight)}
    if relabel is None:
        return {"remove": tuple(rows.tolist())}
    return {"relabel": relabels(project, rows, relabel)}


def relabels(project: Project, rows: np.ndarray, label: str) -> dict[int, Any]:
    """Row -> its new label; rows that have it already are left as they are."""
    import numpy as np

    from puma_dash.core.criteria.base import class_number
    from puma_dash.core.engine import engine_of
    from puma_dash.core.task import CLASSIFICATION
    from puma_dash.core.types import ProjectError

    targets, classes = project.train.targets.numpy(force=True)[rows], project.task is CLASSIFICATION
    new: Any
    if label == PREDICTION and label not in project.classes:
        engine = engine_of(project)
        answers = engine.answers(engine.training_outputs)[rows]
        new = answers.argmax(1) if classes else answers.astype(targets.dtype)
    elif classes:
        number = int(label) if label.isdigit() and label not in project.classes else label
        new = np.full(len(rows), class_number(project, number))
    else:
        try:
            new = np.full_like(targets, float(label))
        except ValueError:
            raise ProjectError(f"expected --relabel NUMBER or {PREDICTION}, but got {label!r}.") from None
    changed = (new != targets).reshape(len(rows), -1).any(1)
    if not changed.any():
        raise ProjectError(
            f"expected rows that get another label, but all {len(rows)} have {label!r} already."
        )
    return dict(zip(rows[changed].tolist(), new[changed].tolist(), strict=True))


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar on stderr for the time of one call, where a person looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()
    with Bar(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done, total, message: bar.update(
            task, completed=done / max(total, 1e-12), description=message
        )


def show(found: dict[str, Any]) -> None:
    """Prints ``found`` as JSON."""
    from puma_dash.core.saved import finite

    typer.echo(json.dumps(finite(found), indent=2, allow_nan=False))
