"""The index of a project version: which cache entries its pages can show at once."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from puma_dash.workspace.store import key

LAYOUT = 6
"""Of an overview: raised when it holds something else than before, so that an older one does not count."""


@dataclass(frozen=True)
class Index:
    """Cache keys of what has been computed for one version of one source; every change is written at once.

    Args:
        path: its file.
        fingerprint: of the project when it was prepared; empty before that.
        overview: key of the overview.
        values: "method/criterion" -> key of the scores.
        embeddings: label -> key of the coordinates.
        criteria: name -> "label", "unit" and "record" of each criterion that a user made, such as the loss on
            some errors.
        findings: what was examined, such as "checks" or "flips", -> key of what was found.
        scores: name -> key of the scores that a user took in from a file.
    """

    path: Path
    fingerprint: str = ""
    overview: str = ""
    values: dict[str, str] = field(default_factory=dict)
    embeddings: dict[str, str] = field(default_factory=dict)
    criteria: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: dict[str, str] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Path, source: str, version: int | None) -> Index:
        """The index of that version, empty where nothing has been prepared."""
        return cls._at(home / "projects" / f"{key(source, version)[:24]}.json")

    @classmethod
    def _at(cls, path: Path) -> Index:
        try:
            return cls(path, **json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(path)

    def with_overview(self, fingerprint: str, overview: str) -> Index:
        """The index with a new overview; what belongs to another fingerprint is dropped."""
        old = self if self.fingerprint == fingerprint else Index(self.path)
        return replace(old, fingerprint=fingerprint, overview=overview)._write()

    def with_values(self, method: str, criterion: str, name: str) -> Index:
        """The index with one more valuation."""
        now = self._at(self.path)  # another job may have extended it
        return replace(now, values={**now.values, f"{method}/{criterion}": name})._write()

    def with_criterion(self, name: str, facts: dict[str, Any]) -> Index:
        """The index with one more criterion of a user's own."""
        now = self._at(self.path)  # another job may have extended it
        return replace(now, criteria={**now.criteria, name: facts})._write()

    def with_embedding(self, label: str, name: str) -> Index:
        """The index with one more map."""
        now = self._at(self.path)  # another job may have extended it
        return replace(now, embeddings={**now.embeddings, label: name})._write()

    def with_finding(self, what: str, name: str) -> Index:
        """The index with one more finding."""
        now = self._at(self.path)  # another job may have extended it
        return replace(now, findings={**now.findings, what: name})._write()

    def with_scores(self, name: str, entry: str) -> Index:
        """The index with scores of that name, in place of earlier ones."""
        now = self._at(self.path)  # another job may have extended it
        return replace(now, scores={**now.scores, name: entry})._write()

    def _write(self) -> Index:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        content = {name: value for name, value in vars(self).items() if name != "path"}
        temporary.write_text(json.dumps(content), "utf-8")
        os.replace(temporary, self.path)
        return self
