"""Where projects may be opened from: folders below one that the server allows, and uploads."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import NamedTuple

from puma_dash.core.loaders.base import FILE
from puma_dash.workspace.store import home
from puma_dash.workspace.uploads import UPLOAD, load

ROOT = "PUMA_DASH_ROOT"
"""Environment variable with the folder below which project folders may be opened; none by default."""
LONGEST = 500
"""Characters of a source, as the ledger keeps it."""
DEEPEST = 4
MOST_FOLDERS = 5_000
MOST_PROJECTS = 500
LARGEST = 2**20
"""Bytes of a project.toml that is read for its name only."""


class Place(NamedTuple):
    """Where a project lies, as ``open_folder`` takes it.

    Args:
        path: the project folder.
        root: nothing outside of it is opened.
        code: whether it may name code that the server trusts.
    """

    path: Path
    root: Path
    code: bool


class Found(NamedTuple):
    """A project folder below the root.

    Args:
        source: what ledger and URLs call it: its full path.
        name: what its project.toml calls it.
        where: its path from the root.
    """

    source: str
    name: str
    where: str


def root() -> Path | None:
    """The folder below which project folders may be opened, or None where none is allowed."""
    told = os.environ.get(ROOT)
    return Path(told).resolve() if told and os.path.isdir(told) else None


def place(source: str) -> Place | None:
    """The place that ``source`` names (it may come from a URL), or None where it names none to open.

    A folder has one name only: its full path, without links and detours.
    """
    if source.startswith(UPLOAD):
        upload = load(source.removeprefix(UPLOAD))
        return Place(upload.path, upload.files, code=False) if upload is not None and upload.ready else None
    top = root()
    if top is None or not source.startswith(os.sep) or len(source) > LONGEST:
        return None
    try:
        path = Path(source).resolve()
        toml = (path / FILE).resolve()
        there = str(path) == source and toml.is_file()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name too long, a zero in it
        return None
    own = home().resolve()  # uploads, too, which have rules of their own
    inside = all(each.is_relative_to(top) and not each.is_relative_to(own) for each in (path, toml))
    return Place(path, top, code=True) if there and inside else None


def projects_below(top: Path) -> tuple[list[Found], bool]:
    """The project folders below ``top``, by path, and False where there are more than anybody looks at.

    It is not looked deep; hidden folders, links and what lies inside of a project folder do not count.
    """
    found: list[Found] = []
    level, looked = [top], 0
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            if looked == MOST_FOLDERS or len(found) == MOST_PROJECTS:
                return sorted(found, key=lambda each: each.where), False
            looked += 1
            if place(str(folder)) is not None:
                found.append(Found(str(folder), _name(folder), str(folder.relative_to(top))))
            else:
                below += _folders(folder)
        level = below
    return sorted(found, key=lambda each: each.where), True


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            inside = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    except OSError:  # not ours to read, or gone
        return []
    return [folder / name for name in sorted(inside) if not name.startswith(".")]


def _name(folder: Path) -> str:
    """What the project.toml calls the project; the folder's name where it does not say, or cannot be read."""
    try:
        if (folder / FILE).stat().st_size <= LARGEST:
            name = tomllib.loads((folder / FILE).read_text("utf-8")).get("name")
            return name[:LONGEST] if isinstance(name, str) and name.strip() else folder.name
    except (OSError, ValueError, RecursionError):
        pass
    return folder.name


def title(source: str) -> str:
    """What people call a source before its project is loaded."""
    upload = load(source.removeprefix(UPLOAD)) if source.startswith(UPLOAD) else None
    return upload.name if upload is not None else Path(source).name if source.startswith(os.sep) else source
