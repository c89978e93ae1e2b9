"""What every loader shares: finding files, reading broken ones, and what is known of the rows."""

from __future__ import annotations

import difflib
import gzip
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FILE = "project.toml"
"""What says of a folder that it is a project."""
Files = Mapping[str, str]
"""What a split is made of: "inputs", and maybe "targets", "weights" and "rows", each a name in the folder."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a loader reads for one split.

    Args:
        inputs: (n, ...) numbers.
        targets: (n,) or (n, k) numbers, or class names as text (n,), None where missing.
        meta: DataFrame of n rows, with what names each row under "id".
        weights: (n,) training weights, or None.
        groups: DataFrame of n rows, or None.
        class_names: what the source calls its classes, in order; empty where it does not.
    """

    inputs: np.ndarray
    targets: np.ndarray
    meta: pd.DataFrame
    weights: np.ndarray | None = None
    groups: pd.DataFrame | None = None
    class_names: tuple[str, ...] = ()


class Loader(Protocol):
    """A kind of data: a frozen dataclass of the settings under [data], called for each split."""

    suffixes: tuple[str, ...]
    """How the names of its files end, before any .gz; "/" stands for a folder."""
    parts: tuple[str, ...]
    """What a split may name."""

    def __call__(self, files: Files, folder: Folder) -> Rows:
        """The rows of one split."""


@dataclass(frozen=True)
class Folder:
    """Where a project's files lie.

    Args:
        path: the project folder, which relative names start from.
        root: no file outside this folder is opened, by whatever links; None for no such limit.
        code: whether its project.toml may name a factory, of a module that the server trusts.
    """

    path: Path
    root: Path | None = None
    code: bool = True

    def find(self, name: Any) -> Path:
        """The file or folder called ``name``.

        Raises:
            ProjectError: there is none, it is a device or the like, or it lies outside ``root``.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ProjectError(
                f'expected the name of a file, but got {name!r}; try a name such as "train.csv".'
            )
        try:
            path = (self.path / name).resolve()
            if self.root is not None and not path.is_relative_to(self.root.resolve()):
                raise ProjectError(
                    f"expected files inside the folder {self.root.name}, but {name!r} leads out of it; "
                    "try moving the file into it."
                )
            there = path.exists()
        except (OSError, RuntimeError) as error:  # a name too long, a circle of links
            raise ProjectError(
                f"expected a file, but {name[:80]!r} cannot be followed ({_first_line(error)})."
            ) from error
        if not there:
            beside = sorted(other.name for other in self.path.iterdir()) if self.path.is_dir() else []
            raise ProjectError(
                f"expected a file {name!r} in the folder {self.path.name}, but there is none"
                f"{_nearest(name, beside) or '; try putting it there'}."
            )
        if not (path.is_file() or path.is_dir()):
            raise ProjectError(f"expected {name!r} to be a file or a folder, but it is neither.")
        return path


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a reader makes of a broken file into one sentence.

    Raises:
        ProjectError: the file cannot be read.
    """
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # what a parser raises on a broken file is anyone's guess
        raise ProjectError(
            f"expected {what} in {path.name}, but it cannot be read ({_first_line(error)}); "
            "try opening it with the program that wrote it."
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it is gzipped, up to what the memory takes."""
    with path.open("rb") as plain:
        if plain.read(2) == b"\x1f\x8b":
            plain.seek(0)
            with gzip.open(plain) as packed:
                yield io.BufferedReader(_Limited(packed, path))
        else:
            plain.seek(0)
            check_fits(path.stat().st_size, path.name)
            yield plain


class _Limited(io.RawIOBase):
    """A stream that refuses to go on once it has given more than the memory takes."""

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path, self.given = stream, path, 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """How many bytes were put into ``buffer``."""
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.given += len(data)
        check_fits(self.given, self.path.name)
        return len(data)


def memory_limit() -> int:
    """Bytes that one array or file may take in memory: half of what the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def check_fits(size: int, what: str) -> None:
    """Refuses what would take more than ``memory_limit()`` bytes."""
    if size > memory_limit():
        raise ProjectError(
            f"expected {what} to fit into half of this machine's memory ({memory_limit() / 2**30:.3g} GiB), "
            f"but it takes {size / 2**30:.3g} GiB or more; try .npy files, which are read as needed."
        )


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuses names that are not ``known``, with the nearest one that is."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ProjectError(
                f"expected settings of {where} ({', '.join(known)}), but got {name!r}{_nearest(name, known)}."
            )


def names(value: Any, field: str) -> tuple[str, ...]:
    """One name or a list of names as a tuple.

    Raises:
        ProjectError: it is neither, or a name comes twice.
    """
    found = (
        (value,)
        if isinstance(value, str) and value
        else tuple(value)
        if isinstance(value, list | tuple)
        else None
    )
    if found is None or not all(isinstance(name, str) for name in found):
        raise ProjectError(f'expected {field} to be a list of texts, but got {value!r}; try ["a", "b"].')
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ProjectError(f"expected {field} to name everything once, but got {listing(twice)} twice.")
    return found


def about(
    frame: pd.DataFrame, key: str, group_columns: tuple[str, ...], file: str
) -> tuple[pd.DataFrame | None, pd.DataFrame]:
    """Groups and meta (n rows each) from the columns known of the rows.

    Where no column names the rows, their numbers in the file do.

    Args:
        frame: n rows.
        key: the column that names each row; "" for one called id, or else the row number in the file.
        group_columns: the columns that name groups.
        file: for messages.

    Raises:
        ProjectError: no such column, or two rows of the same name.
    """
    import numpy as np
    import pandas as pd

    frame = frame.reset_index(drop=True)
    check_columns(frame, (*group_columns, *([key] if key else [])), file)
    key = key or ("id" if "id" in frame.columns else "")
    ids = frame[key] if key else pd.Series(np.arange(len(frame)))
    twice = ids[ids.duplicated()].astype(str)
    if len(twice) or ids.isna().any():
        raise ProjectError(
            f"expected the column {key!r} of {file} to name every row once, but "
            + (f"{listing(twice.unique())} comes again" if len(twice) else "some rows have no name")
            + "; try another id column, or none."
        )
    groups = frame[list(group_columns)] if group_columns else None
    rest = frame.drop(columns=[key, *group_columns] if key else list(group_columns))
    rest = rest.drop(columns="id", errors="ignore")  # one column of that name: the one asked for
    return groups, pd.concat([ids.rename("id"), rest], axis=1)


def check_columns(frame: pd.DataFrame, wanted: Iterable[str], file: str) -> None:
    """Refuses a table without one of the columns ``wanted``."""
    for name in wanted:
        if name not in frame.columns:
            columns = [str(column) for column in frame.columns]
            raise ProjectError(
                f"expected a column {name!r} in {file}, but it has {', '.join(columns[:12])}"
                f"{' ...' if len(columns) > 12 else ''}{_nearest(name, columns)}."
            )


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"; try {close[0]!r}" if close else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
