"""A content-addressed cache: what was computed from the same parts is read, not computed again.

The name of an entry is a hash of everything its content depends on, so an entry is never out of date and
needs no lock: two writers of one name write the same content.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import safetensors.numpy

Arrays = dict[str, np.ndarray]

_TYPES = {
    **{"BOOL": "?", "I8": "i1", "U8": "u1", "C64": "<c8"},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8)},
}
"""What safetensors calls a type -> what numpy calls it."""


def home() -> Path:
    """The folder of everything PUMA Dash keeps: ``$PUMA_DASH_HOME`` or ``~/.puma-dash``, created on use."""
    folder = Path(os.environ.get("PUMA_DASH_HOME") or "~/.puma-dash").expanduser()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it will hold copies of the user's data
    return folder


def key(*parts: object) -> str:
    """The name of what is computed from ``parts``: 64 hexadecimal digits, the same in every process.

    Values of different types differ: ``1``, ``1.0``, ``True`` and ``"1"`` are four keys. Only a list equals
    the tuple of its items, and a path its text. The order of a dict and the memory layout of an array do not
    count.

    Args:
        parts: None, bool, int, float, str, bytes, path, numpy array, or tuples, lists, dicts and dataclass
            instances of these.

    Raises:
        TypeError: a part is of another type; the message names it.
    """
    return _digest(parts).hex()


def _digest(value: object) -> bytes:
    """SHA-256 of a type tag and the content; containers hash the digests of their items (a Merkle tree)."""
    content: bytes | memoryview
    match value:
        case None:
            tag, content = "none", b""
        case bool():  # before int, whose subclass it is
            tag, content = "bool", b"%d" % value
        case int():
            tag, content = "int", b"%x" % value
        case float():
            tag, content = "float", value.hex().encode()
        case str():
            tag, content = "str", value.encode("utf-8", "surrogatepass")
        case PurePath():
            return _digest(str(value))
        case bytes():
            tag, content = "bytes", value
        case tuple() | list():
            tag, content = "sequence", b"".join(map(_digest, value))
        case Mapping():
            items = sorted(_digest(name) + _digest(item) for name, item in value.items())
            tag, content = "dict", b"".join(items)
        case np.ndarray() | np.generic() if not value.dtype.hasobject:
            tag = f"array {value.dtype.descr} {value.shape}"
            content = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            tag = f"dataclass {type(value).__module__}.{type(value).__qualname__}"
            content = _digest({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        case _:
            dtype = f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""
            raise TypeError(
                f"cannot make a cache key from {type(value).__module__}.{type(value).__qualname__}{dtype}"
            )
    digest = hashlib.sha256(tag.encode() + b"\0")
    digest.update(content)
    return digest.digest()


@dataclass(frozen=True, eq=False)
class Entry:
    """What was computed once.

    Args:
        arrays: the arrays by name.
        info: everything else, as JSON carries it (tuples come back as lists).
    """

    arrays: Arrays
    info: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of entries, one safetensors file each, shared by any number of processes.

    Args:
        root: the folder; it is created when the first entry is saved.
    """

    root: Path

    def load(self, key: str) -> Entry | None:
        """The entry of that key, or None where there is none; a damaged one is removed and counts as none."""
        path = self._path(key)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except (LookupError, TypeError, ValueError):
            path.unlink(missing_ok=True)
            return None

    def save(self, key: str, arrays: Arrays, info: dict[str, Any]) -> Entry:
        """The entry as later loads will return it; until it is complete on disk they see the old one or none.

        Args:
            key: from :func:`key`.
            arrays: bool, integer, float (16 to 64 bits) or complex64 arrays of any shape.
            info: whatever JSON can carry.
        """
        arrays = {name: _plain(array) for name, array in arrays.items()}
        text = json.dumps(info)
        metadata = {"info": text, "sha256": _checksum(arrays, text)}
        _replace(self._path(key), safetensors.numpy.save(arrays, metadata))
        return Entry(arrays, json.loads(text))

    def fetch(self, key: str, compute: Callable[[], tuple[Arrays, dict[str, Any]]]) -> Entry:
        """The entry of that key; only where there is none, ``compute()`` makes its arrays and info."""
        entry = self.load(key)
        return self.save(key, *compute()) if entry is None else entry

    def remove(self, key: str) -> None:
        """Forgets the entry of that key, if there is one: it can be computed again."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        """The file of an entry; two digits of the key keep the folders small."""
        return self.root / key[:2] / f"{key}.safetensors"


def _checksum(arrays: Arrays, text: str) -> str:
    """The key of an entry's own content: names, types, shapes and bytes of the arrays, and the info."""
    return key(arrays, text)


def _plain(array: np.ndarray) -> np.ndarray:
    """The array as safetensors writes it, which takes C order and little endian for granted."""
    array = np.asarray(array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _read(path: Path) -> Entry:
    """The entry in a file, after checking it against its checksum.

    The arrays are mapped, not copied: they cost memory only where they are used, and the system can take it
    back. What is written to them stays in this process.
    """
    content = np.asarray(np.memmap(path, np.uint8, "c"))
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    metadata = header.pop("__metadata__")
    arrays = {name: _mapped(content[start:], **found) for name, found in header.items()}
    if _checksum(arrays, metadata["info"]) != metadata["sha256"]:
        raise ValueError(f"{path} is damaged")
    return Entry(arrays, json.loads(metadata["info"]))


def _mapped(content: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    """The array in a part of the content of a safetensors file."""
    return content[slice(*data_offsets)].view(_TYPES[dtype]).reshape(shape)


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, even after a crash, finds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
