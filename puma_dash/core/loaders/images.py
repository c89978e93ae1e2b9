"""Image folders: one folder per class, PNG or JPEG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.loaders.base import Files, Folder, Rows, about, check_fits, names, reading
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 2**25
"""A picture of more pixels than this is refused before it is unpacked: a small file can claim any size."""
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Images(Described):
    """A folder per class with PNG or JPEG files, as numbers from 0 to 1, (n, channels, height, width).

    Classes are in alphabetical order unless class_names says otherwise.
    """

    label = "image folders"
    reference = "the layout of torchvision's ImageFolder"
    suffixes = ("/",)
    parts = ("inputs", "rows")

    size: tuple[int, ...] = field(
        default=(),
        metadata={"help": "Height and width to resize to; empty where all pictures have one size."},
    )
    channels: int = field(
        default=0,
        metadata={"help": "1 for grey, 3 for colour, 0 for that of the first picture.", "min": 0, "max": 3},
    )
    id: str = field(
        default="", metadata={"help": "Column of the rows table with a picture's path, such as cat/1.png."}
    )
    groups: tuple[str, ...] = field(default=(), metadata={"help": "Columns of the rows table with groups."})

    def __post_init__(self) -> None:
        """Checks the fields."""
        super().__post_init__()
        object.__setattr__(self, "groups", names(self.groups, "groups"))
        sizes = self.size if isinstance(self.size, list | tuple) else ()
        if len(sizes) not in (0, 2) or not all(type(size) is int and size > 0 for size in sizes):
            raise ProjectError(f"expected size to be [height, width], but got {self.size!r}; try [32, 32].")
        object.__setattr__(self, "size", tuple(sizes))
        if self.channels == 2:
            raise ProjectError("expected channels to be 1 (grey) or 3 (colour), but got 2.")

    def __call__(self, files: Files, folder: Folder) -> Rows:
        """The rows of one split: "inputs" names the folder, "rows" maybe a table of what is known of them.

        Raises:
            ProjectError: there are no pictures, or one is broken, too large or of another size.
        """
        top = folder.find(files["inputs"])
        paths = _pictures(top, folder)
        labels = np.array([path.parent.name for path in paths], dtype=object)
        ids = [path.relative_to(top).as_posix() for path in paths]
        groups, meta = about(self._known(ids, files, folder), "id", self.groups, files.get("rows", "rows"))
        return Rows(self._read(paths), labels, meta, None, groups, tuple(sorted(set(labels))))

    def _read(self, paths: list[Path]) -> np.ndarray:
        """Pictures (n, channels, height, width) float32 from 0 to 1."""
        with reading(paths[0], "a picture"), _opened(paths[0]) as first:
            channels = self.channels or (1 if first.mode in ("L", "LA", "1") else 3)
            height, width = self.size or first.size[::-1]
        shape = (len(paths), channels, height, width)
        check_fits(4 * math.prod(shape), f"the pictures in {paths[0].parents[1].name}")
        found = np.empty(shape, dtype=np.float32)

        def read(row: int) -> None:
            path = paths[row]
            with reading(path, "a picture"), _opened(path) as picture:
                if not self.size and picture.size != (width, height):
                    raise ProjectError(
                        f"expected pictures of one size, but {path.name} has {picture.size[1]} x "
                        f"{picture.size[0]} and {paths[0].name} {height} x {width} pixels; "
                        "try size = [height, width] in [data]."
                    )
                plain = (
                    picture.convert("RGBA") if picture.mode == "P" else picture
                )  # its palette may have alpha
                pixels = np.asarray(plain.convert(MODES[channels]).resize((width, height)), dtype=np.float32)
            found[row] = pixels.reshape(height, width, channels).transpose(2, 0, 1) / 255

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(read, range(len(paths))):
                pass
        return found

    def _known(self, ids: list[str], files: Files, folder: Folder) -> pd.DataFrame:
        """What the rows table says of the pictures, with their paths under "id"."""
        import pandas as pd

        from puma_dash.core.loaders.tables import read_table

        if "rows" not in files:
            return pd.DataFrame({"id": ids})
        frame = read_table(folder.find(files["rows"]))
        _, table = about(frame, self.id, (), files["rows"])
        table = table.set_index(table.pop("id").astype(str))
        missing = sorted(set(ids) - set(table.index))
        if missing:
            raise ProjectError(
                f"expected a row for every picture in {files['rows']}, but it has none for "
                f"{listing(missing, 4)}; "
                'try id = "COLUMN" in [data], the column with paths such as cat/1.png.'
            )
        return table.loc[ids].rename_axis("id").reset_index()


def _pictures(top: Path, folder: Folder) -> list[Path]:
    """The files in the folders of ``top``, ordered by class and name; hidden ones do not count."""
    if not top.is_dir():
        raise ProjectError(f"expected a folder with a folder per class, but {top.name} is a file.")
    visible = [path for path in sorted(top.iterdir()) if not path.name.startswith(".")]
    classes = [path for path in visible if path.is_dir()]
    if len(classes) < 2 or len(classes) < len(visible):
        other = [path.name for path in visible if not path.is_dir()]
        raise ProjectError(
            f"expected a folder per class in {top.name}, at least two, but got {len(classes)} folders"
            f"{' and the files ' + listing(other, 3) if other else ''}; try {top.name}/cat/1.png."
        )
    found = []
    for each in classes:
        files = [path for path in sorted(each.iterdir()) if not path.name.startswith(".")]
        odd = [path.name for path in files if path.suffix.lower() not in SUFFIXES or not path.is_file()]
        if odd or not files:
            raise ProjectError(
                f"expected PNG or JPEG files in {top.name}/{each.name}, but got "
                f"{listing(odd, 3) or 'an empty folder'}."
            )
        found += files
    if folder.root is not None:  # a link may lead anywhere
        found = [
            folder.find(str(path)) if path.is_symlink() or path.parent.is_symlink() else path
            for path in found
        ]
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, not yet unpacked."""
    from PIL import Image

    with Image.open(path, formats=("PNG", "JPEG")) as picture:
        if math.prod(picture.size) > MOST_PIXELS:
            raise ProjectError(
                f"expected a picture of at most {MOST_PIXELS:,} pixels, but {path.name} says "
                f"{picture.size[1]:,} x {picture.size[0]:,}."
            )
        if picture.mode not in ("L", "LA", "1", "P", "RGB", "RGBA", "CMYK"):
            raise ProjectError(
                f"expected a picture of 8 bits per colour, but {path.name} is of mode {picture.mode}; "
                "try .npy files for other depths."
            )
        yield picture
