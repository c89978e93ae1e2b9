"""What is kept in files for another day, or for other tools: tables of scores, patches with their plan."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from puma_dash.core.types import Patch, Project, ProjectError, Split, Valuation

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"
"""The column with the number of a training row, from 0."""
ID_NAMES = ("id", "uid", "uuid", "key")
WRITTEN = (".csv", ".parquet", ".json")


class Ids(NamedTuple):
    """What names the training rows."""

    name: str
    """of the column"""
    values: np.ndarray
    """(n,) texts"""


def ids_of(split: Split) -> Ids | None:
    """The column that names each row of ``split``: called id, or like it, and never the same twice."""
    if split.meta is None:
        return None
    for name, column in split.meta.items():
        called = str(name).casefold()
        named = called in ID_NAMES or called.endswith(("_id", " id"))
        if named and column.is_unique and column.notna().all():
            return Ids(str(name), id_texts(column))
    return None


def id_texts(column: pd.Series) -> np.ndarray:
    """Names of rows (n,) as texts; whole numbers without a point, however a file stores them."""
    values = column.to_numpy()
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        column = column.astype(np.int64)
    return column.astype(str).to_numpy(object)


def check_written(path: str | Path) -> Path:
    """``path``, where a table can be written.

    Raises:
        ProjectError: its name ends otherwise, or there is no such folder.
    """
    path = Path(path)
    if path.suffix not in WRITTEN:
        raise ProjectError(f"expected a file name that ends in {', '.join(WRITTEN)}, but got {path.name!r}.")
    return check_folder(path)


def check_folder(path: Path) -> Path:
    """``path``, whose folder is there.

    Raises:
        ProjectError: it is not.
    """
    if not path.resolve().parent.is_dir():
        raise ProjectError(f"expected a folder for {path}, but there is none; try making it first.")
    return path


def write_table(path: str | Path, table: pd.DataFrame, told: dict[str, Any] | None = None) -> None:
    """Writes ``table`` as CSV or Parquet; as JSON, its lines under "rows", with what else is ``told``."""
    path = check_written(path)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        lines = {"rows": table.to_dict("records")}
        path.write_text(json.dumps(finite({**(told or {}), **lines}), indent=1, allow_nan=False), "utf-8")


def finite(value: Any) -> Any:
    """``value`` as every reader of JSON takes it: plain numbers, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, str | bool | int):
        return value
    value = float(value)
    return value if math.isfinite(value) else None


def scores_table(valuation: Valuation, project: Project | None = None) -> pd.DataFrame:
    """One line per training row: its number, its id where ``project`` has ids, its score."""
    import pandas as pd

    ids = None if project is None else ids_of(project.train)
    table: dict[str, Any] = {ROW: np.arange(len(valuation.scores))}
    if ids is not None:
        table[ids.name] = ids.values
    table["psi" if valuation.method.startswith("Psi(") else "score"] = valuation.scores
    return pd.DataFrame(table)


def read_patch(path: str | Path, project: Project) -> Patch:
    """The patch that ``Patch.save`` wrote, to compare and report on another day.

    Raises:
        ProjectError: the file holds none, or it was made for another project.
    """
    from safetensors import SafetensorError, safe_open

    from puma_dash.core.engine import engine_of
    from puma_dash.core.loaders.files import check_file
    from puma_dash.core.records import plan_of
    from puma_dash.core.unlearning.base import change_of
    from puma_dash.core.unlearning.sisa import like

    check_file(Path(path))
    try:
        with safe_open(str(path), "pt") as file:
            told = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ProjectError(
            f"expected a patch in {path}, but it cannot be read ({error}); try puma-dash patch again."
        ) from error
    if "patch" not in told:
        raise ProjectError(
            f"expected a patch with its plan in {path}, but it holds weights only; "
            "try the file that puma-dash patch or Patch.save wrote."
        )
    if told["project"] != project.fingerprint:
        raise ProjectError(
            f"expected a patch of project {project.name!r} ({project.fingerprint[:8]}), but the one in "
            f"{path} was made for another ({told['project'][:8]}): its model or data have changed since, or "
            "it is another project; try patching again."
        )
    record = json.loads(told["patch"])
    model = like(project, list(state))
    model.load_state_dict(state)
    engine = engine_of(project)
    return Patch(
        model=model,
        plan=plan_of(record.pop("plan")),
        delta=change_of(engine, model).cpu(),
        weights=np.array(record.pop("weights")),
        fingerprint=project.fingerprint,
        **record,
    )
