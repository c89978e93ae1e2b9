"""What the pages remember, and where: the URL and the disk hold everything that a refresh must not lose.

The URL names project, version and draft; the draft on disk holds selection, marks, jobs, patch and view. The
session repeats what the URL says, because a click in the page menu may drop the URL's parameters, and keeps
its own view, because two people may look at different corners of one draft.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from puma_dash.core.task import CLASSIFICATION, TASKS, Task
from puma_dash.ui import SERVED
from puma_dash.ui.text import DEMOS
from puma_dash.workspace import drafts, lineage
from puma_dash.workspace.drafts import Draft, History
from puma_dash.workspace.index import LAYOUT, Index
from puma_dash.workspace.jobs import Jobs, JobState
from puma_dash.workspace.places import place
from puma_dash.workspace.store import Entry, Store, home

if TYPE_CHECKING:
    from puma_dash.workspace.ledger import Ledger

DEMO_SOURCES = tuple(DEMOS)
USER_HEADER = "PUMA_DASH_USER_HEADER"
"""The environment variable with the name of the header in which a proxy says who is at the browser."""
WARM_AFTER = 3.0
"""Seconds after the first view at which the worker starts to import; a job starts it at once."""


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The server's queue of background work, its worker starting once the first view is through."""
    queue = Jobs(home() / "jobs")
    later = Timer(WARM_AFTER, queue.warm)
    later.daemon = True
    later.start()
    return queue


@st.cache_resource(show_spinner=False)
def ledger() -> Ledger:
    """The server's ledger."""
    from puma_dash.workspace.ledger import Ledger  # a third of a second, not at import

    return Ledger(home())


def user() -> str:
    """Who is at the browser; empty where nobody knows, and the server's account stands for all.

    It is who is logged in (st.login), or whom a proxy that asks for a log-in names, in the header that
    ``PUMA_DASH_USER_HEADER`` says. Without that setting no header is believed: anybody can write one.
    """
    if st.user.get("is_logged_in"):
        return str(st.user.get("email") or st.user.get("name") or "")
    header = os.environ.get(USER_HEADER)
    return st.context.headers.get(header, "") if header else ""


@st.cache_resource(show_spinner=False, max_entries=64)
def _entry(key: str) -> Entry:
    found = Store(home() / "cache").load(key)
    if found is None:
        raise LookupError(key)
    return found


def entry(key: str) -> Entry | None:
    """The cache entry of that key, or None; entries never change, so all users share one copy in memory."""
    try:
        return _entry(key)
    except LookupError:  # not remembered: it may be computed later
        return None


@st.cache_resource(show_spinner=False, max_entries=64)
def _removed_before(version: int) -> np.ndarray:
    return lineage.removed_before(ledger(), version)


def removed_before(here: Context) -> np.ndarray:
    """Rows (r,), ascending, that the accepted patches up to this version removed."""
    return np.empty(0, np.int64) if here.version is None else _removed_before(here.version)


def sources() -> tuple[str, ...]:
    """What this server may open at any time: the demos, and what it was started with."""
    served = os.environ.get(SERVED)
    return (*((served,) if served and served not in DEMO_SOURCES else ()), *DEMO_SOURCES)


def offered(source: str) -> bool:
    """Whether a URL may name it: what is always there, a project folder below the root, an upload."""
    return source in sources() or place(source) is not None


