"""IDX files, the format of MNIST, gzipped or not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from puma_dash.core.loaders.arrays import assembled
from puma_dash.core.loaders.base import Files, Folder, Rows, check_fits, names, opened, reading
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_AXES = 8


@dataclass(frozen=True)
class Idx(Described):
    """Pictures and labels in IDX files; grey values become numbers from 0 to 1, as (n, 1, height, width)."""

    label = "IDX files"
    reference = "the format of LeCun, Cortes & Burges (1998), The MNIST database of handwritten digits"
    suffixes = ("ubyte", ".idx")
    parts = ("inputs", "targets", "weights", "rows")

    id: str = field(default="", metadata={"help": "Column of the rows table that names each row."})
    groups: tuple[str, ...] = field(default=(), metadata={"help": "Columns of the rows table with groups."})

    def __post_init__(self) -> None:
        """Checks the fields."""
        super().__post_init__()
        object.__setattr__(self, "groups", names(self.groups, "groups"))

    def __call__(self, files: Files, folder: Folder) -> Rows:
        """The rows of one split: "inputs" and "targets" name a file each."""
        arrays = {part: read_idx(folder.find(name)) for part, name in files.items() if part != "rows"}
        pictures = arrays["inputs"]
        if pictures.dtype == np.uint8 and pictures.ndim in (3, 4):
            check_fits(4 * pictures.size, f"{files['inputs']} as pictures")
            pictures = np.divide(pictures, 255, dtype=np.float32)
            arrays["inputs"] = pictures[:, None] if pictures.ndim == 3 else pictures
        return assembled(arrays, files, folder, self.id, self.groups)


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, in the machine's own byte order.

    Raises:
        ProjectError: it is no IDX file, or shorter or longer than it says.
    """
    with reading(path, "an IDX array"), opened(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= MOST_AXES:
            raise ProjectError(
                f"expected an IDX file, but {path.name} starts with {head.hex() or 'nothing'} instead of "
                "0000, a type and a number of axes; try format in [data], if it is of another kind."
            )
        kind, axes = np.dtype(TYPES[head[2]]), head[3]
        sizes = file.read(4 * axes)
        if len(sizes) < 4 * axes:
            raise ProjectError(
                f"expected {axes} sizes at the start of {path.name}, but it ends there; try getting it again."
            )
        shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
        size = math.prod(shape) * kind.itemsize
        check_fits(size, path.name)
        data = file.read(size + 1)
        if len(data) != size:
            raise ProjectError(
                f"expected {size:,} bytes of shape {shape} in {path.name}, but it has "
                f"{'fewer' if len(data) < size else 'more'}; try getting the file again."
            )
        return np.frombuffer(data, kind).astype(kind.newbyteorder("=")).reshape(shape)
