"""The ledger: what was decided on a project, append-only, in a database that SQLAlchemy can reach."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, ForeignKey, String, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """The tables of the ledger."""


class Entry(Base):
    """One decision: a patch accepted (a new version) or discarded, or the test split opened."""

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    who: Mapped[str] = mapped_column(String(200), default=getpass.getuser)
    kind: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(500))
    parent: Mapped[int | None] = mapped_column(ForeignKey("entries.id"))
    patch: Mapped[str] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)


KINDS = ("accepted", "discarded", "test opened")


class Ledger:
    """Reads and appends; there is no call that changes or deletes.

    Args:
        url: a SQLAlchemy URL; by default ``$PUMA_DASH_DATABASE`` or a SQLite file in ``folder``.
        folder: where that file lies.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        address = url or os.environ.get("PUMA_DASH_DATABASE") or f"sqlite:///{folder / 'ledger.db'}"
        self._engine: Engine = create_engine(address)
        Base.metadata.create_all(self._engine)

    def append(
        self, kind: str, *, source: str, parent: int | None, patch: str, details: dict[str, Any]
    ) -> Entry:
        """The new entry, with its id."""
        assert kind in KINDS, kind
        entry = Entry(kind=kind, source=source, parent=parent, patch=patch, details=details)
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.add(entry)
        return entry

    def entry(self, entry_id: int) -> Entry | None:
        """The entry of that id, or None."""
        with Session(self._engine, expire_on_commit=False) as session:
            return session.get(Entry, entry_id)

    def entries(self, source: str) -> list[Entry]:
        """All entries of a project, oldest first."""
        with Session(self._engine, expire_on_commit=False) as session:
            return list(session.scalars(select(Entry).where(Entry.source == source).order_by(Entry.id)))

    def decision(self, patch: str) -> Entry | None:
        """The latest decision on a patch, or None while it is open."""
        with Session(self._engine, expire_on_commit=False) as session:
            decided = Entry.kind.in_(("accepted", "discarded"))
            found = select(Entry).where(Entry.patch == patch, decided).order_by(Entry.id.desc()).limit(1)
            return session.scalars(found).first()

    def openings(self, source: str) -> int:
        """How often the test split of a project was opened."""
        with Session(self._engine) as session:
            query = select(func.count()).where(Entry.source == source, Entry.kind == "test opened")
            return session.scalar(query) or 0

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()
