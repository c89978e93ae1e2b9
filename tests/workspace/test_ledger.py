"""The ledger: append-only at the database, one chain whatever happens, versions counted from it."""

import json
import os
import sqlite3
import subprocess
import sys
from hashlib import sha256

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from puma_dash.core.types import ProjectError
from puma_dash.workspace.ledger import Ledger

WRITER = """
import sys
from pathlib import Path
from puma_dash.workspace.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]), sys.argv[2] or None)
for i in range(25):
    ledger.append("discarded", source=f"by {sys.argv[3]}", parent=None, details={"i": i})
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A database of its own: a SQLite file, or a PostgreSQL that the environment names, emptied."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    address = os.environ.get("PUMA_DASH_TEST_POSTGRESQL")
    if not address:
        pytest.skip("PUMA_DASH_TEST_POSTGRESQL is not set: it names a database that tests may empty")
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS entries"))
    engine.dispose()
    return address


@pytest.fixture
def ledger(url, tmp_path):
    """An empty ledger."""
    opened = Ledger(tmp_path, url)
    yield opened
    opened.close()


def say(ledger, kind="discarded", source="digits", **settings):
    """One more entry."""
    return ledger.append(kind, source=source, parent=settings.pop("parent", None), **settings)


def tamper(url, statement):
    """Runs ``statement`` as someone would who knows how to take the triggers away."""
    engine = create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for name in ("entries_no_update", "entries_no_delete", "entries_only_next"):
                connection.execute(text(f"DROP TRIGGER IF EXISTS {name}"))
        else:
            connection.execute(text("ALTER TABLE entries DISABLE TRIGGER USER"))
        connection.execute(text(statement))
    engine.dispose()


def test_an_entry_comes_back_as_it_was_written(ledger):
    details = {"plan": {"remove": [1, 2]}, "predicted": {"x": -0.1 + 1e-17}, "lost": float("nan"), "ü": "“"}
    written = say(ledger, "accepted", patch="p", why=" so\n it  holds ", details=details)
    found = ledger.entry(written.id)
    assert found.details == {**details, "lost": None}
    assert found.why == "so it holds"
    assert found.created == written.created
    assert found.created.utcoffset().total_seconds() == 0
    assert found.who


def test_the_hash_is_sha256_of_what_the_entry_says_and_of_the_one_before(ledger):
    first, second = say(ledger, why="a"), say(ledger, why="b")
    assert first.previous == ""
    assert second.previous == first.hash
    said = {
        name: getattr(second, name) for name in ("id", "who", "kind", "source", "parent", "target", "patch")
    }
    said |= {"why": "b", "details": {}, "previous": first.hash, "created": second.created.isoformat()}
    assert second.hash == sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert ledger.links() == [(1, "", first.hash), (2, first.hash, second.hash)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET why = 'another' WHERE id = 2",
        "DELETE FROM entries WHERE id = 3",
        "DELETE FROM entries",
    ],
)
def test_the_database_refuses_to_change_or_delete(ledger, url, statement):
    for _ in range(3):
        say(ledger)
    engine = create_engine(url)
    with pytest.raises(DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
    assert len(ledger.entries("digits")) == 3


def test_sqlite_refuses_to_replace_an_entry(tmp_path):
    """INSERT OR REPLACE deletes the old row without asking the DELETE trigger."""
    ledger = Ledger(tmp_path)
    first = say(ledger)
    values = "'2026-01-01', 'x', 'discarded', 'digits', NULL, NULL, '', 'another', '{}', '', 'h')"
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        for start in (f"({first.id}, ", "(2, "):
            with pytest.raises(sqlite3.DatabaseError, match="append-only"):
                connection.execute(f"INSERT OR REPLACE INTO entries VALUES {start}{values}")
    connection.close()
    assert ledger.entry(1).why == ""
    ledger.close()


def test_postgresql_refuses_truncate(ledger, url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no TRUNCATE")
    say(ledger)
    engine = create_engine(url)
    with pytest.raises(DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(text("TRUNCATE entries"))
    engine.dispose()


def test_an_intact_chain_is_counted(ledger):
    assert ledger.verify().sentence == "0 entries, chain intact."
    last = [say(ledger, details={"i": i, "x": i / 3}) for i in range(12)][-1]
    assert ledger.verify().sentence == "12 entries, chain intact."
    assert ledger.verify().head == last.hash


@pytest.mark.parametrize(
    ("statement", "broken", "reason"),
    [
        ("UPDATE entries SET why = 'another' WHERE id = 3", 3, "does not say what it said"),
        ("UPDATE entries SET who = 'another' WHERE id = 1", 1, "does not say what it said"),
        ("UPDATE entries SET created = '2020-01-01 00:00:00' WHERE id = 4", 4, "does not say what it said"),
        ("UPDATE entries SET details = '{\"i\": 7}' WHERE id = 5", 5, "does not say what it said"),
        ("UPDATE entries SET kind = 'accepted' WHERE id = 2", 2, "does not say what it said"),
        ("UPDATE entries SET parent = 1 WHERE id = 2", 2, "does not say what it said"),
        ("UPDATE entries SET target = 1 WHERE id = 2", 2, "does not say what it said"),
        ("UPDATE entries SET hash = 'f' WHERE id = 2", 2, "does not say what it said"),
        ("UPDATE entries SET previous = 'f' WHERE id = 2", 2, "does not follow"),
        ("DELETE FROM entries WHERE id = 3", 4, "entry 3 is missing"),
        ("DELETE FROM entries WHERE id = 1", 2, "entry 1 is missing"),
    ],
)
def test_tampering_is_named_by_the_first_entry_that_does_not_fit(ledger, url, statement, broken, reason):
    for i in range(5):
        say(ledger, details={"i": i})
    tamper(url, statement)
    found = ledger.verify()
    assert found.broken == broken
    assert reason in found.sentence
    assert f"broken at entry {broken}" in found.sentence


def test_an_entry_with_a_fresh_hash_breaks_the_next(ledger, url):
    """Whoever recomputes the hash of what was changed must go on to the end of the chain."""
    from puma_dash.workspace.ledger import digest

    for _ in range(3):
        say(ledger)
    content = {**ledger.entry(2).content(), "why": "another"}
    tamper(url, f"UPDATE entries SET why = 'another', hash = '{digest(content)}' WHERE id = 2")
    assert ledger.verify().broken == 3


def test_writers_at_once_do_not_fork_the_chain(url, tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path), url]
    writers = [subprocess.Popen([*command, str(i)]) for i in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    ledger = Ledger(tmp_path, url)
    assert ledger.verify().sentence == "75 entries, chain intact."
    assert [e.details["i"] for e in ledger.entries("by 1")] == list(range(25))
    ledger.close()


def test_the_configuration_moves_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PUMA_DASH_DATABASE", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    ledger = Ledger(tmp_path)
    say(ledger)
    ledger.close()
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize("address", ["nonsense", "sqlite:////absent/folder/x.db", "nosuch+driver://host/db"])
def test_a_database_that_cannot_be_opened_is_a_sentence(tmp_path, address):
    with pytest.raises(ProjectError, match="expected a database for the ledger"):
        Ledger(tmp_path, address)


def test_a_ledger_of_an_older_version_is_a_sentence(tmp_path):
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute(
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, created DATETIME, who VARCHAR(200))"
        )
    connection.close()
    with pytest.raises(ProjectError, match="an older one wrote it") as told:
        Ledger(tmp_path)
    assert "ledger.db" in str(told.value)


def test_versions_are_counted_per_project_and_a_roll_back_deletes_nothing(ledger):
    first = say(ledger, "accepted")
    say(ledger, "accepted", source="radial")
    say(ledger, "test opened")
    second = say(ledger, "accepted", parent=first.id)
    say(ledger, parent=second.id)
    assert ledger.versions("digits").numbers == {None: 0, first.id: 1, second.id: 2}
    assert ledger.versions("digits").current == second.id
    say(ledger, "rolled back", parent=second.id, target=first.id, why="worse on the new hospital")
    versions = ledger.versions("digits")
    assert versions.current == first.id
    assert versions.name(versions.current) == "version 1"
    assert len(versions.accepted) == 2
    third = say(ledger, "accepted", parent=first.id)
    versions = ledger.versions("digits")
    assert versions.name(third.id) == "version 3"
    assert versions.lanes == {None: 0, first.id: 0, second.id: 0, third.id: 1}
    say(ledger, "rolled back", parent=third.id, target=None, why="all of it")
    assert ledger.versions("digits").current is None
    assert ledger.versions("digits").name(None) == "original"
    assert ledger.versions("radial").numbers == {None: 0, 2: 1}
    assert ledger.versions("nothing").current is None


def test_the_latest_decision_counts_and_openings_are_counted(ledger):
    say(ledger, patch="p")
    say(ledger, "test opened", patch="p")
    accepted = say(ledger, "accepted", patch="p")
    assert ledger.decision("p").id == accepted.id
    assert ledger.decision("q") is None
    assert (ledger.openings("digits"), ledger.openings("radial")) == (1, 0)
