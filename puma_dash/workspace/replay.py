"""Replay: a patch made again from what the ledger says of it, and held against the hashes it recorded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from puma_dash.core.engine import Progress
from puma_dash.core.records import plan_of
from puma_dash.core.types import Patch, Project, ProjectError
from puma_dash.workspace import projects, provenance, weights
from puma_dash.workspace.ledger import Entry, Ledger


@dataclass(frozen=True)
class Check:
    """One thing that was recorded and looked at again.

    Args:
        name: what.
        fits: whether it is as recorded.
        sentence: what was found.
        decides: whether the replay fails without it; the others only explain.
    """

    name: str
    fits: bool
    sentence: str
    decides: bool = True


def replay(ledger: Ledger, entry_id: int, home: Path, progress: Progress | None = None) -> list[Check]:
    """What fits and what does not, after the patch of that entry has been made again.

    It starts from the version that the patch was made on, with the recorded plan, seed, device and number of
    threads, and uses nothing that is in the cache.

    Raises:
        ProjectError: there is no such patch, or it cannot be made here.
    """
    entry = ledger.entry(entry_id)
    if entry is None or "plan" not in entry.details:
        raise ProjectError(
            f"expected an entry of the ledger with a patch, accepted or discarded, but {entry_id} is "
            f"{'none' if entry is None else entry.kind!r}; try one that the History page lists."
        )
    record = entry.details
    chain = ledger.verify()
    project = _parent(entry, home)
    plan = plan_of(record["plan"])
    checks = [
        Check("chain", chain.broken is None, chain.sentence),
        _same("data", record, provenance.data_hash(project)),
        _same("rows", record, provenance.rows_hash(project, plan)),
        _same("model before", record, weights.digest(provenance.state(project.model))),
        _objective(record, provenance.project_facts(project)),
    ]
    provenance.use_threads(record["threads"])
    torch.use_deterministic_algorithms(record["deterministic"])
    made = provenance.patch_anew(
        project, plan, seed=record["seed"], device=record["diagnostics"]["device"], progress=progress
    )
    again = provenance.provenance(project, made, seed=record["seed"])
    checks += [
        *_model(record, made, again["hashes"]["model after"], home),
        _same("training weights", record, again["hashes"]["training weights"]),
        *_numbers("predicted", record, made.predicted),
        *_numbers("measured", record, made.measured),
        *_circumstances(record, again),
    ]
    return checks


def _parent(entry: Entry, home: Path) -> Project:
    """The version that the patch was made on; its weights are those that were kept, where they were."""
    project = projects.open_project(entry.source, entry.parent)
    kept = entry.details["hashes"]["model before"]
    if not weights.file(home, kept).exists():
        return project
    model = projects.with_state(project, weights.load(home, kept))
    return dataclasses.replace(project, model=model)


def _same(name: str, record: dict[str, Any], found: str) -> Check:
    recorded = record["hashes"][name]
    if found == recorded:
        return Check(name, True, f"SHA-256 {found[:16]}…, as recorded")
    return Check(name, False, f"SHA-256 {found[:16]}…, but {recorded[:16]}… was recorded")


def _objective(record: dict[str, Any], found: dict[str, Any]) -> Check:
    """Whether the project says that it was trained on the recorded loss and weight decay."""
    now, then = (
        f"{facts['loss']}, weight decay {facts['weight_decay']}" for facts in (found, record["project"])
    )
    if now == then:
        return Check("objective", True, f"{now}, as recorded")
    return Check("objective", False, f"{now}, but {then} was recorded")


def _model(record: dict[str, Any], made: Patch, found: str, home: Path) -> list[Check]:
    """Whether the patched weights are the recorded ones, bit for bit, and so are those that were kept."""
    check = _same("model after", record, found)
    if check.fits:
        check = dataclasses.replace(check, sentence=f"bit for bit: {check.sentence}")
    if "kept" not in record:
        return [check]
    try:
        kept = weights.load(home, record["kept"]["model"])
    except ProjectError as error:
        return [check, Check("kept weights", False, str(error))]
    if not check.fits:
        apart = max(
            float(np.abs(array.astype(np.float64) - kept[name].astype(np.float64)).max(initial=0))
            for name, array in provenance.state(made.model).items()
        )
        check = dataclasses.replace(check, sentence=f"weights differ by up to {apart:.1e}: {check.sentence}")
    return [check, Check("kept weights", True, "the file has the recorded hash")]


def _numbers(name: str, record: dict[str, Any], found: dict[str, float]) -> list[Check]:
    return [
        Check(
            f"{name} {criterion}",
            record[name].get(criterion) == value,
            f"{value:+.6g}, {record[name].get(criterion, float('nan')):+.6g} recorded",
        )
        for criterion, value in found.items()
    ]


def _circumstances(record: dict[str, Any], again: dict[str, Any]) -> list[Check]:
    """Where this machine and its libraries are not those of the record: why bits may differ."""
    return [
        Check(name, False, f"{now} here, {record[part].get(name, 'none')} recorded", decides=False)
        for part in ("machine", "libraries")
        for name, now in again[part].items()
        if now != record[part].get(name)
    ]
