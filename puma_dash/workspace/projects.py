"""The projects that the worker holds, as their sources and accepted versions say, and where results are kept.

This module is imported by the worker only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from puma_dash.core import api
from puma_dash.core.demos import DEMOS
from puma_dash.core.engine import Progress
from puma_dash.core.recorder import Records
from puma_dash.core.types import Project, ProjectError
from puma_dash.core.unlearning.sisa import like
from puma_dash.workspace import weights
from puma_dash.workspace.index import Index
from puma_dash.workspace.ledger import Ledger
from puma_dash.workspace.opening import of_files
from puma_dash.workspace.provenance import state, use_threads
from puma_dash.workspace.store import Store, home, key

# One core stays free for the pages.
THREADS = max(1, (os.cpu_count() or 2) - 1)
use_threads(THREADS)

CODE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(api.__file__).parent.rglob("*.py")))
    + torch.__version__.encode()
).hexdigest()
"""What cached results depend on besides their inputs: the code that computes them."""

_open: dict[tuple[str, int | None], Project] = {}
"""The project the worker holds: its engine and its factors stay warm between jobs."""


def open_project(source: str, version: int | None) -> Project:
    """The project of that source as it stands at that version (a ledger entry; None is the original)."""
    if (source, version) not in _open:
        found = _original(source) if version is None else _accepted(source, version)
        found.memo["store"] = keeper(found)
        close()
        _open[source, version] = found
    return _open[source, version]


def close() -> None:
    """Lets go of the project that is held, so that it is opened anew."""
    _open.clear()


def _original(source: str) -> Project:
    if source not in DEMOS:
        found = of_files(source)
        return api.load(source) if found is None else found
    demo = DEMOS[source]()
    project: Project = demo.untrained()

    def train() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        made: Project = demo()
        assert made.records is not None, "every demo records its training"
        records = {f"records.{name}": value.numpy() for name, value in made.records.arrays().items()}
        return {**state(made.model), **records}, made.records.facts()

    # The trained weights are kept, so that a demo has one fingerprint whatever machine load or thread count.
    entry = store().fetch(key("demo", demo, CODE), train)
    kept = {
        name: torch.from_numpy(array) for name, array in entry.arrays.items() if name.startswith("records.")
    }
    records = Records.of({name.removeprefix("records."): value for name, value in kept.items()}, entry.info)
    return replace(project, model=with_state(project, entry.arrays), records=records)


def _accepted(source: str, version: int) -> Project:
    entry = ledger().entry(version)
    if entry is None or entry.kind != "accepted" or entry.source != source:
        raise ProjectError(
            f"expected an accepted version of {source}, but {version} is none; try the original."
        )
    original, kept = open_project(source, None), entry.details["kept"]
    rows = {name: torch.from_numpy(array) for name, array in weights.load(home(), kept["rows"]).items()}
    model = with_state(original, weights.load(home(), kept["model"]))
    found = replace(original, model=model, train=replace(original.train, **rows), records=None)
    if found.fingerprint != entry.details["after"]:
        raise ProjectError(
            f"expected {source} as it was when this version was accepted, but its data or the code of its "
            "model have changed since; try the original."
        )
    return found


def with_state(project: Project, arrays: dict[str, np.ndarray]) -> torch.nn.Module:
    """The model of ``project`` with these weights and buffers."""
    model = like(project, list(arrays))
    model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in model.state_dict()})
    return model


def opened(params: dict[str, Any], progress: Progress) -> tuple[Project, Index]:
    """The project and version that a task is about, and its index.

    Raises:
        ProjectError: it has changed since it was prepared.
    """
    if (params["source"], params["version"]) not in _open:
        progress(0, 1, "Loading the project")
    project = open_project(params["source"], params["version"])
    index = Index.of(home(), params["source"], params["version"])
    if index.fingerprint and index.fingerprint != project.fingerprint:
        raise ProjectError(
            "expected the project as it was prepared, but its model or data have changed since; "
            "try opening it again on the Workspace page."
        )
    return project, index


def keeper(project: Project) -> Callable[[str, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]:
    """What keeps factors and other costly arrays of ``project`` in the cache, for the next worker."""

    def keep(name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        parts = key("engine", project.fingerprint, name, THREADS, CODE)
        return store().fetch(parts, lambda: (compute(), {})).arrays

    return keep


def store() -> Store:
    """The cache of results."""
    return Store(home() / "cache")


def ledger() -> Ledger:
    """What was decided."""
    return Ledger(home())
