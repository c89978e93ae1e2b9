"""The ledger: what was decided on a project, append-only, in a database that SQLAlchemy can reach.

Each entry carries the hash of the one before it, and its own hash covers that and all it says: whoever
changes an entry must change every later one, too, and the last hash stands in reports and bundles that others
hold.
The database itself turns away UPDATE and DELETE, so that no slip of a program gets that far.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import (
    DDL,
    JSON,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    String,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from puma_dash.core.types import ProjectError
from puma_dash.workspace.versions import Version, Versions

KINDS = ("accepted", "discarded", "test opened", "rolled back")
LONGEST_NAME = 200
"""Characters of who decided."""
LOCK = 0x70756D61
"""The number of the lock that writers to PostgreSQL take in turn."""


class Moment(TypeDecorator[datetime]):
    """A time in UTC, also where the database forgets the zone or answers in its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time as it was written."""
        if value is None or value.tzinfo is None:
            return value and value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


class Base(DeclarativeBase):
    """The tables of the ledger."""


class Entry(Base):
    """One decision: a patch accepted (a new version) or discarded, test opened, or a version made current.

    ``id`` is its place in the chain; ``parent`` the version it started from and ``target`` the version that a
    roll-back leads to (both entries; None is the original); ``patch`` the key of the patch in the cache.
    """

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created: Mapped[datetime] = mapped_column(Moment)
    who: Mapped[str] = mapped_column(String(LONGEST_NAME))
    kind: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(500), index=True)
    parent: Mapped[int | None] = mapped_column(ForeignKey("entries.id"))
    target: Mapped[int | None] = mapped_column(ForeignKey("entries.id"))
    patch: Mapped[str] = mapped_column(String(64))
    why: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous: Mapped[str] = mapped_column(String(64), unique=True)  # a chain that forks is refused
    hash: Mapped[str] = mapped_column(String(64))

    def content(self) -> dict[str, Any]:
        """All that the hash covers, as JSON carries it."""
        said = {column: getattr(self, column) for column in self.__table__.columns.keys() if column != "hash"}  # noqa: SIM118
        return {**said, "created": self.created.isoformat()}


def digest(content: dict[str, Any]) -> str:
    """The hash of an entry: SHA-256 of its content as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_TABLE = cast(Table, Entry.__table__)
_REFUSAL = "the ledger is append-only"
_TRIGGERS = {
    "sqlite": (
        *(
            f"CREATE TRIGGER entries_no_{verb} BEFORE {verb} ON entries "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            for verb in ("update", "delete")
        ),
        # INSERT OR REPLACE deletes without firing the trigger above, so only the next link may come in.
        "CREATE TRIGGER entries_only_next BEFORE INSERT ON entries "
        "WHEN NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM entries) OR NEW.previous <> "
        "coalesce((SELECT hash FROM entries ORDER BY id DESC LIMIT 1), '') "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION entries_append_only() RETURNS trigger AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION entries_append_only()",
    ),
}
for _dialect, _statements in _TRIGGERS.items():
    for _statement in _statements:
        event.listen(_TABLE, "after_create", DDL(_statement).execute_if(dialect=_dialect))


