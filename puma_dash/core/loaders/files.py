"""What is checked of a file before anything in it is read: its size, its beginning, what it unpacks to."""

from __future__ import annotations

import zipfile
from pathlib import Path

from puma_dash.core.types import ProjectError

LARGEST_FILE = 4 * 2**30
"""Bytes of the largest weight file that is read: about a thousand million parameters."""
FOREIGN = {
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "git lfs pull"),
    b"<!DOCTYPE": ("a web page", "downloading the file itself"),
    b"<html": ("a web page", "downloading the file itself"),
    b"\x89HDF": ("an HDF5 file", "building the network in PyTorch and saving its state_dict()"),
    b"GGUF": ("a GGUF file", "the original checkpoint"),
}
"""How files begin that are taken for weights now and then: what they are and what to try."""


def check_file(path: Path) -> None:
    """Checks that ``path`` is a file of a size that can be read, before it is.

    Raises:
        ProjectError: it is none, it is empty, too large, or begins like something else.
    """
    if not path.is_file():
        came = "a folder" if path.is_dir() else "no file of that name"
        raise ProjectError(f"expected a weight file at {path}, but there is {came}.")
    size = path.stat().st_size
    if size == 0:
        raise ProjectError(f"expected weights in {path.name}, but the file is empty; try saving it again.")
    check_size(size, path, "has")
    with path.open("rb") as file:
        start = file.read(64)
    for signature, (what, remedy) in FOREIGN.items():
        if start.startswith(signature):
            raise ProjectError(f"expected weights in {path.name}, but it is {what}; try {remedy}.")


def check_size(size: int, path: Path, verb: str, most: int | None = None) -> None:
    """Refuses a ``size`` in bytes beyond ``most``."""
    most = LARGEST_FILE if most is None else most
    if size > most:
        raise ProjectError(
            f"expected a weight file of at most {most / 2**30:.3g} GiB, but {path.name} {verb} "
            f"{size / 2**30:.4g} GiB; try 16-bit weights, or a file without anything else."
        )


def open_archive(path: Path, most: int | None = None) -> zipfile.ZipFile:
    """The zip archive at ``path``, checked against what it says it unpacks to.

    Args:
        path: the file.
        most: bytes that it may unpack to.

    Raises:
        ProjectError: it is no archive, it is broken, or it would unpack to too much.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ProjectError(
            f"expected {path.name} to be a whole archive, but it is broken or cut off ({error}); "
            "try copying or saving it again."
        ) from error
    records = archive.infolist()
    check_size(sum(record.file_size for record in records), path, "unpacks to", most)
    if len({record.filename for record in records}) < len(records):
        raise ProjectError(
            f"expected each record of {path.name} once, but some names occur twice; try saving it again."
        )
    return archive


def check_stored(archive: zipfile.ZipFile, path: Path) -> None:
    """Checks that the records lie in the archive as they are, so that it cannot unpack to more than it is.

    Raises:
        ProjectError: some are compressed, as PyTorch never writes them.
    """
    if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
        raise ProjectError(
            f"expected uncompressed records in {path.name}, as PyTorch writes them, but some are compressed; "
            "try saving it again."
        )
