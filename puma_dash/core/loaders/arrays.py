"""Arrays in .npy and .npz files: features, pictures, token ids, precomputed embeddings.

A .npy file is mapped into memory, not read: rows come from the disk as they are needed, so that data may be
larger than memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from puma_dash.core.loaders.base import Files, Folder, Rows, about, names
from puma_dash.core.loaders.npy import members, numbers, read_array, texts_or_numbers
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError


@dataclass(frozen=True)
class Arrays(Described):
    """Arrays in .npy or .npz files, as they are: whole numbers stay whole, real ones keep their type."""

    label = "NumPy arrays"
    reference = "NumPy enhancement proposal 1 (2007), A simple file format for NumPy arrays"
    suffixes = (".npy", ".npz")
    parts = ("inputs", "targets", "weights", "rows")

    shape: tuple[int, ...] = field(
        default=(), metadata={"help": "Shape of one row as the model takes it; empty for that of the file."}
    )
    id: str = field(default="", metadata={"help": "Column of the rows table that names each row."})
    groups: tuple[str, ...] = field(default=(), metadata={"help": "Columns of the rows table with groups."})

    def __post_init__(self) -> None:
        """Checks the fields."""
        super().__post_init__()
        object.__setattr__(self, "groups", names(self.groups, "groups"))
        shape = self.shape
        if not isinstance(shape, list | tuple) or not all(type(size) is int and size > 0 for size in shape):
            raise ProjectError(f"expected shape to be a list of sizes, but got {shape!r}; try [1, 28, 28].")
        object.__setattr__(self, "shape", tuple(shape))

    def __call__(self, files: Files, folder: Folder) -> Rows:
        """The rows of one split: each part is a .npy file, or NAME.npz:ARRAY.

        A bare NAME.npz as "inputs" stands for its arrays inputs, targets and (if there) weights.
        """
        if files["inputs"].endswith(".npz"):
            archive = files["inputs"]
            held = members(folder.find(archive))
            own = {part: f"{archive}:{part}" for part in self.parts[:3] if part in held}
            files = {**own, **files, "inputs": f"{archive}:inputs"}
        arrays = {part: read_array(name, folder) for part, name in files.items() if part != "rows"}
        if self.shape:
            inputs = arrays["inputs"]
            if inputs.size != len(inputs) * math.prod(self.shape):
                raise ProjectError(
                    f"expected rows that make shape {list(self.shape)}, but those of {files['inputs']} are "
                    f"{list(inputs.shape[1:])}; try another shape in [data]."
                )
            arrays["inputs"] = inputs.reshape(len(inputs), *self.shape)
        return assembled(arrays, files, folder, self.id, self.groups)


def assembled(
    arrays: dict[str, np.ndarray], files: Files, folder: Folder, key: str, groups: tuple[str, ...]
) -> Rows:
    """The rows of ``arrays`` by part, with what a table of as many rows, files["rows"], says of them.

    Args:
        arrays: "inputs", "targets" and maybe "weights".
        files: what they are called.
        folder: where the table lies.
        key: its column that names each row, or "".
        groups: its columns that name groups.

    Raises:
        ProjectError: an array or a row is missing, or the arrays are of other kinds than they should be.
    """
    import pandas as pd

    from puma_dash.core.loaders.tables import read_table

    if "targets" not in arrays:
        raise ProjectError(
            f"expected targets beside {files['inputs']}, but got none; "
            'try train = { inputs = "x.npy", targets = "y.npy" }, or a .npz with both.'
        )
    n = len(arrays["inputs"])
    frame = pd.DataFrame(index=range(n))
    if "rows" in files:
        frame = read_table(folder.find(files["rows"]))
    parts: dict[str, Any] = {**arrays, "rows": frame}
    for part, value in parts.items():
        if len(value) != n:
            raise ProjectError(
                f"expected {part} of {n:,} rows, as {files['inputs']} has, but {files[part]} has "
                f"{len(value):,}."
            )
    known, meta = about(frame, key, groups, files.get("rows", "the rows table"))
    return Rows(
        inputs=numbers(arrays["inputs"], files["inputs"]),
        targets=texts_or_numbers(arrays["targets"], files["targets"]),
        meta=meta,
        weights=numbers(arrays["weights"], files["weights"]) if "weights" in arrays else None,
        groups=known,
    )
