"""How a column of a table becomes numbers; stored, so that the same file always gives the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.loaders.base import check_fits, names, refuse_unknown
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    import pandas as pd

MOST_VALUES = 200
"""A column of more different texts than this is prose or a name, not a category."""


@dataclass(frozen=True)
class Numeric(Described):
    """(x - mean) / std, one number."""

    mean: float = field(default=0.0, metadata={"help": "Subtracted."})
    std: float = field(default=1.0, metadata={"help": "Divided by.", "min": 1e-300})
    missing: float | None = field(
        default=None, metadata={"help": "What a missing number stands for, in its own unit; None refuses it."}
    )

    width = 1

    def __call__(self, column: pd.Series, where: str) -> np.ndarray:
        """Numbers (n, 1).

        Raises:
            ProjectError: a value is missing or no number.
        """
        values = to_numbers(column, where)
        if self.missing is not None:
            values = np.where(np.isnan(values), self.missing, values)
        elif np.isnan(values).any():
            raise ProjectError(
                f"expected a number in every row of {where}, but rows {_rows(np.isnan(values))} have none; "
                "try missing = NUMBER in its entry of [data.columns]."
            )
        return ((values - self.mean) / self.std)[:, None]


@dataclass(frozen=True)
class Categorical(Described):
    """1 in the place of the value and 0 in those of the others, among them maybe one for what is not listed.

    Values are compared as texts. A missing one counts as other.
    """

    values: tuple[str, ...] = field(default=(), metadata={"help": "The values, in the order of the inputs."})
    base: str | None = field(
        default=None,
        metadata={"help": "The value without a place of its own (all 0); None for no such value."},
    )
    other: str = field(
        default="refuse",
        metadata={
            "help": "What becomes of missing values and of those not listed: refused, a place of their own, "
            "or all 0.",
            "choices": "refuse column zeros",
        },
    )

    def __post_init__(self) -> None:
        """Checks the fields."""
        super().__post_init__()
        object.__setattr__(self, "values", names([str(v) for v in _listed(self.values)], "values"))
        if self.base is not None and self.base not in self.values:
            raise ProjectError(
                f"expected base to be one of the values {', '.join(self.values[:12])}, but got {self.base!r}."
            )

    @property
    def width(self) -> int:
        """Numbers that it makes."""
        return len(self.values) - (self.base is not None) + (self.other == "column")

    def __call__(self, column: pd.Series, where: str) -> np.ndarray:
        """Zeros and ones (n, width).

        Raises:
            ProjectError: a value is missing or not listed, and others are refused.
        """
        import pandas as pd

        codes = pd.Index(self.values, dtype=object).get_indexer(to_texts(column))
        unknown = codes < 0
        if self.other == "refuse" and unknown.any():
            unlisted = column[unknown].dropna().astype(str).unique()
            told = f"have {listing(unlisted)}" if len(unlisted) else "have none"
            raise ProjectError(
                f"expected one of the {len(self.values)} values listed for {where}, but rows "
                f'{_rows(unknown)} {told}; try other = "column" or "zeros" in its entry of [data.columns], '
                "whichever the model was trained with."
            )
        codes[unknown] = len(self.values)  # others come last
        kept = [k for k, value in enumerate(self.values) if value != self.base]
        kept += [len(self.values)] if self.other == "column" else []
        place = np.full(len(self.values) + 1, -1)
        place[kept] = np.arange(len(kept))
        rows = np.flatnonzero(place[codes] >= 0)
        found = np.zeros((len(codes), self.width), dtype=np.float32)
        found[rows, place[codes[rows]]] = 1
        return found


Column = Numeric | Categorical


def column_of(entry: Any, name: str) -> Column:
    """The encoding that an entry of [data.columns] describes: one with values is categorical.

    Raises:
        ProjectError: it describes none.
    """
    if isinstance(entry, Column):
        return entry
    if not isinstance(entry, Mapping):
        raise ProjectError(
            f"expected a table for the column {name!r} in [data.columns], but got {entry!r}; "
            "try { mean = 0.0, std = 1.0 }, or { values = [...] }."
        )
    kind = Categorical if "values" in entry else Numeric
    where = f"the column {name!r} in [data.columns]"
    refuse_unknown(entry, [each.name for each in fields(kind)], where)
    try:
        return kind(**entry)
    except ProjectError as error:
        raise ProjectError(f"{str(error).rstrip('.')} in {where}.") from error


def encode(frame: pd.DataFrame, columns: Mapping[str, Column], file: str) -> np.ndarray:
    """The columns of ``frame`` as inputs (n, d) float32, one encoding after the other."""
    shape = len(frame), sum(column.width for column in columns.values())
    check_fits(4 * shape[0] * shape[1], f"the inputs from {file}")
    inputs = np.empty(shape, dtype=np.float32)
    start = 0
    for name, column in columns.items():
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told with its rows
            inputs[:, start : start + column.width] = column(frame[name], f"the column {name!r} of {file}")
        start += column.width
    return inputs


def fitted(frame: pd.DataFrame) -> tuple[dict[str, Column], list[str]]:
    """An encoding of every column of ``frame``, and the columns left out since they hold prose.

    Numbers are standardised and missing ones stand for the mean. Texts are sorted, and missing ones have a
    place of their own where there are any.
    """
    import pandas as pd

    columns: dict[str, Column] = {}
    left_out = []
    for name in map(str, frame.columns):
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            values = to_numbers(column, name)
            values = values[np.isfinite(values)]
            mean, std = (float(values.mean()), float(values.std())) if len(values) else (0.0, 1.0)
            gaps = mean if column.isna().any() else None
            columns[name] = Numeric(mean, std if std > 1e-12 * abs(mean) else 1.0, gaps)
        elif (found := to_texts(column).dropna()).nunique() <= MOST_VALUES:
            other = "column" if len(found) < len(column) else "refuse"
            columns[name] = Categorical(tuple(sorted(found.unique())), None, other)
        else:
            left_out.append(name)
    return columns, left_out


def to_numbers(column: pd.Series, where: str) -> np.ndarray:
    """Numbers (n,) float64 of a column, nan where missing.

    Raises:
        ProjectError: a value is no number.
    """
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(column):
        read = pd.to_numeric(column, errors="coerce")
        wrong = (read.isna() & column.notna()).to_numpy()
        if wrong.any():
            raise ProjectError(
                f"expected numbers in {where}, but rows {_rows(wrong)} have "
                f"{listing(map(repr, column[wrong].astype(str).unique()))}; "
                "try missing = [...] in [data] if they stand for no value, or list the column's values."
            )
        column = read
    return column.to_numpy(np.float64, na_value=np.nan)


def to_texts(column: pd.Series) -> pd.Series:
    """The values as texts, without blanks around them; missing ones stay missing."""
    return column.astype("string").str.strip().astype(object)


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple) or not values:
        raise ProjectError(f'expected values to be a list, but got {values!r}; try ["a", "b"].')
    return list(values)


def _rows(mask: np.ndarray) -> str:
    return listing(np.flatnonzero(mask).tolist())
