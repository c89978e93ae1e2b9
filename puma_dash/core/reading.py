"""Scores and lists of rows from files, of our own or of other tools.

A file says by a column ``row``, or by the column that names the project's rows, which line is about which
training row. Scores without either are one per training row, in their order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.saved import ROW, Ids, id_texts, ids_of
from puma_dash.core.types import Project, ProjectError, Selection, Valuation, listing

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("psi", "score", "scores")
"""What a column of scores is called where a file has several columns of numbers."""
READ = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".json", ".npy")


def read_scores(
    path: str | Path, project: Project, column: str | None = None, *, negate: bool = False
) -> Valuation:
    """Scores of another tool, or those that ``Valuation.save`` wrote; used like our own from then on.

    Args:
        path: CSV, Parquet, JSON (numbers, or objects with the names of columns), text (a number a line) or
            .npy. A column ``row`` (from 0), or the one that names the project's rows, says whose score it
            is; without either there is one per training row, in their order.
        project: whose training rows they are of.
        column: of the scores, where the file has several.
        negate: high scores are the suspicious ones in that file; for every method here it is the low ones.

    Raises:
        ProjectError: a row has no score or two, a score is no number, or the rows are not this project's.
    """
    scores, used = scores_in(Path(path), len(project.train), ids_of(project.train), column)
    return Valuation(
        scores=-scores if negate else scores,
        method=f"read from {Path(path).name}",
        criterion=used,
        fingerprint=project.fingerprint,
        diagnostics={"file": str(path), "column": used, "negated": negate},
    )


def scores_in(path: Path, n: int, ids: Ids | None, column: str | None = None) -> tuple[np.ndarray, str]:
    """Scores (n,) of the training rows in a file, and the column they were in; see ``read_scores``."""
    frame = _table(path, ids)
    rows = _rows(frame, n, ids, path.name)
    name = _score_column(frame, ids, column, path.name)
    values = _numbers(frame[name])
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        which = bad if rows is None else rows[bad]
        raise ProjectError(
            f"expected a finite number as the score of every training row, but in {path.name} rows "
            f"{listing(which.tolist())} have none; try scoring them again."
        )
    if rows is None:
        if len(values) != n:
            raise ProjectError(
                f"expected {n:,} scores, one per training row, but {path.name} has {len(values):,}; "
                f"try a column {_column_words(ids)} that says which row each is of."
            )
        return values, name
    left = np.setdiff1d(np.arange(n), rows)
    if len(left):
        raise ProjectError(
            f"expected a score for each of the {n:,} training rows, but {path.name} has none for rows "
            f"{listing(left.tolist())}; try scoring all of them."
        )
    scores = np.empty(n)
    scores[rows] = values
    return scores, name


def read_rows(path: str | Path, project: Project) -> Selection:
    """The training rows that a file names, by row number or by id.

    Args:
        path: CSV, Parquet or JSON with a column ``row`` (from 0) or the one that names the project's rows,
            other columns left aside; or a list: a text file with one a line, a JSON list, .npy. Numbers in a
            list are row numbers.
        project: whose training rows they are.

    Raises:
        ProjectError: a row is not there or named twice.
    """
    path, n, ids = Path(path), len(project.train), ids_of(project.train)
    frame = _table(path, ids)
    found = _rows(frame, n, ids, path.name)
    if found is None and len(frame.columns) == 1:
        listed = frame.iloc[:, 0]
        by_id = ids is not None and listed.dtype.kind not in "iuf"
        found = _rows(frame.set_axis([ids.name if by_id and ids else ROW], axis=1), n, ids, path.name)
    if found is None:
        raise ProjectError(
            f"expected a column {_column_words(ids)} in {path.name}, but it has "
            f"{', '.join(frame.columns[:12])}."
        )
    return Selection(found, f"rows of {path.name}")


def _table(path: Path, ids: Ids | None) -> pd.DataFrame:
    """The table in a file, its columns named by text; a list is one column without a name."""
    import pandas as pd

    from puma_dash.core.loaders.base import Folder, opened, reading
    from puma_dash.core.loaders.npy import read_array
    from puma_dash.core.loaders.tables import Tables, read_table

    if path.suffix not in READ:
        raise ProjectError(f"expected a file name that ends in {', '.join(READ)}, but got {path.name!r}.")
    if not path.is_file():
        raise ProjectError(f"expected a file at {path}, but there is none.")
    if path.suffix == ".npy":
        array = np.asarray(read_array(path.name, Folder(path.resolve().parent)))
        if array.size != len(array):
            raise ProjectError(f"expected one value per row in {path.name}, but its shape is {array.shape}.")
        return pd.DataFrame({"": array.reshape(-1)})
    if path.suffix not in (".txt", ".json"):
        frame = read_table(path, Tables(separator="\t" if path.suffix == ".tsv" else ","))
        if len(frame.columns) == 1 and np.isfinite(_numbers(frame.columns.to_series())).all():
            frame = read_table(path, Tables(header=("score",)))  # its first line is no name
        return frame.set_axis(frame.columns.astype(str), axis=1)
    with reading(path, "a table"), opened(path) as file:
        text = file.read().decode("utf-8-sig")
        if path.suffix == ".json":
            held = json.loads(text)
            held = held.get("rows", held) if isinstance(held, dict) else held
        else:
            held = [line.strip() for line in text.splitlines() if line.strip()]
            if held and held[0] in (ROW, "id", ids.name if ids else ROW):
                held = {held[0]: held[1:]}
        plain = isinstance(held, list) and not any(isinstance(item, dict) for item in held)
        frame = pd.DataFrame({"": held} if plain else held)
    if not len(frame):
        raise ProjectError(f"expected rows in {path.name}, but it has none.")
    if path.suffix == ".txt" and np.isfinite(numbers := _numbers(frame.iloc[:, 0])).all():
        frame = pd.DataFrame({frame.columns[0]: numbers})
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _rows(frame: pd.DataFrame, n: int, ids: Ids | None, file: str) -> np.ndarray | None:
    """The training row (m,) of each line, or None where no column says it."""
    import pandas as pd

    key = _key(frame, ids)
    if ROW in frame:
        numbers = _numbers(frame[ROW])
        odd = numbers != np.floor(numbers)  # nan != nan
        if odd.any():
            raise ProjectError(
                f"expected whole row numbers in {file}, but got {listing(map(str, frame[ROW][odd]))}."
            )
        outside = numbers[(numbers < 0) | (numbers >= n)]
        if len(outside):
            raise ProjectError(
                f"expected training rows 0 to {n - 1} in {file}, but got {outside[0]:.0f}; "
                "try the file of this project's own rows."
            )
        rows = numbers.astype(np.int64)
    elif ids is not None and key is not None:
        rows = pd.Index(ids.values).get_indexer(id_texts(frame[key]))
        if (rows < 0).any():
            raise ProjectError(
                f"expected values of {ids.name} that the training rows have, but in {file} there are "
                f"{listing(map(str, frame[key][rows < 0]))}; try the file of this project's own rows."
            )
    elif key is not None:
        raise ProjectError(
            f"expected a column {ROW} in {file}, since this project's rows have no names, but it names them "
            f"by {key}; try without that column if there is one line per training row, in their order."
        )
    else:
        return None
    numbers, times = np.unique(rows, return_counts=True)
    if (times > 1).any():
        raise ProjectError(
            f"expected each training row once in {file}, but rows {listing(numbers[times > 1].tolist())} "
            "come again; try leaving one line of each."
        )
    if ids is not None and key is not None:
        moved = id_texts(frame[key]) != ids.values[rows]
        if moved.any():
            raise ProjectError(
                f"expected row and {key} in {file} to name the same training row, but they do not for rows "
                f"{listing(rows[moved].tolist())}: it was written for other data; try without one of the two."
            )
    return rows


def _key(frame: pd.DataFrame, ids: Ids | None) -> str | None:
    """The column that names the rows: called so, or without row numbers the one with texts like the ids."""
    named = [name for name in (ids.name, "id") if name in frame] if ids is not None else []
    if named or ROW in frame or len(frame.columns) == 1:
        return named[0] if named else None
    texts = {name: id_texts(frame[name]) for name in frame if frame[name].dtype.kind == "O"}
    names = [name for name, found in texts.items() if len(set(found)) == len(found)]
    return max(names, key=lambda name: np.isin(texts[name], ids.values).sum() if ids else 0, default=None)


def _numbers(column: pd.Series) -> np.ndarray:
    """A column (m,) as float64, nan where it holds no number."""
    import pandas as pd

    if column.dtype.kind not in "iuf":
        column = pd.to_numeric(column.astype(str), errors="coerce")
    return column.to_numpy(np.float64, na_value=np.nan)


def _score_column(frame: pd.DataFrame, ids: Ids | None, column: str | None, file: str) -> str:
    """The column of the scores."""
    others = [name for name in frame if name not in (ROW, "id", ids.name if ids else ROW)]
    if column is not None:
        if column not in frame:
            raise ProjectError(
                f"expected a column {column!r} in {file}, but it has {', '.join(frame.columns[:12])}."
            )
        return column
    numbers = [name for name in others if frame[name].dtype.kind in "iuf"] or others
    known = [name for name in numbers if name in SCORES] if len(numbers) > 1 else numbers
    if len(known) != 1:
        has = f"{len(numbers)} ({', '.join(numbers[:8])}); try naming one" if numbers else "none"
        raise ProjectError(f"expected one column of scores in {file}, but it has {has}.")
    return known[0]


def _column_words(ids: Ids | None) -> str:
    return f"{ROW} or {ids.name}" if ids is not None else ROW