@dataclass(frozen=True)
class Context:
    """The project, version and draft that a page is about.

    Args:
        source: what the project was loaded from.
        version: ledger entry of the current version; None for the original.
        draft_id: of the draft in the URL.
        index: what has been computed for this version.
    """

    source: str
    version: int | None
    draft_id: str
    index: Index

    @property
    def where(self) -> dict[str, Any]:
        """The parameters that every task takes."""
        return {"source": self.source, "version": self.version}

    @property
    def query(self) -> dict[str, str]:
        """The URL parameters of this context."""
        version = {} if self.version is None else {"version": str(self.version)}
        return {"project": self.source, **version, "draft": self.draft_id}

    @property
    def overview(self) -> Entry | None:
        """The prepared overview, or None before it is there as this version of the pages reads it."""
        found = entry(self.index.overview) if self.index.overview else None
        return found if found is not None and found.info.get("layout") == LAYOUT else None

    @property
    def task(self) -> Task:
        """What the prepared project is asked: classes or values."""
        return TASKS[self.overview.info["task"]] if self.overview is not None else CLASSIFICATION

    @property
    def main(self) -> dict[str, Any]:
        """Label and unit of the criterion that is meant where none is named: the plain loss."""
        return self.criteria[self.task.criterion]

    @property
    def criteria(self) -> dict[str, dict[str, Any]]:
        """Label and unit of each criterion that the prepared project can use, by its unique name.

        Those that users made have a "record" too, which the worker reads.
        """
        known = {} if self.overview is None else self.overview.info["criteria"]
        usable = {key: facts for key, facts in known.items() if facts["refused"] is None}
        return usable | self.index.criteria

    @property
    def project(self) -> str:
        """What the draft belongs to: a source at a version."""
        return f"{self.source} {self.version}"

    def history(self) -> History:
        """The draft as it is on disk now."""
        return drafts.load(_drafts(), self.draft_id, self.project) or History()

    def draft(self) -> Draft:
        """The present state of the draft."""
        return self.history().now

    def update(self, change: Callable[[History], History]) -> None:
        """Changes the draft on disk, after whatever another session has changed."""
        with drafts.locked(_drafts(), self.draft_id):
            drafts.save(_drafts(), self.draft_id, self.project, change(self.history()))

    def edit(self, change: Callable[[Draft], Draft]) -> None:
        """One undoable edit of the draft; an edit that changes nothing leaves no trace."""

        def edited(history: History) -> History:
            after = change(history.now)
            return history if after.same(history.now) else history.then(after)

        self.update(edited)

    def keep(self, name: str, value: Any) -> None:
        """Remembers, beyond a refresh, what a page shows: a zoom, a cell that was picked."""
        self.view[name] = value
        self.update(lambda history: replace(history, view={**history.view, name: value}))

    @property
    def view(self) -> dict[str, Any]:
        """What this session looks at: it begins where the draft was left last, and goes its own way."""
        mine = f"view of {self.draft_id}"
        if mine not in st.session_state:
            st.session_state[mine] = dict(self.history().view)
        return st.session_state[mine]

    def choosing(
        self, name: str, options: Collection[Any] | None = None, default: Any = None
    ) -> dict[str, Any]:
        """The arguments that make a widget show, and keep, what was chosen or written.

        Args:
            name: of the choice and of the widget.
            options: what may be chosen now; None: anything.
            default: where nothing was, or what is no longer among the options; by default their first.
        """
        value = self.view.get(name)
        if value is None or (options is not None and value not in options):
            value = next(iter(options or ()), "") if default is None else default
        if st.session_state.get(name) != value:
            st.session_state[name] = value
        return {"key": name, "on_change": lambda: self.keep(name, st.session_state[name])}

    def start(self, task: str, params: dict[str, Any], name: str = "") -> None:
        """Starts a background job and notes it in the draft, under ``name`` or else the task's."""
        job = jobs().submit(task, {**self.where, **params})
        self.update(lambda history: replace(history, jobs={**history.jobs, name or task: job}))

    def job(self, task: str) -> JobState | None:
        """The last job of that kind, or started under that name, from this draft."""
        job_id = self.history().jobs.get(task)
        return jobs().state(job_id) if job_id else None

    def forget(self, task: str) -> None:
        """Puts a finished job out of sight."""
        known = {name: job for name, job in self.history().jobs.items() if name != task}
        self.update(lambda history: replace(history, jobs=known))


def _drafts() -> Path:
    return home() / "drafts"


def context() -> Context | None:
    """The project in the URL, else of this session, else the one the server was started on, else None."""
    asked = st.query_params.get("project") or st.session_state.get("project") or os.environ.get(SERVED)
    if asked is None or not offered(asked):
        return None
    same = asked == st.session_state.get("project")
    version = st.query_params.get("version")
    if version is None and same and "project" not in st.query_params:
        version = st.session_state.get("version")
    draft_id = st.query_params.get("draft") or (st.session_state.get("draft") if same else None)
    known = draft_id is not None and drafts.is_id(draft_id)
    number = int(version) if version is not None and re.fullmatch(r"\d{1,9}", str(version)) else None
    return open_context(asked, number, draft_id if known else None)


def open_context(source: str, version: int | None, draft_id: str | None = None) -> Context:
    """The context of that version, from now on in the session and in the URL."""
    found = Context(source, version, draft_id or drafts.new_id(), Index.of(home(), source, version))
    st.session_state.update(project=source, version=version, draft=found.draft_id)
    if st.query_params.to_dict() != found.query:
        st.query_params.from_dict(found.query)
    return found