@dataclass(frozen=True)
class Chain:
    """What a look at all entries found.

    Args:
        entries: how many there are.
        head: hash of the last one; empty where there is none.
        broken: the first entry that does not fit, or None.
        reason: why it does not.
    """

    entries: int
    head: str = ""
    broken: int | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The verdict."""
        if self.broken is not None:
            return f"The chain is broken at entry {self.broken}: {self.reason}."
        return f"{self.entries:,} {'entry' if self.entries == 1 else 'entries'}, chain intact."


def check_chain(entries: Iterable[Entry]) -> Chain:
    """The verdict on ``entries``, all of a ledger in their order."""
    count, head = 0, ""
    for entry in entries:
        if entry.id != count + 1:
            reason = f"entry {count + 1} is missing"
        elif entry.previous != head:
            reason = "it does not follow the entry before it"
        elif digest(entry.content()) != entry.hash:
            reason = "it does not say what it said when it was written"
        else:
            count, head = entry.id, entry.hash
            continue
        return Chain(count, head, entry.id, reason)
    return Chain(count, head)


class Ledger:
    """Reads and appends; there is no call that changes or deletes.

    Args:
        folder: where the SQLite file lies, if there is no ``url``.
        url: a SQLAlchemy URL; by default ``$PUMA_DASH_DATABASE``.

    Raises:
        ProjectError: the database cannot be opened, or an older version of the program has written it.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        address = url or os.environ.get("PUMA_DASH_DATABASE") or f"sqlite:///{folder / 'ledger.db'}"
        try:
            self._engine = _engine(address)
            with self._writing() as connection:
                _prepare(connection)
        except (SQLAlchemyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise ProjectError(
                f"expected a database for the ledger, but it cannot be opened ({reason}); try another "
                "PUMA_DASH_DATABASE, which is a SQLAlchemy URL such as postgresql+psycopg://user@host/name."
            ) from error

    def append(
        self,
        kind: str,
        *,
        source: str,
        parent: int | None,
        patch: str = "",
        target: int | None = None,
        why: str = "",
        who: str = "",
        details: dict[str, Any] | None = None,
    ) -> Entry:
        """The new entry, the last link of the chain; two writers at once come one after the other.

        ``who`` is the account that this process runs as, where nobody else is named.
        """
        assert kind in KINDS, kind
        entry = Entry(
            created=datetime.now(UTC),
            who=who[:LONGEST_NAME] or getpass.getuser(),
            kind=kind,
            source=source,
            parent=parent,
            target=target,
            patch=patch,
            why=" ".join(why.split()),
            details=_finite(details or {}),
        )
        with self._writing() as connection, Session(connection, expire_on_commit=False) as session:
            last = session.execute(select(Entry.id, Entry.hash).order_by(Entry.id.desc()).limit(1)).first()
            entry.id, entry.previous = (1, "") if last is None else (last.id + 1, last.hash)
            entry.hash = digest(entry.content())
            session.add(entry)
            session.flush()
            session.expunge(entry)
        return entry

    def entry(self, entry_id: int) -> Entry | None:
        """The entry of that id, or None."""
        with Session(self._engine) as session:
            return session.get(Entry, entry_id)

    def entries(self, source: str) -> list[Entry]:
        """All entries of a project, oldest first."""
        with Session(self._engine) as session:
            return list(session.scalars(select(Entry).where(Entry.source == source).order_by(Entry.id)))

    def versions(self, source: str) -> Versions:
        """The versions of a project, and which one is current."""
        columns = (Entry.id, Entry.kind, Entry.parent, Entry.target, Entry.created, Entry.who, Entry.why)
        deciding = select(*columns).where(Entry.source == source, Entry.kind.in_(("accepted", "rolled back")))
        accepted: list[Version] = []
        current = None
        with Session(self._engine) as session:
            for row in session.execute(deciding.order_by(Entry.id)):
                current = row.id if row.kind == "accepted" else row.target
                if row.kind == "accepted":
                    number = len(accepted) + 1
                    accepted.append(Version(row.id, number, row.parent, row.created, row.who, row.why))
        return Versions(tuple(accepted), current)

    def decision(self, patch: str) -> Entry | None:
        """The latest decision on a patch, or None while it is open."""
        with Session(self._engine) as session:
            decided = Entry.kind.in_(("accepted", "discarded"))
            found = select(Entry).where(Entry.patch == patch, decided).order_by(Entry.id.desc()).limit(1)
            return session.scalars(found).first()

    def openings(self, source: str) -> int:
        """How often the test split of a project was opened."""
        with Session(self._engine) as session:
            query = select(func.count()).where(Entry.source == source, Entry.kind == "test opened")
            return session.scalar(query) or 0

    def verify(self) -> Chain:
        """Whether every entry, of all projects, is the one that was written, in its place."""
        in_order = select(Entry).order_by(Entry.id).execution_options(yield_per=100)
        with Session(self._engine) as session, closing(session.scalars(in_order)) as entries:
            return check_chain(entries)

    def links(self) -> list[tuple[int, str, str]]:
        """Id, hash of the entry before, and hash of every entry: the chain without what it says."""
        with Session(self._engine) as session:
            rows = session.execute(select(Entry.id, Entry.previous, Entry.hash).order_by(Entry.id))
            return [(row.id, row.previous, row.hash) for row in rows]

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other writer shares its time with."""
        with self._engine.connect().execution_options(writing=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection


def _engine(address: str) -> Engine:
    """The database; SQLite's transactions begin when we say so, not when the driver thinks best."""
    engine = create_engine(address)
    if engine.dialect.name == "sqlite":
        engine = create_engine(address, poolclass=NullPool)  # opening a file is cheap, holding it is not

        @event.listens_for(engine, "connect")
        def _leave_transactions_to_us(connection: Any, _: Any) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA busy_timeout = 30000")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            writing = connection.get_execution_options().get("writing")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _prepare(connection: Connection) -> None:
    """Makes the table where there is none, and refuses another one of its name."""
    schema = inspect(connection)
    if not schema.has_table(_TABLE.name):
        Base.metadata.create_all(connection)
        return
    found = {column["name"] for column in schema.get_columns(_TABLE.name)}
    missing = sorted(set(_TABLE.columns.keys()) - found)
    if missing:
        where = connection.engine.url.render_as_string(hide_password=True)
        raise ProjectError(
            f"expected a ledger of this version of PUMA Dash at {where}, but an older one wrote it (it lacks "
            f"{', '.join(missing)}); try moving it to another place: a new one is then begun."
        )


def _finite(value: Any) -> Any:
    """``value`` with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
