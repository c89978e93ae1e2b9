"""Uploads: archives that people send, each unpacked into a folder of its own under the hash of its content.

A folder ``uploads/ID`` holds ``upload.zip`` until that is unpacked into ``upload``, and ``upload.json``,
which says what is known of it. The same archive is the same upload, whoever sends it and how often. Nothing
in one is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from puma_dash.core.loaders.base import FILE
from puma_dash.workspace.index import Index
from puma_dash.workspace.store import Store, home

UPLOAD = "upload:"
"""How the source of a project begins that was uploaded; its id follows."""
CHUNK = 2**20
LONGEST_NAME = 100
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Upload:
    """What is known of an archive.

    Args:
        id: half of the SHA-256 of its content.
        name: what the sender called it.
        size: in bytes.
        received: when it came, in seconds since 1970.
        folder: where in it the project lies, or belongs; None before it is unpacked.
        problems: what is wrong with it, a sentence each; None before that is known.
        choices: of an archive without project.toml, what one could say: "weights", "data" and "columns" to
            choose from, and "guesses".
        remarks: on a project.toml that was written here: what its author should check.
    """

    id: str
    name: str
    size: int
    received: float = field(default_factory=time.time)
    folder: str | None = None
    problems: tuple[str, ...] | None = None
    choices: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What ledger and URLs call the project."""
        return UPLOAD + self.id

    @property
    def home(self) -> Path:
        """The folder of everything that is kept of it."""
        return _folder(self.id)

    @property
    def archive(self) -> Path:
        """Where the archive lies until it is unpacked."""
        return self.home / "upload.zip"

    @property
    def files(self) -> Path:
        """The folder it is unpacked into; nothing outside of it is opened."""
        return self.home / "upload"

    @property
    def path(self) -> Path:
        """The project folder."""
        return self.files / (self.folder or "")

    @property
    def ready(self) -> bool:
        """Whether there is a project that can be opened."""
        return self.problems == () and (self.path / FILE).is_file()

    def keep(self, **changes: Any) -> Upload:
        """The upload with ``changes``, on the disk from now on."""
        new = replace(self, **changes)
        temporary = self.home / f"upload.{secrets.token_hex(4)}.tmp"
        temporary.write_text(json.dumps(asdict(new)), "utf-8")
        os.replace(temporary, self.home / "upload.json")
        return new


def receive(archive: IO[bytes], name: str) -> Upload:
    """The upload whose archive is read from ``archive``; one that is ready already stays as it is."""
    top = home() / "uploads"
    top.mkdir(mode=0o700, exist_ok=True)
    arriving, digest, size = top / f"{secrets.token_hex(8)}.part", hashlib.sha256(), 0
    try:
        with arriving.open("xb") as file:
            while chunk := archive.read(CHUNK):
                digest.update(chunk)
                size += file.write(chunk)
        upload = Upload(digest.hexdigest()[:32], name[-LONGEST_NAME:], size)
        known = load(upload.id)
        if known is not None and known.ready:
            return known
        upload.home.mkdir(exist_ok=True)
        os.replace(arriving, upload.archive)
        return upload.keep()
    finally:
        arriving.unlink(missing_ok=True)


def load(upload_id: str) -> Upload | None:
    """The upload of that id (it may come from a URL), or None where there is none."""
    if not _ID.fullmatch(upload_id):
        return None
    try:
        told = json.loads((_folder(upload_id) / "upload.json").read_text("utf-8"))
        for name in ("problems", "remarks"):
            told[name] = told[name] if told[name] is None else tuple(told[name])
        return Upload(**told)
    except (OSError, ValueError, TypeError, LookupError):
        return None


def uploads() -> list[Upload]:
    """All that is there, newest first."""
    top = home() / "uploads"
    found = [load(name) for name in os.listdir(top)] if top.is_dir() else []
    return sorted((each for each in found if each is not None), key=lambda each: -each.received)


def delete(upload: Upload, versions: list[int | None]) -> None:
    """Deletes the files, and the rows that were prepared for ``versions``; the ledger keeps its entries."""
    store = Store(home() / "cache")
    for version in versions:
        index = Index.of(home(), upload.source, version)
        store.remove(index.overview)  # no other project's: its source is part of the key
        index.path.unlink(missing_ok=True)
    shutil.rmtree(upload.home, ignore_errors=True)


def _folder(upload_id: str) -> Path:
    return home() / "uploads" / upload_id
