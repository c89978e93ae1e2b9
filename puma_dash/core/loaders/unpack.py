"""Uploads: an archive from anybody becomes a project folder, or is refused before it can do harm."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from puma_dash.core.loaders.base import FILE, reading
from puma_dash.core.loaders.npy import header
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
ENTRY = b"PK\1\2"
"""What each entry of an archive's table of contents begins with: counted before the table is read at all."""
CHUNK = 2**20
SMALL = 2**20
"""Entries below this many bytes may be packed as tightly as they like."""


@dataclass(frozen=True)
class Limits(Described):
    """What an upload may contain."""

    packed: int = field(default=500 * 2**20, metadata={"help": "Bytes of the archive.", "min": 1})
    unpacked: int = field(default=4 * 2**30, metadata={"help": "Bytes of all its files.", "min": 1})
    files: int = field(default=200_000, metadata={"help": "Number of files.", "min": 1})
    ratio: int = field(default=200, metadata={"help": "Unpacked bytes of a file per packed one.", "min": 1})
    depth: int = field(default=8, metadata={"help": "Folders within folders.", "min": 1})
    name: int = field(default=200, metadata={"help": "Bytes of one name.", "min": 1})


def unpack(
    archive: Path,
    folder: Path,
    limits: Limits | None = None,
    progress: Callable[[float, float, str], None] = lambda done, total, message: None,
) -> Path:
    """Unpacks a zip file into the new folder ``folder``; where in it the project.toml lies, or belongs.

    Nothing is left of an archive that is refused: bombs, names that lead out of the folder, links and
    devices, encrypted files, pickles also inside of .npy and .npz, archives of several projects or none.

    Args:
        archive: the zip file, whatever it is called.
        folder: must not exist yet.
        limits: how large it may be.
        progress: told bytes done, bytes in all and what is done now.

    Raises:
        ProjectError: the archive is refused; the message says why.
    """
    limits = limits or Limits()
    if folder.exists():
        raise ProjectError(f"expected a new folder for the upload, but {folder.name} exists already.")
    size = archive.stat().st_size
    if size > limits.packed:
        raise ProjectError(f"expected an upload of at most {_size(limits.packed)}, but got {_size(size)}.")
    with archive.open("rb") as file:
        entries = sum(chunk.count(ENTRY) for chunk in iter(lambda: file.read(CHUNK), b""))
    if entries > 2 * limits.files:  # twice, since .npz files in it have some too
        raise ProjectError(f"expected at most {limits.files:,} files, but the archive lists {entries:,}.")
    folder.mkdir(parents=True)
    try:
        with reading(archive, "a zip archive"), zipfile.ZipFile(archive) as opened:
            found = _checked(opened, size, limits)
            left, total = limits.unpacked, sum(entry.file_size for entry in found.values())
            for name, entry in found.items():
                progress(limits.unpacked - left, total, f"Unpacking {name.name}")
                left -= _extract(opened, entry, folder / name, min(left, entry.file_size))
        for path in sorted(folder.rglob("*")):
            _check_arrays(path)
        return _project(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _checked(opened: zipfile.ZipFile, size: int, limits: Limits) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive by name, none of which may do harm by what the archive says of it."""
    listed = [entry for entry in opened.infolist() if not entry.is_dir()]
    if len(opened.infolist()) > limits.files:
        raise ProjectError(f"expected at most {limits.files:,} files, but the archive has {len(listed):,}.")
    total = sum(entry.file_size for entry in listed)
    if total > limits.unpacked:
        raise ProjectError(
            f"expected at most {_size(limits.unpacked)} unpacked, but the archive has {_size(total)}."
        )
    if sum(entry.compress_size for entry in listed) > size:
        raise ProjectError(
            "expected files one after the other in the archive, but they overlap, as in a zip bomb."
        )
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for entry in listed:
        name = _name(entry, limits)
        if "__MACOSX" in name.parts or name.name == ".DS_Store":
            continue  # what a Mac adds to every archive
        if str(name).casefold() in seen:
            raise ProjectError(f"expected every file once, but the archive has {str(name)!r} twice.")
        seen.add(str(name).casefold())
        _check_entry(entry, str(name), limits)
        found[name] = entry
    return found


def _name(entry: zipfile.ZipInfo, limits: Limits) -> PurePosixPath:
    """The name of an entry, which stays inside of the folder."""
    name = PurePosixPath(entry.filename)
    odd = (
        name.is_absolute() or ".." in name.parts or not name.parts or set(entry.orig_filename) & set("\\\0:")
    )
    if odd or not entry.filename.isprintable():
        raise ProjectError(
            f"expected names inside of the archive's own folder, but got {entry.orig_filename[:80]!r}."
        )
    if len(name.parts) > limits.depth or any(len(part.encode()) > limits.name for part in name.parts):
        raise ProjectError(
            f"expected names of at most {limits.name} bytes, {limits.depth} folders deep, but got "
            f"{entry.filename[:60]!r}..."
        )
    return name


def _check_entry(entry: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ProjectError(f"expected plain files, but {name!r} is a link or a device; try the file itself.")
    if entry.flag_bits & 1:
        raise ProjectError(f"expected files without a password, but {name!r} is encrypted.")
    if name.lower().endswith(PICKLES):
        raise ProjectError(
            f"expected no pickles, which run code when they are opened, but got {name!r}; "
            "try safetensors for a model and .npy or .csv for data."
        )
    if entry.file_size > max(SMALL, limits.ratio * entry.compress_size):
        raise ProjectError(
            f"expected files that unpack to at most {limits.ratio} times their size, but {name!r} says "
            f"{_size(entry.file_size)} from {_size(entry.compress_size)}, as a zip bomb does."
        )


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, most: int) -> int:
    """Writes one file and says how many bytes it has, which may not be more than it says itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > most:
                raise ProjectError(
                    f"expected {path.name} to unpack to {_size(most)}, as it says, but it has more, as a zip "
                    "bomb does."
                )
            target.write(chunk)
    return written


def _check_arrays(path: Path) -> None:
    """Refuses Python objects in .npy files and inside of .npz ones."""
    suffix = path.suffix.lower()
    if suffix == ".npy" and path.is_file():
        with path.open("rb") as stream:
            header(stream, path.name)
    elif suffix == ".npz" and path.is_file():
        with reading(path, "arrays"), zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.filename.endswith(".npy"):
                    raise ProjectError(
                        f"expected only arrays in {path.name}, but it has {entry.filename[:80]!r}."
                    )
                with archive.open(entry) as stream:
                    header(stream, f"{path.name}:{entry.filename.removesuffix('.npy')}")


def _project(folder: Path) -> Path:
    """The folder with the project.toml, or where one belongs: the top, or the one folder that all is in."""
    found = [path.parent for path in (folder / FILE, *sorted(folder.glob(f"*/{FILE}"))) if path.is_file()]
    if len(found) > 1:
        raise ProjectError(
            f"expected one {FILE} in the archive or in the one folder in it, but got {len(found)}; "
            "try zipping one project folder."
        )
    inside = list(folder.iterdir())
    if not inside:
        raise ProjectError("expected files in the archive, but it has none; try zipping the project folder.")
    return found[0] if found else inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
