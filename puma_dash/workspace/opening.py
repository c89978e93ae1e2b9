"""What the worker does to open files: load a folder, unpack an upload, write the project.toml it lacks."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from puma_dash.core.engine import CancelEvent, Progress
from puma_dash.core.loaders import unpack as unpacking
from puma_dash.core.loaders.base import FILE
from puma_dash.core.loaders.project_folder import open_folder, problems
from puma_dash.core.loaders.starter import WEIGHTS, guesses, start, told
from puma_dash.core.loaders.tables import Tables, read_table
from puma_dash.core.objective import LOSSES
from puma_dash.core.types import Project, ProjectError
from puma_dash.workspace.places import Place, place, root
from puma_dash.workspace.uploads import UPLOAD, Upload, load

TARGETS = ("target", "label", "class", "y")
"""What the column with the labels is often called."""
ONE_FILE = (*Tables.suffixes, ".npz")
"""How the names of files end that are all of a split; pictures are a folder."""


def of_files(source: str) -> Project | None:
    """The project of an upload or of a folder below the root; None where ``source`` is neither.

    Raises:
        ProjectError: all that is wrong with it, a paragraph each.
    """
    found, top = place(source), root()
    if found is not None:
        try:
            return open_folder(*found)
        except ProjectError as error:
            raise ProjectError("\n\n".join(problems(*found)) or str(error)) from error
    if source.startswith(UPLOAD):
        raise ProjectError(
            "expected an upload that is on this server, but it was deleted, or never was here; "
            "try uploading its archive again: the same archive is the same project."
        )
    if top is not None and Path(source).is_relative_to(top):
        raise ProjectError(
            "expected a project folder below the allowed one, without links that lead out of it, but "
            f"{source!r} is none any more; try moving it there."
        )
    return None


def unpack(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Unpacks an upload and finds out what is wrong with the project in it, which the upload then says."""
    upload = _known(params["upload"])
    if upload.ready or not upload.archive.exists():
        return {}
    shutil.rmtree(upload.files, ignore_errors=True)  # of a worker that was stopped

    def unpacked(done: float, total: float, message: str) -> None:
        progress(0.7 * done / max(total, 1), 1, message)

    try:
        limits = replace(unpacking.Limits(), packed=params["packed"])
        path = unpacking.unpack(upload.archive, upload.files, limits, unpacked)
    except ProjectError as refused:
        upload.keep(problems=(str(refused),))
        return {}
    finally:
        upload.archive.unlink(missing_ok=True)
    progress(0.7, 1, "Checking the model and the rows")
    upload = replace(upload, folder=str(path.relative_to(upload.files)))
    if (path / FILE).exists():
        upload.keep(problems=_problems(upload))
    else:
        upload.keep(problems=(_lacking(path),), choices=_choices(path))
    return {}


def describe(params: dict[str, Any], progress: Progress, cancel: CancelEvent) -> dict[str, Any]:
    """Writes the project.toml that an upload lacks, from what its user says of the files."""
    upload, answers = _known(params["upload"]), params["answers"]
    progress(0, 1, f"Writing {FILE}")
    _check_answers(upload, answers)
    (upload.path / FILE).unlink(missing_ok=True)  # of answers that did not fit
    try:
        settings = {"name": Path(upload.name).stem, **told(answers, [])}
        remarks = start(upload.path, settings, upload.files)
    except ProjectError as error:
        upload.keep(problems=(str(error),), remarks=())
        return {}
    progress(0.5, 1, "Checking the model and the rows")
    upload.keep(problems=_problems(upload), remarks=tuple(remarks))
    return {}


def _known(upload_id: str) -> Upload:
    upload = load(upload_id)
    if upload is None:
        raise ProjectError("expected an upload, but it was deleted meanwhile; try uploading it again.")
    return upload


def _problems(upload: Upload) -> tuple[str, ...]:
    return tuple(problems(*Place(upload.path, upload.files, code=False)))


def _lacking(path: Path) -> str:
    """What is missing in a folder without project.toml, and what writes it."""
    names = sorted(each.name + "/" * each.is_dir() for each in path.iterdir())
    return (
        f"expected a {FILE} that says what the files are, but the archive has none among "
        f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}; try puma-dash init FOLDER, which writes "
        "one, and zip the folder again."
    )


def _choices(path: Path) -> dict[str, Any]:
    """What a project.toml for the files in ``path`` could say; empty where no one file is a split."""
    names = sorted(each.name for each in path.iterdir() if not each.name.startswith("."))
    weights = [name for name in names if name.lower().endswith(WEIGHTS)]
    data = [name for name in names if (path / name).is_dir() or _plain(name).endswith(ONE_FILE)]
    if not weights or not data:
        return {}
    guessed = {key: value for key, value in guesses(path).items() if value in (*weights, *data, *LOSSES)}
    guessed = {"train": data[0], **guessed}
    columns: list[str] = []
    if _plain(guessed["train"]).endswith(Tables.suffixes):
        with contextlib.suppress(ProjectError):  # told when it is tried
            columns = [str(name) for name in read_table(path / guessed["train"])]
    usual = [name for name in columns if name.casefold() in TARGETS]
    guessed["target"] = next(iter([*usual, *reversed(columns)]), "")
    return {"weights": weights, "data": data, "columns": columns, "losses": list(LOSSES), "guesses": guessed}


def _plain(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _check_answers(upload: Upload, answers: Mapping[str, Any]) -> None:
    """Refuses answers that were not among the choices: they come from a browser."""
    choices = upload.choices
    known = {name: choices.get("data", []) for name in ("train", "validation", "test")}
    known |= {"target": choices.get("columns", []), "weights": choices.get("weights", [])}
    known |= {"loss": choices.get("losses", [])}
    for name, answer in answers.items():
        if answer and answer not in known.get(name, []):
            raise ProjectError(
                f"expected one of the choices for {name}, but got {answer!r}; try another one."
            )
