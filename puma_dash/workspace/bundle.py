"""The bundle: one zip with all that a version is, for an archive or for somebody who checks it elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from puma_dash.workspace import weights
from puma_dash.workspace.ledger import Entry

README = """\
{name}, entry {entry} of the ledger of PUMA Dash.

model.safetensors     weights and buffers by name: model.load_state_dict(safetensors.torch.load_file(...))
rows.safetensors      labels (and weights) of the training rows, which the next patch starts from
entry.json            what the ledger says: who, when, why, settings, hashes, library versions, figures
plan.json             what was asked for
comparison.json       before and after on validation, and on test where it was opened
chain.json            number, previous hash and hash of every entry of the ledger when this was exported
report.html           the report, to be opened in a browser
SHA256SUMS            of all of these: sha256sum -c SHA256SUMS

The hash of the entry is SHA-256 of entry.json, without its "hash", as JSON with sorted keys and no spaces.
The name under "kept", "model" is SHA-256 of model.safetensors. Where the project can be loaded, the patch is
made again by

    puma-dash replay {entry}
"""


def bundle(entry: Entry, home: Path, links: list[tuple[int, str, str]], report: str) -> bytes:
    """The zip of an accepted version.

    Args:
        entry: of the ledger.
        home: where its weights are kept.
        links: of the whole chain.
        report: as HTML.

    Raises:
        ProjectError: the weights are not those that were accepted.
    """
    details = entry.details
    comparisons = {"validation": details["comparison"], "test": details.get("test")}
    chain = [{"id": id_, "previous": previous, "hash": hash_} for id_, previous, hash_ in links]
    name = details["project"]["name"]
    files = {
        "README.txt": README.format(name=name, entry=entry.id).encode(),
        "model.safetensors": weights.read(home, details["kept"]["model"]),
        "rows.safetensors": weights.read(home, details["kept"]["rows"]),
        "entry.json": _json({**entry.content(), "hash": entry.hash}),
        "plan.json": _json(details["plan"]),
        "comparison.json": _json(comparisons),
        "chain.json": _json(chain),
        "report.html": report.encode(),
    }
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {file}\n" for file, data in files.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in {**files, "SHA256SUMS": sums.encode()}.items():
            archive.writestr(file, data)
    return packed.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
