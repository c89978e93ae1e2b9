"""Reading .npy and .npz files: mapped instead of read where that goes, and never unpickled."""

from __future__ import annotations

import io
import math
import mmap
import sys
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from puma_dash.core.loaders.base import check_fits, reading
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.loaders.base import Folder

NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE: without it Linux refuses a private mapping of a file that is larger than its memory."""
LONGEST_HEADER = 2**16
"""Bytes read to find out what a file holds; NumPy itself would read whatever length the file claims."""


def read_array(name: str, folder: Folder) -> np.ndarray:
    """The array called ``name``: a .npy file, mapped, or NAME.npz:ARRAY, read.

    Raises:
        ProjectError: there is none, it holds Python objects or no rows, or it is larger than memory.
    """
    file, colon, member = name.partition(".npz:")
    path = folder.find(f"{file}.npz" if colon else name)
    if not colon:
        with reading(path, "an array"), path.open("rb") as stream:
            return _mapped(stream, path, header(stream, path.name))
    held = members(path)
    if member not in held:
        raise ProjectError(
            f"expected an array {member!r} in {path.name}, but it has {', '.join(held) or 'none'}; "
            f'try "{path.name}:{next(iter(held), "NAME")}".'
        )
    check_fits(held[member], name)
    with reading(path, f"an array {member!r}"), zipfile.ZipFile(path) as archive:
        with archive.open(f"{member}.npy") as packed:
            check_fits(header(packed, name).size, name)
        with archive.open(f"{member}.npy") as packed:
            return np.lib.format.read_array(packed, allow_pickle=False)


def members(path: Path) -> dict[str, int]:
    """Array -> its size in bytes, of a .npz file."""
    with reading(path, "arrays"), zipfile.ZipFile(path) as archive:
        return {
            entry.filename.removesuffix(".npy"): entry.file_size
            for entry in archive.infolist()
            if entry.filename.endswith(".npy")
        }


class Header(NamedTuple):
    """What a .npy file says of its array."""

    shape: tuple[int, ...]
    order: str
    """C or F."""
    kind: np.dtype
    start: int
    """Where in the file the numbers begin."""

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.kind.itemsize


def header(stream: IO[bytes], name: str) -> Header:
    """What the .npy array that starts in ``stream`` says of itself.

    Raises:
        ProjectError: no array starts there, one without rows, or one of Python objects.
    """
    beginning = io.BytesIO(stream.read(LONGEST_HEADER))
    try:
        version = np.lib.format.read_magic(beginning)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, kind = read[version](beginning)
    except Exception as error:  # the header is a Python literal: broken ones fail in many ways
        raise ProjectError(
            f"expected a NumPy array in {name}, but its header cannot be read; try np.save, without pickles."
        ) from error
    if kind.hasobject:
        raise ProjectError(
            f"expected numbers or texts in {name}, but it holds Python objects, which may run code when they "
            "are opened; try np.save(name, array.astype(np.float32))."
        )
    if not shape or any(size <= 0 for size in shape):
        what = f"no numbers (shape {shape})" if shape else "a single number"
        raise ProjectError(f"expected an array of rows in {name}, but it holds {what}.")
    return Header(shape, "F" if fortran else "C", kind, beginning.tell())


def numbers(array: np.ndarray, name: str) -> np.ndarray:
    """``array`` in a type that PyTorch computes with; a copy only where it has to be one.

    Raises:
        ProjectError: it holds no real numbers.
    """
    kind = array.dtype
    if kind.kind not in "biuf":
        raise ProjectError(
            f"expected real numbers in {name}, but it holds {kind}; try saving it with .astype(np.float32)."
        )
    if kind.kind == "u" and kind.itemsize > 1:
        if array.max() > np.iinfo(np.int64).max:
            raise ProjectError(f"expected whole numbers below 2^63 in {name}, but got {array.max()}.")
        kind = np.dtype(np.int64)
    elif kind.kind == "b":
        kind = np.dtype(np.float32)
    elif kind.kind == "f" and kind.itemsize > 8:
        kind = np.dtype(np.float64)
    kind = kind.newbyteorder("=")
    if kind != array.dtype:
        check_fits(array.size * kind.itemsize, f"{name} as {kind}")
    return array.astype(kind, copy=False)


def texts_or_numbers(array: np.ndarray, name: str) -> np.ndarray:
    """``array`` of texts as Python's, or of ``numbers``."""
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return array.astype(object) if array.dtype.kind == "U" else numbers(array, name)


def _mapped(stream: IO[bytes], path: Path, told: Header) -> np.ndarray:
    """The array of a file, as a private mapping: written to in memory, it leaves the file alone."""
    missing = told.start + told.size - path.stat().st_size
    if missing > 0:
        raise ProjectError(
            f"expected an array of shape {told.shape} in {path.name}, but the file is {missing:,} bytes too "
            "short; try saving it again."
        )
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    pages = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE | NO_RESERVE, prot=protection)
    found = np.frombuffer(pages, told.kind, math.prod(told.shape), told.start)
    if told.order == "F" and len(told.shape) > 1:
        check_fits(told.size, f"{path.name}, whose rows lie scattered,")
        return np.ascontiguousarray(found.reshape(told.shape[::-1]).T)
    return found.reshape(told.shape)
