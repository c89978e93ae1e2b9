"""Background work: one queue, one warm worker process, and a folder on disk for every job.

The folder is the truth: whoever reads it, a refreshed page, a second user or a restarted server, sees the
same state. In it are

- ``state.json``, always replaced as a whole: by the manager (queued), then by the worker (running, and how it
  ended), and by the manager again only once that worker is gone;
- ``cancel``, which anyone may create to ask for the end;
- ``lock``, which the manager's process holds for as long as it answers for the job;
- ``output.log``, what the task printed, and ``error.log``, the traceback of an unexpected error.

The operating system drops a lock when its process ends, however it ends, so a live job without one has lost
its manager. (A process number would not tell: after a restart it may be somebody else's.)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

Status = Literal["queued", "running", "done", "failed", "cancelled", "died"]

STATE, CANCEL, LOCK = "state.json", "cancel", "lock"
TICK = 0.05  # seconds between two looks of the manager at the running job

_ID = re.compile(r"[0-9a-f]{18}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobState:
    """Where a job stands.

    Args:
        id: its name, in URLs and on disk; later jobs have greater ones.
        task: key in the worker's dict of tasks.
        params: what the task was given.
        status: "queued" and "running" are live; the others are final.
        done: how much is done, in the task's own unit.
        total: how much there is to do in that unit; 0 when not known yet.
        message: what the task is doing, for the user.
        result: what the task returned, once done.
        error: one sentence for the user, once failed or died.
        created: when it was submitted, in seconds since 1970 like all times here.
        started: when the worker began.
        finished: when it ended.
        pid: the process that runs or ran it.
    """

    id: str
    task: str
    params: dict[str, Any]
    status: Status = "queued"
    done: float = 0.0
    total: float = 0.0
    message: str = ""
    result: dict[str, Any] | None = None
    error: str | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    pid: int | None = None

    @property
    def live(self) -> bool:
        """Whether there is still something to wait for."""
        return self.status in ("queued", "running")

    @property
    def fraction(self) -> float:
        """The part that is done, 0 to 1."""
        if self.status == "done":
            return 1.0
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran; 0 before it starts."""
        return (self.finished or time.time()) - self.started if self.started else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long it will still take at the speed so far; None before 1 s and 2 %, too early to tell."""
        if self.status != "running" or self.seconds < 1 or self.fraction < 0.02:
            return None
        return self.seconds * (1 - self.fraction) / self.fraction


def read_state(folder: Path) -> JobState:
    """What the state file of a job folder says.

    Raises:
        OSError: there is none.
        ValueError, TypeError: it is not a state.
    """
    return JobState(**json.loads((folder / STATE).read_text("utf-8")))


def write_state(folder: Path, state: JobState) -> None:
    """Replaces the state file of a job folder; readers see the old one or the new one, never a part."""
    temporary = folder / f"{STATE}.tmp"
    temporary.write_text(json.dumps(vars(state)), "utf-8")
    os.replace(temporary, folder / STATE)


class Jobs:
    """The queue of a server: runs one job at a time, in the order of submission.

    One instance per server, shared by all its users. A second one on the same folder, in this process or
    another, sees and cancels the jobs of the first and runs its own.

    Args:
        root: the folder of the job folders.
        tasks: "module:attribute" of a dict of tasks, which only the worker imports
            (see :mod:`puma_dash.workspace.worker`).
    """

    grace: float = 3.0  # seconds a running task has to end by itself once it is cancelled
    keep: int = 200  # job folders, the newest

    def __init__(self, root: Path, tasks: str = "puma_dash.workspace.tasks:TASKS") -> None:
        """An empty queue; the worker starts with the first job, or with :meth:`warm`."""
        self._root = Path(root).resolve()
        self._root.mkdir(parents=True, exist_ok=True)
        self._tasks = tasks
        self._submitting = threading.Lock()
        self._closed = threading.Event()
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()  # None: close
        self._worker: subprocess.Popen[bytes] | None = None  # touched by the dispatcher only
        self._dispatcher = threading.Thread(target=self._dispatch, name="puma-dash jobs", daemon=True)
        self._dispatcher.start()

    def submit(self, task: str, params: dict[str, Any]) -> str:
        """The id of the new job, or of the live one that has the same task and params.

        Args:
            task: key in the worker's dict of tasks.
            params: whatever JSON can carry.
        """
        text = json.dumps(params, sort_keys=True)
        with self._submitting:
            if self._closed.is_set():
                raise RuntimeError("these Jobs are closed")
            for state in self.recent():
                if state.live and state.task == task and json.dumps(state.params, sort_keys=True) == text:
                    return state.id
            job_id = f"{time.time_ns() // 1000:014x}{secrets.token_hex(2)}"
            folder = self._root / job_id
            folder.mkdir()
            lock = _hold(folder)
            write_state(folder, JobState(job_id, task, params))
            self._queue.put(partial(self._run, folder, lock))
            self._prune()
        return job_id

    def state(self, job_id: str) -> JobState | None:
        """Where that job stands; None for an id that is malformed (it may come from a URL) or not known."""
        if not _ID.fullmatch(job_id):
            return None
        try:
            return _observe(self._root / job_id)
        except (OSError, ValueError, TypeError):  # not there, removed meanwhile, or not a state
            return None

    def position(self, job_id: str) -> int:
        """How many live jobs, the running one included, come before that job; 0 once it is its turn."""
        state = self.state(job_id)
        if state is None or not state.live:
            return 0
        return sum(other.live and other.id < job_id for other in self.recent())

    def cancel(self, job_id: str) -> None:
        """Ends that job: at once if it is queued, within ``grace`` if it runs; else nothing happens."""
        state = self.state(job_id)
        if state is not None and state.live:
            (self._root / job_id / CANCEL).touch()

    def recent(self) -> list[JobState]:
        """The jobs whose folders are kept, newest first."""
        return [state for job_id in self._ids() if (state := self.state(job_id)) is not None]

    def warm(self) -> None:
        """Starts the worker now, so that the first job does not wait for its imports."""
        self._queue.put(self._warm_worker)

    def close(self) -> None:
        """Ends the worker and the jobs that are live; they read as died."""
        with self._submitting:
            self._closed.set()
            self._queue.put(None)
        self._dispatcher.join()

    def _ids(self) -> list[str]:
        """The ids of the job folders, newest first."""
        return sorted(filter(_ID.fullmatch, os.listdir(self._root)), reverse=True)

    def _prune(self) -> None:
        """Removes the oldest job folders, but none that is live."""
        for job_id in self._ids()[self.keep :]:
            state = self.state(job_id)
            if state is None or not state.live:
                shutil.rmtree(self._root / job_id, ignore_errors=True)

    def _dispatch(self) -> None:
        """Body of the dispatcher thread: one action after another, until closed."""
        while (action := self._queue.get()) is not None:
            try:
                action()
            except Exception:  # a full disk, a folder removed by hand: it costs this job, not those behind it
                _log.exception("A background job was lost.")
                self._end_worker()
        self._end_worker()

    def _run(self, folder: Path, lock: IO[bytes]) -> None:
        """Hands a job to the worker and stays with it until its state is final or the manager is closed."""
        with lock:  # closing the file lets the job go
            if self._closed.is_set():
                return
            if (folder / CANCEL).exists():
                _finish(folder, "cancelled")
                return
            worker = self._warm_worker()
            with contextlib.suppress(BrokenPipeError):  # a worker that has just died is noticed below
                worker.stdin.write(os.fsencode(folder) + b"\n")  # type: ignore[union-attr]
            give_up = math.inf
            while not self._closed.wait(TICK):
                exit_code = worker.poll()  # before the look at the state: what a dead worker left is final
                if not read_state(folder).live:
                    return
                cancelled = (folder / CANCEL).exists()
                if exit_code is not None:
                    self._end_worker()
                    if cancelled:
                        _finish(folder, "cancelled")
                    else:
                        _finish(folder, "died", _epitaph(exit_code))
                    return
                if cancelled:
                    give_up = min(give_up, time.monotonic() + self.grace)
                if time.monotonic() > give_up:
                    self._end_worker()

    def _warm_worker(self) -> subprocess.Popen[bytes]:
        """The worker process, a new one if there is none alive."""
        if self._worker is not None and self._worker.poll() is not None:
            self._end_worker()
        if self._worker is None:
            # -P and the path: the worker imports what this process would, from no other folder.
            # -u: what a task printed before it was killed is in its log.
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            self._worker = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "puma_dash.workspace.worker", self._tasks],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=2,  # what is printed before the first job goes to the server's log
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        return self._worker

    def _end_worker(self) -> None:
        """Kills the worker, if there is one, and every process that its tasks started."""
        if self._worker is None:
            return
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # macOS does not permit killing zombies
            os.killpg(self._worker.pid, signal.SIGKILL)
        self._worker.wait()
        self._worker.stdin.close()  # type: ignore[union-attr]
        self._worker = None


def _observe(folder: Path) -> JobState:
    """The state of a job as its files show it, when nobody may be left to write it down."""
    state = read_state(folder)
    if state.status == "queued" and (folder / CANCEL).exists():
        return replace(state, status="cancelled")  # nobody will start it any more
    if not state.live or _held(folder):
        return state
    state = read_state(folder)  # again: it may have ended, and been let go, after the first look
    if not state.live:
        return state
    error = "The application stopped before this job ended; nothing saved was lost; start it again."
    return replace(state, status="died", error=error, finished=(folder / STATE).stat().st_mtime)


def _finish(folder: Path, status: Status, error: str | None = None) -> None:
    """Writes the final state of a job that no worker has any more."""
    write_state(folder, replace(read_state(folder), status=status, error=error, finished=time.time()))


def _epitaph(exit_code: int) -> str:
    """The sentence for a worker that ended by itself."""
    cause = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    hint = ", often for lack of memory" if exit_code == -signal.SIGKILL else ""
    return f"The worker stopped unexpectedly ({cause}{hint}); nothing saved was lost; start it again."


def _hold(folder: Path) -> IO[bytes]:
    """The lock of a new job folder, held until the file is closed or this process ends."""
    lock = open(folder / LOCK, "wb")  # noqa: SIM115 (it stays open on purpose)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _held(folder: Path) -> bool:
    """Whether some process, this one included, holds the lock of that job folder."""
    try:
        with open(folder / LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
