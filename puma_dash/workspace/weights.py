"""The arrays that versions are made of, kept for good: safetensors files named by the hash of their content.

They lie beside the cache, not in it, since the ledger names them: an accepted version can always be opened.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import numpy as np
import safetensors.numpy

from puma_dash.core.types import ProjectError
from puma_dash.workspace.store import Arrays


def content(arrays: Arrays) -> bytes:
    """The file of ``arrays``: the same bytes for the same arrays, in whatever order and layout they come."""
    plain = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    return safetensors.numpy.save(plain)


def digest(arrays: Arrays) -> str:
    """SHA-256 of the file of ``arrays``: its name."""
    return hashlib.sha256(content(arrays)).hexdigest()


def keep(home: Path, arrays: Arrays) -> str:
    """The name under which ``arrays`` are kept from now on."""
    data = content(arrays)
    name = hashlib.sha256(data).hexdigest()
    path = file(home, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with temporary.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)  # whoever reads finds the whole file or none
    return name


def read(home: Path, name: str) -> bytes:
    """The file of that name, checked against it.

    Raises:
        ProjectError: it is not there, or its content is not the one that was kept.
    """
    path = file(home, name)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProjectError(f"expected a version's weights at {path}, but there is no such file.") from None
    found = hashlib.sha256(data).hexdigest()
    if found != name:
        raise ProjectError(
            f"expected the weights that were accepted at {path}, but its content has changed (SHA-256 "
            f"{found[:12]}…, not {name[:12]}…); try an exported bundle or a copy of the file."
        )
    return data


def load(home: Path, name: str) -> Arrays:
    """The arrays of that name.

    Raises:
        ProjectError: as in ``read``.
    """
    return safetensors.numpy.load(read(home, name))


def file(home: Path, name: str) -> Path:
    """Where the arrays of that name lie."""
    return home / "versions" / f"{name}.safetensors"
