"""Tables: CSV and the like, gzipped or not, and Parquet."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.loaders.base import (
    Files,
    Folder,
    Rows,
    about,
    check_columns,
    check_fits,
    names,
    opened,
    reading,
)
from puma_dash.core.loaders.encoding import (
    Categorical,
    Column,
    Numeric,
    column_of,
    encode,
    to_numbers,
    to_texts,
)
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tables(Described):
    """CSV or Parquet: columns of numbers and of categories, by an encoding that is stored."""

    label = "tables"
    reference = "RFC 4180 (2005), CSV files; Apache Parquet"
    suffixes = (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq")
    parts = ("inputs",)

    target: tuple[str, ...] = field(
        default=(), metadata={"help": "Column with the label, or columns with the values to predict."}
    )
    columns: tuple[tuple[str, Column], ...] = field(
        default=(),
        metadata={
            "help": "The model's input columns in its order, each with its encoding; a list of names "
            "for numbers as they are."
        },
    )
    id: str = field(default="", metadata={"help": "Column that names each row."})
    groups: tuple[str, ...] = field(
        default=(), metadata={"help": "Columns with groups of people or the like."}
    )
    weights: str = field(default="", metadata={"help": "Column with the rows' training weights."})
    meta: tuple[str, ...] | None = field(
        default=None, metadata={"help": "Further columns to keep for colouring and filtering; None for all."}
    )
    separator: str = field(default=",", metadata={"help": "The character between two fields of a text file."})
    header: tuple[str, ...] = field(
        default=(), metadata={"help": "Names of the columns, of a text file whose first line has none."}
    )
    missing: tuple[str, ...] = field(
        default=(), metadata={"help": "Texts that stand for no value, besides nothing at all."}
    )
    comment: str = field(default="", metadata={"help": "The character that opens a comment in a text file."})

    def __post_init__(self) -> None:
        """Checks the fields and brings columns into one form."""
        super().__post_init__()
        for name in ("target", "groups", "header", "missing"):
            object.__setattr__(self, name, names(getattr(self, name), name))
        if self.meta is not None:
            object.__setattr__(self, "meta", names(self.meta, "meta"))
        if len(self.separator) != 1 or len(self.comment) > 1:
            raise ProjectError(
                f"expected separator and comment to be one character each, but got {self.separator!r} and "
                f'{self.comment!r}; try separator = ",".'
            )
        columns: Any = self.columns
        if not isinstance(columns, Mapping):
            pairs = isinstance(columns, tuple) and bool(columns) and isinstance(columns[0], tuple)
            columns = dict(columns) if pairs else {name: Numeric() for name in names(columns, "columns")}
        found = tuple((name, column_of(entry, name)) for name, entry in columns.items())
        object.__setattr__(self, "columns", found)

    def __call__(self, files: Files, folder: Folder) -> Rows:
        """The rows of one split: "inputs" names the table.

        Raises:
            ProjectError: a column is missing, or holds what its encoding does not take.
        """
        file, frame = files["inputs"], self.frame(files, folder)
        if not self.columns:
            raise ProjectError(
                f"expected [data.columns] to say how the columns of {file} become the model's inputs, but it "
                "is missing; try puma-dash init, which writes it from the training rows."
            )
        inputs = encode(frame, dict(self.columns), file)
        weights = (
            to_numbers(frame[self.weights], f"the column {self.weights!r} of {file}")
            if self.weights
            else None
        )
        kept = frame.drop(columns=[*self.target, *filter(None, [self.weights])])
        if self.meta is not None:
            kept = kept[[name for name in kept if name in {*self.meta, *self.groups, self.id}]]
        groups, meta = about(kept, self.id, self.groups, file)
        targets = np.stack([to_texts(frame[name]).to_numpy(object) for name in self.target], axis=1)
        return Rows(inputs, targets[:, 0] if len(self.target) == 1 else targets, meta, weights, groups)

    def frame(self, files: Files, folder: Folder) -> pd.DataFrame:
        """The table of a split, with every column that the settings name."""
        path = folder.find(files["inputs"])
        frame = read_table(path, self)
        if not self.target:
            raise ProjectError(
                "expected target in [data] to name the column with the labels, but it does not; the columns "
                f"of {path.name} are {', '.join(map(str, frame.columns[:12]))}."
            )
        named = (*self.target, *(name for name, _ in self.columns), *self.groups, *(self.meta or ()))
        check_columns(frame, (*named, *filter(None, [self.id, self.weights])), path.name)
        leaked = [name for name, _ in self.columns if name in self.target]
        if leaked:
            raise ProjectError(
                f"expected the target not to be an input, but {leaked[0]!r} is in [data.columns] too; "
                "try leaving it out there."
            )
        return frame


def read_table(path: Path, settings: Tables | None = None) -> pd.DataFrame:
    """The table in a CSV or Parquet file; categories and targets come as texts.

    Raises:
        ProjectError: there is no such table in the file.
    """
    settings = settings or Tables()
    read = _parquet if path.suffix in (".parquet", ".pq") else _text
    with reading(path, "a table"):
        frame = read(path, settings)
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise ProjectError(f"expected a name for every column of {path.name}, but got {twice[0]!r} twice.")
    if not len(frame):
        raise ProjectError(f"expected rows in {path.name}, but it has none below the names of its columns.")
    return frame


def _text(path: Path, settings: Tables) -> pd.DataFrame:
    import pandas as pd

    told: dict[str, Any] = {
        "sep": settings.separator,
        "comment": settings.comment or None,
        "skipinitialspace": True,
        "index_col": False,
        "encoding": "utf-8-sig",
    }
    with opened(path) as file:
        first = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False, **told)
    found = tuple(str(name).strip() for name in first.iloc[0])
    if settings.header and len(settings.header) != len(found):
        raise ProjectError(
            f"expected {len(found)} names in header, one per column of {path.name}, but got "
            f"{len(settings.header)}."
        )
    columns = settings.header or found
    if len(set(columns)) < len(columns):
        return first.set_axis(columns, axis=1)  # which read_table refuses
    texts = {*settings.target, *(name for name, kind in settings.columns if isinstance(kind, Categorical))}
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # fields lost are a broken file
        return pd.read_csv(
            file,
            header=None if settings.header else 0,
            names=columns,
            dtype=dict.fromkeys(texts & set(columns), str),
            keep_default_na=False,
            na_values=["", *settings.missing],
            low_memory=False,
            **told,
        )


def _parquet(path: Path, settings: Tables) -> pd.DataFrame:
    import pandas as pd
    from pyarrow import parquet

    told = parquet.read_metadata(path)
    check_fits(8 * told.num_rows * told.num_columns, path.name)
    frame = pd.read_parquet(path, dtype_backend="numpy_nullable").reset_index(drop=True)
    odd = [name for name in frame if frame[name].dtype == object]  # lists, decimals, bytes
    frame = frame.astype(dict.fromkeys(odd, "string"))
    return frame.replace(list(settings.missing), pd.NA) if settings.missing else frame
