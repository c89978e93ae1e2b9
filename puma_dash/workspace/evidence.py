"""Removal evidence in the cache: under which key a page, the ledger and a report find that of a patch."""

from __future__ import annotations

from puma_dash.workspace.store import key

REFERENCES = 8
"""Models that are retrained with the rows, and as many without."""


def evidence_key(patch: str) -> str:
    """The key of the evidence on the patch kept under the key ``patch``."""
    return key("evidence", patch, REFERENCES)
